"""Each source is a connection type with a form of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import extract.fetch.client
import extract.sources
from extract.sources import get
from ledgerhouse.operate.airflow import hooks
from ledgerhouse.operate.airflow.provider import connection_types, get_provider_info
from tests.helpers.books import ROOT


def test_airflow_lists_a_type_with_a_form_for_every_source():
    """What the form's page asks the api-server for, and `airflow providers hooks`."""
    script = """
import json, sys
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
found = {one.connection_type: one.model_dump() for one in HookMetaService.hook_meta_data()}
early = [m for m in ("ccxt", "duckdb", "pandas", "ledgerhouse.operate.airflow.hooks") if m in sys.modules]
from airflow.providers_manager import ProvidersManager
hooks = {name: [one.hook_name, one.connection_testable, one.hook_class_name]
         for name, one in ProvidersManager().hooks.items() if one}
late = [m for m in ("ccxt", "duckdb", "pandas") if m in sys.modules]
print(json.dumps([found, hooks, early, late], default=str))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, testable, early, late = json.loads(done.stdout.splitlines()[-1])
    assert (early, late) == ([], []), "the api-server imports the hooks: they must be cheap"
    for source in extract.sources.names():
        form, asked = get(source).form, found[source]["standard_fields"]
        assert found[source]["hook_name"] == form.title
        assert testable[source] == [
            form.title,
            True,
            f"ledgerhouse.operate.airflow.hooks.{source.capitalize()}Hook",
        ]
        assert asked["host"]["placeholder"] == form.host
        assert asked["password"]["title"].lower() == form.password.lower()
        assert asked["port"]["hidden"] and asked["url_schema"]["hidden"]
        assert asked["login"]["hidden"] == (not form.login)


NEW_SOURCE = """
from extract.fetch.client import Answer
from extract.core.source import Form, Source, utc

def test_connection(client, api):
    answer = client.call("/me", lambda: Answer(200, "", api, utc("2026-01-01")))
    return f"sees {answer.data}"

SOURCE = Source(
    name="newbank", documentation="https://example.com", mappings={}, fetch=None, rates={},
    connect=lambda *, host, login, password, extra: f"{host} {extra['passphrase']}", test_connection=test_connection,
    units={"/me": 3}, form=Form(title="New Bank", secrets={"passphrase": "passphrase"}))
"""


def test_a_new_file_is_a_connection_type_and_a_broken_one_keeps_no_other_away(
    tmp_path, monkeypatch, caplog, connect
):
    (tmp_path / "newbank.py").write_text(NEW_SOURCE)
    (tmp_path / "broken.py").write_text("SOURCE = nowhere")
    known = set(extract.sources.names())
    monkeypatch.setattr(extract.sources, "__path__", [*extract.sources.__path__, str(tmp_path)])
    try:
        types = {one["connection-type"]: one for one in connection_types()}
        assert set(types) == known | {"newbank"}
        assert "broken.py cannot be imported: NameError" in caplog.text
        assert types["newbank"]["conn-fields"]["passphrase"]["schema"]["format"] == "password"
        assert (
            "ledgerhouse.operate.airflow.hooks.NewbankHook"
            in get_provider_info()["hook-class-names"]
        )
        fields = {
            "conn_type": "newbank",
            "host": "https://new.example",
            "password": "sesame-1",
            "extra": json.dumps({"passphrase": "open sesame"}),
        }
        monkeypatch.setenv("AIRFLOW_CONN_NEW", json.dumps(fields))
        hook = hooks.NewbankHook("new")
        assert hook.test_connection() == (
            True,
            "OK: New Bank sees https://new.example ***. The test made 1 call and spent 3 units",
        )
        monkeypatch.setenv("AIRFLOW_CONN_NEW", json.dumps(fields | {"extra": "{}"}))
        assert "no passphrase (passphrase in the extra)" in hook.test_connection()[1]
    finally:
        vars(hooks).pop("NewbankHook", None)
        sys.modules.pop("extract.sources.newbank", None)
