"""A few rows of raw in memory, and the curated models over them as views."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import duckdb

from ledgerhouse.warehouse.schema import create_all
from tests.helpers.curated import make_views
from tests.helpers.recomputed import put

START = datetime(2026, 1, 1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class SmallWorld:
    """One account of an exchange (token without a colon) or of a chain."""

    def __init__(self, source: str = "coinbase", account: str = "main", start: datetime = START):
        self.con = duckdb.connect()
        self.con.execute("SET TimeZone = 'UTC'")
        create_all(self.con)
        make_views(self.con)
        self.source, self.account, self.start = source, account, start
        self.onchain = source == "debank"
        self.number = 0

    def move(self, ts: datetime, token: str, amount: str | None, **more) -> str:
        """A movement; returns its txid."""
        self.number += 1
        ident = more.pop("ident", f"x{self.number}")
        common = {"source": self.source, "account": self.account, "ts": ts}
        if not self.onchain:
            row = {
                "entry_id": ident,
                "kind": "deposit",
                "asset": token,
                "amount_text": amount,
                "amount": amount,
                "is_settled": True,
                "status": "completed",
            }
            put(self.con, "exchanges_ledger", [common | row | more], "b")
            return ident
        chain, _, name = token.partition(":")
        size = None if amount is None else format(abs(Decimal(amount)), "f")
        row = {
            "chain": chain,
            "tx_id": ident,
            "direction": "out" if amount and amount.startswith("-") else "in",
            "leg": 1,
            "token": name,
            "amount_text": size,
            "amount": size,
            "is_settled": True,
            "is_scam": False,
        }
        put(self.con, "onchain_transfers", [common | row | more], "b")
        return ident

    def snapshot(self, ts: datetime, held: dict[str, str | None], **more) -> None:
        """What the source reports at `ts`; the history is whole until then."""
        dataset = "onchain_transactions" if self.onchain else "exchanges_ledger"
        self.con.execute("DELETE FROM ops.coverage WHERE dataset = ?", [dataset])
        for name, since, until in (
            (dataset, self.start, ts),
            ("balances", ts, ts + timedelta(seconds=1)),
        ):
            self.con.execute(
                "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
                "reason, run_id, batch_id, recorded_at) VALUES (?, ?, ?, ?, ?, ?, 'end', 'r', 'b', ?)",
                [self.source, self.account, name, since, until, until, until],
            )
        put(
            self.con,
            "balances",
            [
                {
                    "source": self.source,
                    "account": self.account,
                    "wallet": token.partition(":")[0],
                    "token": token,
                    "ts": ts,
                    "amount_text": amount,
                    "amount": amount,
                }
                | more
                for token, amount in held.items()
            ],
            "b",
        )

    def reconciliation(self) -> dict[str, dict]:
        """The rows of curated.reconciliation by token."""
        cursor = self.con.execute("FROM curated.reconciliation")
        names = [c[0] for c in cursor.description]
        rows = [dict(zip(names, row)) for row in cursor.fetchall()]
        return {row["token"]: row for row in rows}

    def status(self, token: str) -> tuple[str, str | None]:
        row = self.reconciliation()[token]
        return row["status"], row["kind"]
