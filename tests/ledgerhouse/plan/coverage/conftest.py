"""Empty tables of the bookkeeping."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def empty():
    import duckdb

    from ledgerhouse.warehouse.schema import create_all

    with duckdb.connect() as con:
        create_all(con)
        yield con
