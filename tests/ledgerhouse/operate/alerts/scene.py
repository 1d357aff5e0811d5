"""When and whose it is in the tests of alerts, and books that say what is wrong."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime

from ledgerhouse.config import Account

UTC = UTC
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MINE = [Account("debank", "0xa", "debank"), Account("coinbase", "main", "coinbase_main")]
TOKEN = "T0001/B0002/very-secret-token-42"
HOOK = "/hooks/another-secret-in-the-path"


@contextmanager
def connection(monkeypatch, name: str, **fields):
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))
    yield
    monkeypatch.delenv(f"AIRFLOW_CONN_{name.upper()}")


def kinds(web) -> list[tuple]:
    return [(i["kind"], i["event"], i["subject"]) for b in web.took() for i in b["incidents"]]
