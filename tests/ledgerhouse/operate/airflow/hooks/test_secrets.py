"""No secret in any text, whatever its spelling."""

from __future__ import annotations

import json
import logging
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from extract.core.errors import Fatal
from extract.fetch.client import Client
from extract.fetch.landing import _line
from extract.sources import get

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
