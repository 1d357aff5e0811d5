"""One transaction on a DuckDB connection: whole, or as if it had never begun."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def transaction(con: Any) -> Iterator[None]:
    """What is done inside is committed at the end; after an error nothing of it is there, and the
    connection is good for the next one. They do not nest."""
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
