"""Connections and accounts: a wrong entry costs no other, a new one needs a block only."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extract.core.errors import Fatal, Retriable
from extract.fetch.client import Client
from extract.sources import get
from ledgerhouse.airflow import sync_dag
from ledgerhouse.config import Account, AccountsFile
from ledgerhouse.operate.airflow.hooks import SourceHook
from ledgerhouse.operate.airflow.init import pools
from ledgerhouse.operate.airflow.operators.plan import RefuseOperator
from sandbox.coinbase import keys
from sandbox.debank.keys import DEBANK_KEY
from tests.helpers.books import ACCOUNTS, ACCOUNTS_TOML, Books
from tests.ledgerhouse.operate.airflow.hooks.scene import KEY


def test_a_connection_of_type_http_opens_as_before_and_one_of_another_source_does_not(connect):
    api, units, secrets = connect("debank", conn_type="http", extra='{"units": {"/x": 7}}').open(
        get("debank")
    )
    assert (units["/x"], secrets) == (7, (DEBANK_KEY,))
    with pytest.raises(Fatal, match="is of the type coinbase, and debank is to be opened with it"):
        connect("coinbase").open(get("debank"))


def test_a_connection_that_is_not_there_is_named_with_what_to_do(monkeypatch):
    with pytest.raises(
        Fatal,
        match=r"no Connection 'second', which accounts\.toml names: make it "
        r"\(.*type DeBank\), or set AIRFLOW_CONN_SECOND",
    ):
        SourceHook("second").open(get("debank"))


def wallet(number: int) -> str:
    return f"0x{number:039x}a"


OTHER_WALLET = wallet(99)


def entry(source="debank", account=OTHER_WALLET, connection="mine") -> str:
    return f'[[account]]\nsource = "{source}"\naccount = "{account}"\nconnection = "{connection}"\n'


WRONG = {
    entry(source="nobank"): "unknown source 'nobank'; known: binance, ",
    entry(account=wallet(0)): f"debank {wallet(0)} is listed twice, before as number 1 with",
    entry(account=wallet(0)[:-1] + "A"): f"is listed twice (here as {wallet(0)[:-1]}A), before as",
    entry(account="someone.eth"): "someone.eth is a name, not an address: write that of the wallet",
    entry(account="0x12"): "0x12 is no address: write that of the wallet",
    entry(account="a b"): "account 'a b' may hold letters, digits",
    entry(account=wallet(98), connection="a/b"): "connection 'a/b' may hold letters",
    entry(source="coinbase", account="c", connection="one"): "the connection one is debank's above",
    '[[account]]\nsource = "debank"\n': "needs exactly source, account and connection; it has source",
    "[[account]]\n": "it has nothing",
    "[[account]]\nsource = 1\naccount = 2\nconnection = 3\n": "unknown source 1",
    '[[account]]\nsource = "debank"\naccount = 2\nconnection = "x"\n': "account 2 may hold",
}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.one_of(st.none(), st.sampled_from(list(WRONG))), max_size=8))
def test_a_wrong_entry_is_reported_by_its_number_and_costs_no_other(tmp_path, rows):
    file = tmp_path / "accounts.toml"
    blocks = [entry(account=wallet(0), connection="one")]
    blocks += [
        row or entry(account=wallet(number), connection="two") for number, row in enumerate(rows, 1)
    ]
    file.write_text("\n".join(blocks))
    found, wrong = AccountsFile.read(file).entries()
    assert [a.account for a in found] == [wallet(0)] + [
        wallet(number) for number, row in enumerate(rows, 1) if row is None
    ]
    assert set(wrong) == {number for number, row in enumerate(rows, 2) if row}
    for number, why in wrong.items():
        assert (
            why.startswith(f"{file}, [[account]] number {number}: ")
            and WRONG[rows[number - 2]] in why
        )


@pytest.mark.parametrize(
    "text, said",
    [
        (None, "there is no .*: copy accounts.toml"),
        ("", r"lists no \[\[account\]\]"),
        ("[[account]\n", "is not TOML: .*line 1"),
        ("[account]\nsource = 'x'", "with two brackets"),
        ("[[acount]]\n", "it has acount"),
        (b"\xff", "cannot read the accounts in"),
    ],
)
def test_a_file_that_tells_nothing_is_refused_with_what_to_do(tmp_path, text, said):
    file = tmp_path / "accounts.toml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=said) as error:
        AccountsFile.read(file).entries()
    assert str(file) in str(error.value)


SECOND = [
    Account("coinbase", "second", "coinbase_second"),
    Account("debank", "0x00000000000000000000000000000000000000aa", "debank"),
]


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """The sandbox's accounts with a second Coinbase account, another wallet, and a mistake."""
    file = tmp_path / "accounts.toml"
    more = "".join(entry(a.source, a.account, a.connection) for a in SECOND)
    file.write_text(ACCOUNTS_TOML + "\n" + more + entry(source="nobank"))
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(file))
    return file


def attempt_of(task) -> SimpleNamespace:
    return SimpleNamespace(
        dag_id="second", run_id="r", task_id=task.task_id, map_index=-1, try_number=1
    )


def test_a_second_account_needs_a_block_and_a_connection_only(
    listed, tmp_path, monkeypatch, sandbox
):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path / "var"))
    assert AccountsFile.read(listed).entries()[0] == [*ACCOUNTS, *SECOND]
    dag = sync_dag("second")
    assert {"plan_coinbase_second", "fetch_coinbase_second", "fetch_debank"} <= set(dag.task_ids)
    assert dag.get_task("fetch_coinbase_second").pool == "api_coinbase_second" in pools()
    last = len(ACCOUNTS) + len(SECOND) + 1
    refused = dag.get_task(f"account_{last}_of_accounts_toml")
    assert isinstance(refused, RefuseOperator) and refused.downstream_task_ids == {"complete"}
    with pytest.raises(Exception, match=rf"number {last}: unknown source 'nobank'") as error:
        refused.execute({"ti": attempt_of(refused)})
    assert type(error.value).__name__ == "AirflowFailException", "it is not tried again"
    with pytest.raises(ValueError, match=f"number {last}"):
        AccountsFile.read(listed).accounts()

    for name, source in (("coinbase_second", "coinbase"), ("debank", "debank")):
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{name.upper()}",
            json.dumps(
                {
                    "conn_type": source,
                    "host": getattr(sandbox, source),
                    "password": KEY[source],
                    "login": keys.KEY_NAME,
                }
            ),
        )
    books, now = Books(sandbox, tmp_path), datetime.now(UTC)
    for job in books.plan(now - timedelta(days=9), now, accounts=SECOND):
        books.apis[job.source] = SourceHook(job.connection).open(get(job.source))[0]
        books.fetch(job)
    extract_load(books)
    assert books.column(
        "SELECT DISTINCT source || ' ' || account FROM ops.coverage ORDER BY ALL"
    ) == [f"{a.source} {a.account}" for a in SECOND]


def extract_load(books: Books) -> None:
    from ledgerhouse.load.loader import load

    load(books.con, books.root, books.sources)


def test_the_words_of_a_failed_task_are_the_buttons(connect, fail):
    fail(vendor="debank", status=401)
    hook = connect("debank")
    button = hook.test_connection()[1].partition(" — ")[0]
    hook = SourceHook("mine")
    api, units, secrets = hook.open(get("debank"))
    client = Client("debank", "0x1", rates={}, units=units, secrets=secrets)
    with pytest.raises(Fatal) as error:
        get("debank").test_connection(client, api)
    task = hook.advice(error.value, get("debank"))
    assert task.startswith(button.replace("this Connection", "the Airflow Connection 'mine'"))
    assert "debank account 0x1, /v1/account/units: HTTP 401" in task
    lost = hook.advice(Retriable("no answer: x"), get("debank"))
    assert lost.startswith("no answer from http://127.0.0.1")
