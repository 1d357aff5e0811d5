"""The gate by account: an account that passes is in the books as in the warehouse, one that does not keeps
the last good days, whatever else happens."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from types import SimpleNamespace

import pytest

from extract.core.interval import Interval
from ledgerhouse.check.checkpoints import CheckResult, record
from ledgerhouse.publish import parquet_files
from ledgerhouse.publish import publish as publishing
from ledgerhouse.publish.books import open_books
from ledgerhouse.publish.gate import NotChecked, publish_checked
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import marks_of
from ledgerhouse.warehouse.connection import open_warehouse
from ledgerhouse.warehouse.schema import create_all

DAY, FIRST = timedelta(days=1), date(2031, 1, 1)
SPAN = Interval("2031-01-01T00:00:00Z", "2031-05-01T00:00:00Z")
NAMES = ("good", "bad", "o'dd")
EVERYBODY = [("coinbase", name) for name in NAMES]
TABLES = (
    "curated.tx_unified",
    "curated.daily_flows",
    "curated.daily_balances",
    "curated.reconciliation",
    "raw.exchanges_ledger",
    "raw.balances",
    "ops.coverage",
)
CURATED = """
CREATE SCHEMA curated;
CREATE TABLE curated.tx_unified (source VARCHAR, account VARCHAR, ts TIMESTAMP, txid VARCHAR,
    token VARCHAR, amount DECIMAL(38,18));
CREATE TABLE curated.assets (token VARCHAR);
CREATE VIEW curated.daily_flows AS SELECT source, account, ts::DATE AS date, token,
    sum(amount)::DECIMAL(38,18) AS net FROM curated.tx_unified GROUP BY ALL;
CREATE VIEW curated.reconciliation AS SELECT source, account, token, 'off' AS status,
    sum(amount)::DECIMAL(38,18) AS computed FROM curated.tx_unified GROUP BY ALL;
CREATE VIEW curated.daily_balances AS
    WITH last AS (SELECT max(end_ts)::DATE AS day FROM ops.coverage),
    days AS (SELECT source, account, token, unnest(generate_series(min(date), max(last.day),
        INTERVAL 1 DAY))::DATE AS date FROM curated.daily_flows, last GROUP BY ALL)
    SELECT d.date, d.source, d.account, d.token, sum(f.net)::DECIMAL(38,18) AS balance
    FROM days d JOIN curated.daily_flows f ON f.source = d.source AND f.account = d.account
        AND f.token = d.token AND f.date <= d.date GROUP BY ALL
"""


class Gate:
    """A warehouse of three accounts, its syncs, and what the books must hold of each account."""

    def __init__(self, var, rng: random.Random):
        self.root, self.rng, self.runs = var / "published", rng, 0
        self.expected: dict[tuple, list] = {}
        with open_warehouse(var / FILE, owner="test") as con:
            create_all(con)
            con.execute(CURATED)

    def sync(self, days: int = 6) -> None:
        """A load that changes some days of every account, and moves the time on."""
        self.runs += 1
        end = datetime(2031, 3, 1) + timedelta(days=3 * self.runs)
        with open_warehouse(owner="test") as con:
            for source, name in EVERYBODY:
                for _ in range(days):
                    day = FIRST + timedelta(days=self.rng.randrange(58 + 3 * self.runs))
                    self._day(con, source, name, day)
                put(
                    con,
                    "ops.coverage",
                    source=source,
                    account=name,
                    dataset=f"d{self.runs}",
                    end_ts=end,
                )
                put(con, "raw.balances", source=source, account=name, ts=end, row_hash=self.runs)
            put(
                con,
                "ops.batches",
                batch_id=f"b{self.runs}",
                source="coinbase",
                account=",".join(NAMES),
            )

    def _day(self, con, source: str, name: str, day: date) -> None:
        where = "source = ? AND account = ? AND ts::DATE = ?"
        for table in ("curated.tx_unified", "raw.exchanges_ledger"):
            con.execute(f"DELETE FROM {table} WHERE {where}", [source, name, day])
        for number in range(self.rng.randrange(4)):
            row = {"source": source, "account": name, "ts": f"{day} 0{number}:00"}
            amount = self.rng.randrange(-(10**9), 10**9)
            put(con, "curated.tx_unified", **row, txid=f"{day}-{number}", token="A", amount=amount)
            put(con, "raw.exchanges_ledger", **row, entry_id=f"{day}-{number}", amount=amount)
        con.execute(
            "INSERT INTO ops.touched_days VALUES ('exchanges_ledger', ?, ?)",
            [day, f"b{self.runs}"],
        )

    def publish(self, failed=()):
        """Check (with the accounts that failed) and publish; notes what the books must hold."""
        run_id, failed = f"r{self.runs}", tuple(failed)
        with open_warehouse(owner="test") as con:
            law = CheckResult("curated.tx_unified", "legs_complete", "critical", not failed)
            law = CheckResult(**{**vars(law), "accounts": failed or None})
            record(con, [law], run_id, SPAN)
            batches = {batch for _, _, batch in marks_of(con)}
        done = publish_checked(sorted(batches), run_id=run_id, owner="test")
        with open_warehouse(owner="test") as con:
            for account in EVERYBODY:
                if account not in failed:
                    self.expected |= {(t, account): rows(con, t, account) for t in TABLES}
        return done

    def assert_books(self) -> None:
        with open_books(self.root) as books:
            for table in TABLES:
                for account in EVERYBODY:
                    wanted = self.expected.get((table, account), [])
                    assert rows(books, table, account) == wanted, (table, account)

    def marks(self) -> int:
        with open_warehouse(owner="test") as con:
            return len(marks_of(con))

    def held(self) -> dict[str, tuple]:
        with open_books(self.root) as books:
            found = books.execute("SELECT account, held_since, run_id FROM ops.held_accounts")
            return {account: tuple(more) for account, *more in found.fetchall()}


def put(con, table: str, **values) -> None:
    schema, name = table.split(".")
    something = {"VARCHAR": "x", "TIMESTAMP": "2030-01-01"}
    row = {
        column: something.get(kind, 1)
        for column, kind in con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE NOT is_nullable AND "
            f"schema_name = '{schema}' AND table_name = '{name}'"
        ).fetchall()
    } | values
    con.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
        [str(value) for value in row.values()],
    )


def rows(con, table: str, account: tuple) -> list[dict]:
    """An account's rows, without their NULLs: columns may have been added since."""
    found = con.execute(f"FROM {table} WHERE source = ? AND account = ?", list(account))
    names = [name for name, *_ in found.description]
    return sorted(
        ({n: v for n, v in zip(names, row) if v is not None} for row in found.fetchall()), key=repr
    )


class Killed(BaseException):
    pass


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setattr(parquet_files, "MONTH_ROWS", 40)
    return lambda seed: Gate(tmp_path, random.Random(seed))


@pytest.mark.parametrize("seed", range(4))
def test_whoever_passes_is_published_and_whoever_fails_keeps_the_last_good_days(
    make, monkeypatch, seed
):
    gate, rng = make(seed), random.Random(seed)
    for turn in range(9):
        gate.sync()
        failed = rng.sample(EVERYBODY, 0 if turn == 8 else rng.choice((0, 1, 1, 2)))
        if turn == 5:  # a newer version of a model: all its months are written again
            with open_warehouse(owner="test") as con:
                con.execute("ALTER TABLE curated.tx_unified ADD COLUMN note VARCHAR DEFAULT 'n'")
        if rng.random() < 0.4:
            marks, books = gate.marks(), dict(gate.expected)
            with monkeypatch.context() as patched:
                patched.setattr(publishing, "build", lambda *_: (_ for _ in ()).throw(Killed))
                with pytest.raises(Killed):
                    gate.publish(failed)
            assert gate.marks() == marks and gate.expected == books
        done = gate.publish(failed)
        gate.assert_books()
        assert {(h.source, h.account) for h in done.held} == set(failed)
        assert gate.held().keys() == {account for _, account in failed}
        assert bool(gate.marks()) == bool(failed), "marks stay until everybody has passed"


def test_since_when_an_account_is_held_lasts_until_it_passes(make):
    gate = make(0)
    bad = [("coinbase", "bad")]
    gate.sync()
    gate.publish(bad)
    gate.assert_books()  # not a row of it: it never passed
    first = gate.held()["bad"]
    gate.sync()
    gate.publish(bad)
    assert gate.held()["bad"] == (first[0], "r2")
    gate.sync(days=0)
    gate.publish()  # nothing new of it: what has waited is published
    gate.assert_books()
    assert gate.held() == {} and gate.marks() == 0


def test_a_failure_of_nobody_or_everybody_publishes_nothing(make):
    gate = make(1)
    gate.sync()
    with pytest.raises(NotChecked, match="legs_complete"):
        gate.publish(EVERYBODY)
    with open_warehouse(owner="test") as con:
        held = con.execute("SELECT count(*) FROM ops.held_accounts").fetchone()
        law = CheckResult("raw.t", "keys_unique", "critical", False, error="it raised")
        record(con, [law], "r1", SPAN)
    assert held == (3,)
    with pytest.raises(NotChecked, match="keys_unique"):
        publish_checked(["b1"], run_id="r1", owner="test")
    assert not gate.root.exists() and gate.marks()


def test_an_account_damaged_on_a_day_of_others_is_checked_there_again(make):
    gate = make(2)
    gate.sync()
    gate.publish()
    with open_warehouse(owner="test") as con:
        put(con, "ops.batches", batch_id="b2", source="coinbase", account="good")
        con.execute("INSERT INTO ops.touched_days VALUES ('exchanges_ledger', ?, 'b2')", [FIRST])
    gate.runs = 2
    gate.publish([("coinbase", "bad")])
    assert gate.marks() == 1
    gate.publish()
    assert gate.marks() == 0


def test_off_holds_an_account_where_the_file_says_so(make, tmp_path, monkeypatch):
    accounts = tmp_path / "accounts.toml"
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(accounts))
    gate = make(3)
    gate.sync()
    accounts.write_text('[[account]]\nsource = "coinbase"\naccount = "main"\n')
    assert gate.publish().held == ()
    gate.sync()
    accounts.write_text(accounts.read_text() + '[checks]\noff = "hold"\n')
    with pytest.raises(NotChecked, match="off"):  # all three are: the view says so
        gate.publish()
    with open_warehouse(owner="test") as con:
        con.execute(
            "CREATE OR REPLACE VIEW curated.reconciliation AS SELECT source, account, token, "
            "if(account = 'bad', 'off', 'exact') AS status, sum(amount)::DECIMAL(38,18) AS computed "
            "FROM curated.tx_unified GROUP BY ALL"
        )
    (held,) = gate.publish().held
    assert held.account == "bad" and "balance(s) off" in held.reason
    gate.sync()
    accounts.write_text(accounts.read_text().replace('"hold"', '"hlod"'))
    with pytest.raises(ValueError, match="off is 'hlod'"):  # it is not published by mistake
        gate.publish()
    assert gate.marks()


def test_the_run_is_red_and_the_books_of_the_others_are_out(make):
    from airflow.sdk.exceptions import AirflowFailException

    from ledgerhouse.operate.airflow.operators.load import PublishOperator

    gate = make(4)
    gate.sync()
    gate.publish()
    gate.sync()
    with open_warehouse(owner="test") as con:
        law = CheckResult("raw.t", "keys_unique", "critical", False, accounts=(EVERYBODY[1],))
        record(con, [law], "r2", SPAN)
        wanted = rows(con, TABLES[0], EVERYBODY[0])
    ti = SimpleNamespace(
        dag_id="sync",
        run_id="r2",
        task_id="publish",
        map_index=-1,
        try_number=1,
        xcom_pull=lambda task_ids: {"batches": ["b2"]},
    )
    task = PublishOperator(task_id="publish", transform="transform")
    with pytest.raises(
        AirflowFailException, match=r"coinbase bad, held since 2.*raw.t keys_unique"
    ):
        task.execute({"ti": ti})
    with open_books(gate.root) as books:
        assert rows(books, TABLES[0], EVERYBODY[0]) == wanted
        assert rows(books, TABLES[0], EVERYBODY[1]) == gate.expected[TABLES[0], EVERYBODY[1]]
    assert gate.marks()


@pytest.mark.slow
def test_a_doubled_raw_row_holds_its_account_and_no_other(tmp_path, monkeypatch):
    """The real models and checks: what fails names the account, and the transform goes on."""
    from ledgerhouse.check.checkpoints import failed_critical
    from ledgerhouse.check.run import check
    from ledgerhouse.publish.gate import check_and_publish
    from ledgerhouse.transform.touched_days import transform
    from tests.helpers.recomputed import money
    from tests.helpers.recomputed import put as put_rows

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))

    def entry(account, ident, amount):
        return {
            "source": "kraken",
            "account": account,
            "entry_id": ident,
            "asset": "BTC",
            "ts": datetime(2077, 3, 1, 10),
            "kind": "deposit",
            "is_settled": True,
            **money("amount", amount),
        }

    with open_warehouse(owner="test") as con:
        create_all(con)
        for account in ("good", "bad"):
            put(con, "ops.coverage", source="kraken", account=account)
        put_rows(con, "exchanges_ledger", [entry("good", "e1", "1"), entry("bad", "e1", "2")], "c1")
    first = check_and_publish(transform(owner="test"), run_id="r1", owner="test")
    assert first.held == ()
    with open_warehouse(owner="test") as con:
        put_rows(con, "exchanges_ledger", [entry("good", "e2", "3"), entry("bad", "e2", "4")], "c2")
        con.execute(
            "INSERT INTO raw.exchanges_ledger FROM raw.exchanges_ledger "
            "WHERE account = 'bad' AND entry_id = 'e2'"
        )
    done = transform(owner="test")
    results = check(done.spans[0], run_id="r2", owner="test")
    assert {a for r in failed_critical(results) for a in r.accounts} == {("kraken", "bad")}
    ((held),) = check_and_publish(done, run_id="r2", owner="test").held
    assert held.account == "bad" and "keys_unique" in held.reason
    balances = (
        "SELECT account, max_by(balance, date)::INTEGER FROM curated.daily_balances "
        "GROUP BY 1 ORDER BY 1"
    )
    with open_books(tmp_path / "published") as books:
        assert books.execute(balances).fetchall() == [("bad", 2), ("good", 4)]
    with open_warehouse(owner="test") as con:
        con.execute(
            "DELETE FROM raw.exchanges_ledger WHERE rowid = (SELECT max(rowid) "
            "FROM raw.exchanges_ledger WHERE account = 'bad' AND entry_id = 'e2')"
        )
    assert check_and_publish(transform(owner="test"), run_id="r3", owner="test").held == ()
    with open_books(tmp_path / "published") as books:
        assert books.execute(balances).fetchall() == [("bad", 6), ("good", 4)]
