"""A warehouse with curated tables, and publishing of some tables alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from ledgerhouse.publish import publish as publishing
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.warehouse.connection import open_warehouse
from tests.ledgerhouse.publish.scene import fill, mark


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("built") / FILE
    with open_warehouse(path, owner="test") as con:
        mark(con, fill(con), "b0")
    return path


@pytest.fixture
def con(built, tmp_path_factory):
    with duckdb.connect(shutil.copy(built, tmp_path_factory.mktemp("warehouse"))) as connection:
        yield connection


@pytest.fixture
def only(monkeypatch):
    """Publish these tables only: what is repeated often is the switch, not the tables."""

    def choose(*names: str) -> None:
        tables = [t for t in publishing.TABLES if t.name in names]
        monkeypatch.setattr(publishing, "TABLES", tables)

    return choose
