"""A host that is wrong is found once, before the fetches; units are read around them. Neither holds
the warehouse, and each call is in the call log."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import pytest

import extract.fetch.client
from extract.fetch import session
from extract.fetch.call_log import logged
from ledgerhouse.load.unit_balances import waiting
from ledgerhouse.operate.airflow.operators.vendor import ProbeOperator, UnitsOperator
from ledgerhouse.operate.run_log import attempts
from ledgerhouse.warehouse.connection import hold
from sandbox.coinbase import keys
from sandbox.debank.keys import DEBANK_KEY
from sandbox.faults import faults
from sandbox.server import serve

LISTED = {
    "coinbase": ["main"],
    "debank": ["0x" + "a" * 40, "0x" + "b" * 40],
}
NOT_FOUND = "nothing.invalid"


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(scope="module")
def sandbox():
    with serve(seed=3, now="2024-12-10T00:00:00Z", scale=0.02, pause=0.05) as url:
        yield url


@pytest.fixture
def ask(tmp_path, monkeypatch, sandbox):
    """ask(source, host=…) runs a probe as Airflow does; what it raised, as text, or None."""
    monkeypatch.setattr(extract.fetch.client, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(faults, "LONGEST_RUN", 99)  # no fault of a host's passes by itself
    monkeypatch.setattr(session, "LIMITS", session.Limits(deadline_s=0.5, silence_s=0.5))
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(tmp_path / "accounts.toml"))
    (tmp_path / "accounts.toml").write_text(
        "".join(
            f'[[account]]\nsource = "{source}"\naccount = "{account}"\nconnection = "mine_{source}"\n'
            for source, accounts in LISTED.items()
            for account in accounts
        )
    )
    resolved = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host == NOT_FOUND:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolved(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    def run(source: str, host: str = "", jobs: object = ({"account": LISTED["debank"][1]},)):
        connection = {
            "conn_type": source,
            "host": host or getattr(sandbox, source),
            "login": keys.KEY_NAME if source == "coinbase" else "",
            "password": keys.KEY_PEM if source == "coinbase" else DEBANK_KEY,
        }
        monkeypatch.setenv(f"AIRFLOW_CONN_MINE_{source.upper()}", json.dumps(connection))
        probe = ProbeOperator(
            task_id="probe", connection=f"mine_{source}", source=source, plan="plan"
        )
        try:
            # A stop of the warehouse would show here: the lock is held by somebody else meanwhile.
            with hold(tmp_path / "warehouse.duckdb", "somebody else"):
                probe.execute(context("probe", list(jobs or ())))
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    yield run
    for vendor in LISTED:
        sandbox.app.fail(vendor, None)
        sandbox.app.faults.set("none", vendor=vendor)


def context(task: str, jobs: object = None) -> dict:
    return {
        "ti": SimpleNamespace(
            dag_id="sync",
            run_id="r1",
            task_id=task,
            map_index=-1,
            try_number=1,
            xcom_pull=lambda task_ids: jobs,
        )
    }


def set_up(sandbox, source: str, wrong: str) -> dict:
    """Make the host wrong in this way; what `ask` is to be called with."""
    if wrong == "refused":
        return {"host": closed_port()}
    if wrong == "not found":
        return {"host": f"https://{NOT_FOUND}"}
    if wrong in ("drip", "redirect", "endless"):
        sandbox.app.faults.set(wrong, rate=1.0, vendor=source)
    else:
        status, body = {
            "a web page": (200, "<html>Hello</html>"),
            "nothing here": (404, "not found"),
            "revoked": (401, None),
            "trouble": (500, None),
            "too many": (429, None),
            "another shape": (200, '{"balance": null}'),
            "units": (403, None),
        }[wrong]
        sandbox.app.fail(source, status, body=body, retry_after=0 if status == 429 else None)
    return {}


# What each is: the error's class, what is said of it, and whether the same may pass.
NO_ANSWER = "no answer from "
WRONG = {
    "refused": ("Retriable", NO_ANSWER),
    "not found": ("Retriable", NO_ANSWER),
    "a web page": ("NotJson", "is not the API of"),
    "nothing here": ("", "is not the API of"),
    "redirect": ("AirflowFailException", "sent on to"),
    "endless": ("AirflowFailException", "larger than"),
    "drip": ("DeadlineExceeded", "answers too slowly"),
    "revoked": ("AirflowFailException", "refuses the key"),
}


@pytest.mark.parametrize("source", LISTED)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_host_or_key_is_one_failed_task_that_names_the_connection(
    ask, sandbox, tmp_path, source, wrong
):
    kind, said = WRONG[wrong]
    raised = ask(source, **set_up(sandbox, source, wrong))
    assert raised and raised.startswith(kind), raised
    assert said in raised
    assert f"the Airflow Connection 'mine_{source}'" in raised, "where to look"
    assert "127.0.0.1" in raised or NOT_FOUND in raised or wrong == "revoked", "and at which host"
    calls = list(logged(tmp_path / "calls"))
    assert calls and all(call["error"] and call["units"] == 0 for call in calls)
    (record,) = attempts.read(tmp_path / "attempts")[1].values()
    assert record["state"] == "failed" and record["calls"] == len(calls)
    assert said in record["error"], "the alert quotes it"


@pytest.mark.parametrize(
    "source, wrong",
    [(source, wrong) for source in LISTED for wrong in ("trouble", "too many")]
    + [("debank", "another shape"), ("debank", "units")],
)
def test_trouble_that_need_not_concern_the_fetches_lets_them_begin(
    ask, sandbox, tmp_path, source, wrong, capsys
):
    assert ask(source, **set_up(sandbox, source, wrong)) is None
    assert "The fetches are begun all the same" in capsys.readouterr().out
    assert list(waiting(tmp_path / "account_units")) == [], "no balance was read"


def test_where_nothing_is_to_be_fetched_nobody_is_asked(ask, tmp_path):
    assert ask("debank", host=closed_port(), jobs=()) is None
    assert list(logged(tmp_path / "calls")) == []


def test_the_units_are_read_before_and_after_and_cost_none(ask, tmp_path):
    assert ask("debank") is None and ask("coinbase") is None
    UnitsOperator(task_id="units").execute(context("units"))
    balances = [balance for _, balance in waiting(tmp_path / "account_units")]
    first, second = LISTED["debank"]
    assert [(b["moment"], b["connection"], b["accounts"]) for b in balances] == [
        ("before", "mine_debank", [second, first]),
        ("after", "mine_debank", [second, first]),
    ], "coinbase counts none"
    calls = list(logged(tmp_path / "calls"))
    assert sorted((c["task_id"], c["endpoint"]) for c in calls) == [
        ("probe", "/v1/account/units"),
        ("probe", "/v2/accounts"),
        ("units", "/v1/account/units"),
    ]
    assert {call["units"] for call in calls} == {0}
    UnitsOperator(task_id="units").execute(context("units"))
    assert len(list(waiting(tmp_path / "account_units"))) == 2, "what was read is not read again"


def test_units_that_cannot_be_read_afterwards_fail_nothing(ask, sandbox, tmp_path, capsys):
    assert ask("debank") is None
    sandbox.app.faults.set("drip", rate=1.0, vendor="debank")
    UnitsOperator(task_id="units").execute(context("units"))
    assert "the units left of connection mine_debank could not be read" in capsys.readouterr().out
    assert len([c for c in logged(tmp_path / "calls") if c["task_id"] == "units"]) == 1
