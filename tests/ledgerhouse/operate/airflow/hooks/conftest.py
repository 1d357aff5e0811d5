"""A sandbox behind Airflow's Connections, and a client that does not wait."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import requests

import extract.fetch.client
import extract.sources
from ledgerhouse.operate.airflow import hooks
from ledgerhouse.operate.airflow.hooks import SourceHook
from sandbox.coinbase import keys
from sandbox.server import serve
from tests.ledgerhouse.operate.airflow.hooks.scene import KEY


@pytest.fixture(scope="module")
def sandbox():
    """A sandbox whose clock is the machine's."""
    with serve(
        seed=3,
        now=datetime.now(UTC),
        scale=0.02,
        tick=True,
        start=datetime.now(UTC) - timedelta(days=30),
    ) as url:
        yield url


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(extract.fetch.client, "FIRST_WAIT_S", 0.0)


@pytest.fixture
def connect(monkeypatch, sandbox):
    """connect(source, field=value, …) makes the Connection `mine` and returns its hook."""

    def hook(source: str, **fields) -> SourceHook:
        good = {
            "conn_type": source,
            "host": getattr(sandbox, source),
            "password": KEY[source],
            "login": keys.KEY_NAME if source == "coinbase" else "",
        }
        monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(good | fields))
        return getattr(hooks, f"{source.capitalize()}Hook")(connection_id="mine")

    return hook


@pytest.fixture
def fail(sandbox):
    """fail(vendor=…, status=…): as the sandbox's control has it; all is well again afterwards."""

    def control(path: str = "fail", **body):
        requests.post(f"{sandbox}/_control/{path}", json=body, timeout=30).raise_for_status()

    yield control
    for vendor in KEY:
        control(vendor=vendor, status=None)
    control("units", balance=1_000_000)
    control("clock", now=datetime.now(UTC).isoformat())
