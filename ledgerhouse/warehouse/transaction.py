"""A transaction on a DuckDB connection: committed as a whole, or rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """A block that is committed at its end; after an error nothing of it is there, and the
    connection is ready for the next one. Transactions do not nest."""
    con.execute("BEGIN")
    try:
        yield
        con.execute("COMMIT")
    except BaseException:
        try:
            con.execute("ROLLBACK")
        except Exception:  # a commit that failed has ended it
            pass
        raise
