"""The entries of an account's chains as the warehouse has them: those of a span, and their neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from ledgerhouse.load.chain_law import ChainBreak, follow
from ledgerhouse.load.chain_suspects import Entry

if TYPE_CHECKING:
    import duckdb

FIRST_REACH = timedelta(days=2)  # how far a neighbour is looked for at first; then four times that

Key = tuple[str, str]  # wallet, token

FIELDS = """r.ts, r.entry_id, r.amount,
    CASE WHEN coalesce(r.fee_asset, r.asset) = r.asset THEN r.fee END AS fee, r.balance,
    r.is_settled AND r.vanished_at IS NULL AS counts,
    CASE WHEN r.vanished_at IS NOT NULL THEN 'vanished' ELSE coalesce(r.status, 'unsettled') END"""
ENTRIES = f"""
    SELECT coalesce(r.wallet, '') AS wallet, r.asset AS token, {FIELDS}
    FROM raw.exchanges_ledger r
    WHERE r.source = $source AND r.account = $account AND r.is_settled AND r.vanished_at IS NULL"""


class ChainEntries:
    """Entries that count: settled, and listed still. Rows are (wallet, token, fields of entry())."""

    def __init__(self, con: duckdb.DuckDBPyConnection, source: str, account: str):
        self.con, self.who = con, {"source": source, "account": account}

    def rows(self, sql: str, **more) -> list[tuple]:
        return self.con.execute(sql, self.who | more).fetchall()

    def of_wallets(self, wallets: Sequence[str]) -> list[tuple]:
        """Every row of these wallets, by wallet, token, time and id."""
        return self.rows(
            f"{ENTRIES} AND r.asset IS NOT NULL AND list_contains($wallets, coalesce(r.wallet, '')) "
            "ORDER BY 1, 2, 3, 4",
            wallets=wallets,
        )

    def between(self, keys: Mapping[Key, object], first: datetime, last: datetime) -> list[tuple]:
        """Rows in the chains `keys` from `first` to `last`, both included, in order."""
        return self._entries(keys, f"r.ts >= {_literal(first)} AND r.ts <= {_literal(last)}")

    def neighbours(
        self, edges: Mapping[Key, datetime], way: int, farthest: datetime
    ) -> dict[Key, list[Entry]]:
        """The rows of the nearest group of each chain before (-1) or after (1) its edge, looked for
        in ever wider windows."""
        found: dict[Key, list[Entry]] = {}
        if not edges:
            return found
        left, reach = dict(edges), FIRST_REACH
        near = max(edges.values()) if way < 0 else min(edges.values())
        while left:
            far = near + way * reach
            low, high = (far, near) if way < 0 else (near, far)
            nearest = "max" if way < 0 else "min"
            for row in self._entries(
                left,
                f"r.ts >= {_literal(low)} AND r.ts <= {_literal(high)} AND "
                f"r.ts {'<' if way < 0 else '>'} k.edge",
                qualify=f"QUALIFY r.ts = {nearest}(r.ts) OVER (PARTITION BY k.wallet, k.token)",
            ):
                found.setdefault((row[0], row[1]), []).append(entry(row))
            left = {key: edge for key, edge in left.items() if key not in found}
            if (far < farthest) if way < 0 else (far > farthest):
                break
            near, reach = far, reach * 4
        return found

    def around(self, key: Key, broken: ChainBreak) -> tuple[list[Entry], frozenset[Decimal]]:
        """The rows around a break, those that do not count too, and with what the next begins."""
        rows = self.rows(
            f"""
            SELECT '', '', {FIELDS} FROM raw.exchanges_ledger r
            WHERE r.source = $source AND r.account = $account AND coalesce(r.wallet, '') = $wallet
                AND r.asset = $token AND r.ts >= {_literal(broken.after or broken.ts)}
                AND r.ts <= {_literal(broken.ts)} ORDER BY r.ts, r.entry_id""",
            wallet=key[0],
            token=key[1],
        )
        after = self.neighbours({key: broken.ts}, 1, broken.ts + FIRST_REACH).get(key, [])
        chain = follow(e.running() for e in after)
        return [entry(row) for row in rows], frozenset(
            () if chain.opening is None else (chain.opening,)
        )

    def _entries(self, keys: Mapping[Key, object], where: str, qualify: str = "") -> list[tuple]:
        """Rows in the chains `keys`, in order."""
        edges = [v if isinstance(v, datetime) else None for v in keys.values()]
        return self.rows(
            f"""
            WITH k AS MATERIALIZED (
                SELECT unnest($wallets::VARCHAR[]) AS wallet, unnest($tokens::VARCHAR[]) AS token,
                    unnest($edges::TIMESTAMP[]) AS edge)
            SELECT k.wallet AS wallet, k.token AS token, {FIELDS}
            FROM raw.exchanges_ledger r JOIN k
                ON coalesce(r.wallet, '') = k.wallet AND r.asset = k.token
            WHERE r.source = $source AND r.account = $account AND r.is_settled
                AND r.vanished_at IS NULL AND {where} {qualify}
            ORDER BY k.wallet, k.token, r.ts, r.entry_id""",
            wallets=[wallet for wallet, _ in keys],
            tokens=[token for _, token in keys],
            edges=edges,
        )


def entry(row: Sequence) -> Entry:
    """The Entry of a row."""
    ts, ident, amount, fee, balance, counts, status = row[2:]
    return Entry(ts, ident, amount, fee or Decimal(0), balance, counts, status)


def _literal(ts: datetime) -> str:
    """A bound that zone maps know beforehand."""
    return f"TIMESTAMP '{ts}'"
