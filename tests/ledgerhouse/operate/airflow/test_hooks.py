"""Connections: their forms, what the Test button says, and accounts that are listed wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import extract.fetch.client
import extract.sources
from extract.core.errors import Fatal, Retriable
from extract.fetch.client import Client
from extract.fetch.landing import _line
from extract.sources import get
from ledgerhouse.airflow import sync_dag
from ledgerhouse.config import Account, AccountsFile
from ledgerhouse.operate.airflow import hooks
from ledgerhouse.operate.airflow.hooks import SourceHook
from ledgerhouse.operate.airflow.init import pools
from ledgerhouse.operate.airflow.operators.plan import RefuseOperator
from ledgerhouse.operate.airflow.provider import connection_types, get_provider_info
from ledgerhouse.operate.ui.portless import Portless
from sandbox import keys
from sandbox.server import serve
from tests.helpers.books import ACCOUNTS, ROOT, Books

KEY = {"coinbase": keys.KEY_PEM, "debank": keys.DEBANK_KEY}
TITLE = {"coinbase": "Coinbase", "debank": "DeBank"}
OTHER = {"coinbase": "debank", "debank": "coinbase"}


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


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# --- the Test button --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, seen",
    [("coinbase", r"sees \d+ wallets \(USD, .*…\)"), ("debank", r"has 1,000,000 units left")],
)
def test_a_good_key_is_confirmed_with_what_it_sees_and_what_the_test_cost(
    connect, fail, sandbox, source, seen
):
    fail("reset_stats")
    ok, words = connect(source).test_connection()
    assert ok, words
    assert re.fullmatch(
        rf"OK: {TITLE[source]} {seen}\. The test made 1 call and spent 0 units", words
    )
    stats = requests.get(f"{sandbox}/_stats", timeout=30).json()
    assert (sum(stats["total"].values()), stats["units_spent"]) == (1, 0)


REFUSED = "refuses the key: it is wrong, or was revoked or has expired. Check the "
OUTCOMES = {
    "revoked": (dict(status=401), {}, REFUSED),
    "not permitted": (
        dict(vendor="coinbase", status=403),
        {},
        "does not permit this call: the key lacks the permission to read",
    ),
    "units": (dict(vendor="debank", status=403), {}, "accepts the key, and its prepaid units are"),
    "trouble": (dict(status=500), {}, "has trouble of its own; try again later"),
    "too many": (dict(status=429, retry_after=0), {}, "is called too often with this key"),
    "a web page": (dict(status=200, body="<html>Hello</html>"), {}, "is not the API of"),
    "nothing here": (dict(status=404), {}, "is not the API of"),
    "another shape": (dict(status=200, body="{}"), {}, "is not the API of"),
    "unreachable": ({}, dict(host=closed_port()), "no answer from http://127.0.0.1:"),
    "no TLS": ({}, dict(host="https"), "no answer from https://127.0.0.1:"),
    "no scheme": ({}, dict(host="api.example.com"), "write it with https://, like https://"),
    "in clear": ({}, dict(host="http://api.example.com"), "in clear: write it with https://"),
    "limits": (
        {},
        dict(extra='{"deadline_s": "soon"}'),
        "deadline_s in the extra is 'soon'; write",
    ),
    "no host": ({}, dict(host=""), "has no host; "),
    "no password": ({}, dict(password=" "), r"has no (private|access) key \(password\); "),
    "nothing": ({}, dict(host=None, password=None), r"has no host and no \w+ key \(password\)"),
    "extra": ({}, dict(extra="[1]"), "the extra of the Connection must be a JSON object"),
}


@pytest.mark.parametrize(
    "name, source",
    [
        (name, source)
        for name, (fault, *_) in OUTCOMES.items()
        for source in KEY
        if fault.get("vendor", source) == source
    ],
)
def test_what_is_wrong_is_reported_in_words(connect, fail, sandbox, caplog, source, name):
    fault, fields, said = OUTCOMES[name]
    if fields.get("host") == "https":
        fields = {"host": getattr(sandbox, source).replace("http:", "https:")}
    if fault:
        fail(**{"vendor": source} | fault)
    ok, words = connect(source, **fields).test_connection()
    assert not ok and re.search(said, words), words
    assert "mine" not in words, "Airflow tests a copy under another name"
    for secret in (keys.DEBANK_KEY, *keys.KEY_PEM.splitlines()[1:-1]):
        assert secret not in words + caplog.text


@pytest.mark.parametrize(
    "source, fields",
    [("debank", {"password": "another-key"}), ("coinbase", {"login": "organizations/x/apiKeys/y"})],
)
def test_a_wrong_key_and_a_host_of_another_api_are_told_apart(connect, sandbox, source, fields):
    ok, words = connect(source, **fields).test_connection()
    assert not ok and REFUSED in words and "HTTP 401" in words, words
    ok, words = connect(source, host=getattr(sandbox, OTHER[source])).test_connection()
    assert not ok and re.search(f"is not the API of {TITLE[source]}.*write https://", words), words


def test_units_that_are_used_up_are_told(connect, fail):
    fail("units", balance=0)
    ok, words = connect("debank").test_connection()
    assert not ok and words.startswith("DeBank accepts the key, and its prepaid units are used up")


@pytest.mark.parametrize("hours, way", [(1, "behind"), (-1, "ahead of")])
def test_a_clock_that_is_off_is_reported_where_signatures_need_it(connect, fail, hours, way):
    fail("clock", now=(datetime.now(UTC) + timedelta(hours=hours)).isoformat())
    for source in KEY:
        fail(vendor=source, status=401)
    said = rf"this machine's clock: it is 3(599|600|601) s {way} the vendor's"
    assert re.search(said, connect("coinbase").test_connection()[1])
    assert "clock" not in connect("debank").test_connection()[1], "DeBank signs nothing"


def test_passing_trouble_is_asked_again(connect, fail):
    for source in KEY:
        fail(vendor=source, status=500, count=2)
        ok, words = connect(source).test_connection()
        assert ok and "made 3 calls" in words, words


@pytest.mark.parametrize("blank", ["", " ", "\\n", "\r\n", "\n\n"])
def test_a_private_key_may_lose_its_line_ends(connect, blank):
    """The form's field has one line: what is pasted loses its line ends."""
    ok, words = connect("coinbase", password=keys.KEY_PEM.replace("\n", blank)).test_connection()
    assert ok, words


def test_a_key_that_cannot_be_one_costs_no_call(connect, fail, sandbox):
    fail("reset_stats")
    lines = keys.KEY_PEM.splitlines()
    half = "\n".join([lines[0], lines[1], lines[-1]])
    for password in ("nonsense", half, keys.KEY_PEM.replace("EC ", ""), "-----BEGIN X-----"):
        ok, words = connect("coinbase", password=password).test_connection()
        assert not ok and "the private key cannot be used" in words, words
        assert "nonsense" not in words and lines[1] not in words
    for password in ("a\nb-secret", "schlüssel", "\0"):
        ok, words = connect("debank", password=password).test_connection()
        assert not ok and "the access key holds" in words and password not in words
    stats = requests.get(f"{sandbox}/_stats", timeout=30).json()
    assert stats["total"] == {"coinbase": 0, "debank": 0}


# --- no secret in any text --------------------------------------------------------------------

SPELLINGS = [
    str,
    repr,
    json.dumps,
    lambda s: json.dumps(s, ensure_ascii=False),
    lambda s: quote(s, safe=""),
    quote,
    lambda s: s.replace("\n", "\\n"),
    lambda s: " ".join(s.split()),
    lambda s: s.splitlines()[0],
]
LINES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_characters="\x7f\x85\xa0\xad"),
    min_size=16,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=3), st.integers(0, 600), st.sampled_from(SPELLINGS))
def test_no_spelling_of_a_secret_leaves_the_client_or_lands(lines, before, spelling):
    secret = "\n".join(lines)
    echo = "x " * before + spelling(secret)
    if all(len(set(line)) < 3 for line in lines):
        return
    calls = []

    def send():
        raise Fatal(echo)

    with pytest.raises(Fatal) as error:
        Client("s", "a", rates={}, units={}, secrets=(secret,), record=calls.append).call("/", send)
    landed = _line({"body": echo}, (secret,)).decode()
    for text in (str(error.value), calls[0]["error"], landed):
        for line in lines:
            parts = {line[:10], line[-10:]} | {spelling(line)[1:11]}
            assert not [part for part in parts if len(part) == 10 and part in text], text[-200:]


@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60))
def test_an_echoed_key_is_neither_shown_nor_logged(connect, fail, caplog, secret):
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    for status in (401, 500):
        fail(vendor="debank", status=status, body=f"your key {json.dumps(secret)} {secret}")
        ok, words = connect(
            "debank", password=secret, extra=json.dumps({"api_token": secret[::-1]})
        ).test_connection()
        assert not ok and "***" in words
        ours = "\n".join(
            r.getMessage() for r in caplog.records if r.name.startswith(("extract", "ledgerhouse"))
        )
        assert secret not in words + ours and json.dumps(secret)[1:-1] not in words + ours
        assert status == 401 or ours, "retries are logged"
        open_with = connect(
            "debank",
            password=secret,
            extra=json.dumps({"api_token": secret[::-1], "region": "somewhere"}),
        ).open(get("debank"))
        assert open_with[2] == (secret, secret[::-1]), "a secret of the extra is one, too"


# --- the page's port 0 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, fixed",
    [
        ("/api/v2/connections/test", True),
        ("/base/api/v2/connections/test", True),
        ("/api/v2/connections", False),
    ],
)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), port=st.sampled_from([0, 1, None, 443, "none"]))
def test_only_the_port_0_of_a_test_is_taken_for_none(path, fixed, data, port):
    """Whatever the pieces the body comes in, all else goes on as it came."""
    asked = {"host": "é", "password": "***"} | ({} if port == "none" else {"port": port})
    body = data.draw(st.sampled_from([json.dumps(asked).encode(), b"no JSON", b""]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=3)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    waiting = [
        {"type": "http.request", "body": piece, "more_body": n < len(pieces) - 1}
        for n, piece in enumerate(pieces)
    ]
    seen = {}

    async def receive():
        return waiting.pop(0)

    async def app(scope, receive, send):
        got, more = b"", True
        while more:
            message = await receive()
            got, more = got + message["body"], message["more_body"]
        seen.update(body=got, headers=scope["headers"])

    asyncio.run(
        Portless(app)(
            {
                "type": "http",
                "method": "POST",
                "path": path,
                "headers": [(b"content-length", str(len(body)).encode())],
            },
            receive,
            None,
        )
    )
    assert seen["headers"] == [(b"content-length", str(len(seen["body"])).encode())]
    if fixed and port == 0 and body.startswith(b"{"):
        assert json.loads(seen["body"]) == asked | {"port": None}
    else:
        assert seen["body"] == body


# --- types and forms --------------------------------------------------------------------------


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
    monkeypatch.setattr(extract.sources, "__path__", [*extract.sources.__path__, str(tmp_path)])
    try:
        types = {one["connection-type"]: one for one in connection_types()}
        assert set(types) == {"coinbase", "debank", "newbank"}
        assert "broken.py cannot be imported: NameError" in caplog.text
        assert types["newbank"]["conn-fields"]["passphrase"]["schema"]["format"] == "password"
        assert (
            get_provider_info()["hook-class-names"][-1]
            == "ledgerhouse.operate.airflow.hooks.NewbankHook"
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


# --- connections and accounts -----------------------------------------------------------------


def test_a_connection_of_type_http_opens_as_before_and_one_of_another_source_does_not(connect):
    api, units, secrets = connect("debank", conn_type="http", extra='{"units": {"/x": 7}}').open(
        get("debank")
    )
    assert (units["/x"], secrets) == (7, (keys.DEBANK_KEY,))
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
    entry(source="nobank"): "unknown source 'nobank'; known: coinbase, debank",
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
    """accounts.toml with a second Coinbase account, another wallet, and a mistake."""
    file = tmp_path / "accounts.toml"
    more = "".join(entry(a.source, a.account, a.connection) for a in SECOND)
    file.write_text((ROOT / "accounts.toml").read_text() + more + entry(source="nobank"))
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
    refused = dag.get_task("account_7_of_accounts_toml")
    assert isinstance(refused, RefuseOperator) and refused.downstream_task_ids == {"complete"}
    with pytest.raises(Exception, match=r"number 7: unknown source 'nobank'") as error:
        refused.execute({"ti": attempt_of(refused)})
    assert type(error.value).__name__ == "AirflowFailException", "it is not tried again"
    with pytest.raises(ValueError, match="number 7"):
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
