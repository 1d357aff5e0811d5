"""Rows of held accounts: what the next files take from those published before, not from the warehouse.

An account whose rows failed a critical check keeps its last good days in the books; everybody
else's rows are those of the warehouse. Of tables that have no account, and of those that say how
runs went, all rows are of the warehouse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ledgerhouse.publish.books import File, TableDefinition, quoted
from ledgerhouse.warehouse.encrypted import scan

if TYPE_CHECKING:
    import duckdb

Account = tuple[str, str]  # source, account

# Of ops the tables that say what the rows beside them are; the others tell of runs.
OF_ACCOUNTS = ("ops.coverage", "ops.breaks")


class Held:
    """The rows of one table when `accounts` are held; `known` are its newest published files."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        root: Path,
        table: str,
        definition: TableDefinition,
        known: Sequence[File],
        accounts: Collection[Account],
    ):
        columns = {name for name, *_ in definition.columns}
        by_account = table.startswith(("curated.", "raw.")) or table in OF_ACCOUNTS
        applies = by_account and {"source", "account"} <= columns
        self.con, self.root, self.table, self.definition = con, root, table, definition
        self.accounts = sorted(accounts) if applies else []
        self.known = list(known) if self.accounts else []
        self.is_held = (
            "coalesce("
            + " OR ".join(
                f"(source = {quoted(source)} AND account = {quoted(account)})"
                for source, account in self.accounts
            )
            + ", false)"
        )
        if table == "ops.breaks":  # why an account is held is no row of its good days
            self.is_held = f"({self.is_held} AND wallet IS NULL)"

    def __bool__(self) -> bool:
        return bool(self.accounts)

    @property
    def mark(self) -> str:
        """Text that tells a file with rows of these held accounts from all others; '' without any."""
        if not self.accounts:
            return ""
        return " held " + hashlib.md5(repr(self.accounts).encode()).hexdigest()

    def rows(self, where: str = "true", files: Sequence[File] | None = None) -> str:
        """A query of the table's rows that fulfil `where`: those of held accounts are of the known
        `files` (None: of all)."""
        if not self.accounts:
            return f"SELECT * FROM {self.table} WHERE {where}"
        rows = f"SELECT * FROM {self.table} WHERE {where} AND NOT {self.is_held}"
        known = self.known if files is None else files
        if not known:
            return rows
        options = ("union_by_name = true", "hive_partitioning = false")
        scans = []
        for key_id in sorted({file.key_id or "" for file in known}):
            paths = [str(self.root / f.path) for f in known if (f.key_id or "") == key_id]
            scans.append(scan(f"[{', '.join(map(quoted, paths))}]", key_id, *options))
        there = f"({' UNION ALL BY NAME '.join(f'FROM {each}' for each in scans)})"
        described = self.con.execute(f"DESCRIBE SELECT * FROM {there}").fetchall()
        old = {name for name, *_ in described}
        if not {"source", "account"} <= old:
            return rows
        # Older files may lack columns, and have some that are gone.
        columns = ", ".join(
            (f'TRY_CAST("{name}" AS {kind})' if name in old else f"CAST(NULL AS {kind})")
            + f' AS "{name}"'
            for name, kind, _ in self.definition.columns
        )
        return (
            f"{rows} UNION ALL BY NAME SELECT * FROM (SELECT {columns} FROM {there}) "
            f"WHERE {where} AND {self.is_held}"
        )
