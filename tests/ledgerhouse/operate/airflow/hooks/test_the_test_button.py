"""The Test button: one call, and its outcome in words."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from datetime import UTC, datetime, timedelta

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerhouse.operate.ui.portless import Portless
from sandbox.coinbase import keys
from sandbox.debank.keys import DEBANK_KEY
from tests.ledgerhouse.operate.airflow.hooks.scene import KEY

TITLE = {"coinbase": "Coinbase", "debank": "DeBank"}
OTHER = {"coinbase": "debank", "debank": "coinbase"}


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# --- the Test button ------------------------------------------------------------------------------


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
    for secret in (DEBANK_KEY, *keys.KEY_PEM.splitlines()[1:-1]):
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
    assert set(stats["total"].values()) == {0}


# --- the page's port 0 ----------------------------------------------------------------------------


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
