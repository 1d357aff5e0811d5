"""What publishing one sync costs when the history is long: 10M transactions against 1M.

The warehouse is made by SQL with the tables' own columns; the curated ones are plain tables, and
the balances the window over flows that they are.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import median

from extract.core.datasets import DATASETS
from ledgerhouse.publish.publish import publish
from ledgerhouse.warehouse.connection import connected
from ledgerhouse.warehouse.schema import create_all
from tests.benchmarks.measure import bench_var, ratio, row, tell

ROWS_A_DAY, TOKENS, NEW = 2_740, 40, 2_000
END = date(2025, 1, 20)
MONEY = "(hash(i) % 10000000000)::DECIMAL(38,18) / 100000000"
LEG = f"""
    SELECT 'exchange' AS domain, 'coinbase' AS source, 'main' AS account, '' AS chain,
           md5(i::VARCHAR) AS txid, 'entry' AS leg, ts, 'trade' AS kind, 'T' || i % {TOKENS}
           AS token, 'T' || i % {TOKENS} AS symbol, ({MONEY})::DECIMAL(38,18) AS amount,
           ({MONEY})::VARCHAR AS amount_text, ({MONEY})::DECIMAL(38,6) AS amount_wide,
           false AS is_overflow, true AS is_settled, false AS is_scam, true AS counts,
           'completed' AS status, NULL::DECIMAL(38,18) AS price, NULL::DECIMAL(38,18) AS fee,
           NULL::VARCHAR AS fee_token, NULL::VARCHAR AS counterparty, md5((i + 1)::VARCHAR) AS ref,
           1 AS fills FROM ({{rows}})"""
CURATED = f"""
CREATE SCHEMA curated;
CREATE TABLE curated.daily_flows AS
    SELECT ts::DATE AS date, domain, source, account, token, sum(amount)::DECIMAL(38,18) AS net,
           count(*) AS legs FROM curated_tx GROUP BY ALL ORDER BY 1;
CREATE TABLE curated.tx_unified AS FROM curated_tx ORDER BY ts;
DROP TABLE curated_tx;
CREATE TABLE curated.assets AS SELECT 'T' || i AS token FROM range({TOKENS}) r(i);
CREATE VIEW curated.reconciliation AS SELECT token, sum(net)::DECIMAL(38,18) AS computed
    FROM curated.daily_flows GROUP BY token;
CREATE VIEW curated.daily_balances AS SELECT date, domain, source, account, token, net,
    (sum(net) OVER (PARTITION BY domain, source, account, token ORDER BY date))::DECIMAL(38,18)
    AS balance FROM curated.daily_flows;
"""


def _raw(rows: str) -> str:
    """A SELECT of ledger rows with every column of the dataset, payload of 700 bytes."""
    known = {
        "source": "'coinbase'",
        "account": "'main'",
        "entry_id": "md5(i::VARCHAR)",
        "ts": "ts",
        "amount": MONEY,
        "amount_text": f"({MONEY})::VARCHAR",
        "payload": "repeat(md5(i::VARCHAR), 22)",
    }
    return (
        "SELECT "
        + ", ".join(
            f"({known.get(c.name, 'NULL')})::{c.type} AS {c.name}"
            for c in DATASETS["exchanges_ledger"].columns
        )
        + f" FROM ({rows})"
    )


class Books:
    """A warehouse of so many transactions, published once; `sync` adds to it and times that."""

    def __init__(self, folder: Path, rows: int):
        self.root, self.turn, self.at = folder / "published", rows, datetime(2025, 1, 2)
        self.open = ExitStack()
        self.con = con = self.open.enter_context(connected(folder / "warehouse.duckdb"))
        con.execute("SET enable_progress_bar = false")
        create_all(con)
        micros = int(86_400e6 / ROWS_A_DAY)
        history = (
            f"SELECT i, TIMESTAMP '2025-01-02' - to_microseconds(({rows} - i) * {micros}) "
            f"AS ts FROM range({rows}) r(i)"
        )
        con.execute(f"CREATE TABLE curated_tx AS {LEG.format(rows=history)}")
        con.execute(CURATED)
        con.execute(f"INSERT INTO raw.exchanges_ledger BY NAME {_raw(history)}")
        first = publish(con, self.root, [])
        tell(
            f"{rows:,} rows: a first publish of {len(first.files)} files, "
            f"{first.bytes / 1e6:.0f} MB, in {first.seconds:.1f} s"
        )

    def sync(self) -> float:
        """Six hours of 2,000 transactions arrive; the seconds that publishing them takes."""
        rows = (
            f"SELECT i, TIMESTAMP '{self.at}' + to_seconds((i - {self.turn}) * 10) AS ts "
            f"FROM range({self.turn}, {self.turn + NEW}) r(i)"
        )
        self.turn += NEW
        days = [self.at.date()]
        self.con.execute(f"INSERT INTO curated.tx_unified {LEG.format(rows=rows)}")
        self.con.execute(f"INSERT INTO raw.exchanges_ledger BY NAME {_raw(rows)}")
        self.con.execute(f"""
            DELETE FROM curated.daily_flows WHERE date = '{days[0]}';
            INSERT INTO curated.daily_flows SELECT ts::DATE, domain, source, account, token,
                sum(amount), count(*) FROM curated.tx_unified
                WHERE ts >= '{days[0]}' AND ts < '{days[0] + timedelta(days=1)}' GROUP BY ALL""")
        self.at += timedelta(hours=6)
        return publish(self.con, self.root, days).seconds


def rows(small: int = 1_000_000, large: int = 10_000_000, repeats: int = 5) -> list[dict]:
    """The publishing share of the database work of one sync cycle."""
    with tempfile.TemporaryDirectory(dir=bench_var()) as folder:
        short, long = (Books(Path(tempfile.mkdtemp(dir=folder)), size) for size in (small, large))
        pairs = [(long.sync(), short.sync()) for _ in range(repeats + 1)][1:]
    above, below = ([pair[side] for pair in pairs] for side in (0, 1))
    grows = ratio(above, below)
    return [
        row(
            f"publishing a sync of {NEW:,} rows at {large / 1e6:.0f}M rows of history",
            f"**{median(above):.2f} s**, {grows:.1f} × that at {small / 1e6:.0f}M",
            "≤ 2 ×",
            "≤ 1.2 ×",
            grows <= 2,
            f"the month touched of each table, as Parquet, and the views; {repeats} syncs "
            "of each, in turn",
        )
    ]
