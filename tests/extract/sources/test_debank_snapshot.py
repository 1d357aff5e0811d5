"""What is asked for beside a wallet's history: only what is new, and nothing that stops the rest."""

import json
from datetime import timedelta
from types import SimpleNamespace

import pytest

from extract.core.errors import UnitsExhausted
from extract.core.interval import Interval, utc
from extract.core.source import Job
from extract.fetch.client import Client
from extract.sources import debank

NOW = utc("2026-03-10T12:30:00Z")
ROW = {"id": "0x1", "chain": "celo", "time_at": 1769940000.0}
ANSWERS = {
    debank.TOKENS: [{"chain": "eth", "id": "eth"}, {"chain": None, "id": "x"}, "odd"],
    debank.HISTORY: {"history_list": [ROW]},
    debank.POSITIONS: [],
    debank.CHAINS: [{"id": "celo", "native_token_id": "0x471e"}, {"id": None}],
}


def fetch(answers=ANSWERS, known=(), unread=(), tries=1):
    """A fetch with a snapshot, and the calls that it made: an answer is a body, or a status."""
    calls = []

    def get(url, params):
        calls.append(url)
        answer = answers[url]
        status = answer if isinstance(answer, int) else 200
        return SimpleNamespace(
            status_code=status,
            headers={"Date": "Tue, 10 Mar 2026 12:30:00 GMT"},
            content=json.dumps({} if status != 200 else answer).encode(),
        )

    start = utc("2026-01-01")
    job = Job(
        "debank", "0xabc", "debank", Interval(start, NOW), start, True, dict(known), dict(unread)
    )
    client = Client("debank", "0xabc", rates={}, units={}, tries=tries)
    return debank.fetch(client, SimpleNamespace(host="", get=get), job), calls


def test_chains_and_positions_are_asked_for_only_where_they_are_new():
    fetched, calls = fetch()
    assert sorted(calls) == sorted(ANSWERS)
    assert fetched.part_states == {
        "chain:celo": "0x471e",
        "chain:eth": "",  # of the token list, and not in the list of chains
        "positions": "2026-03-10",
    }
    again, calls = fetch(known=fetched.part_states)
    assert sorted(calls) == sorted([debank.TOKENS, debank.HISTORY])
    assert again.part_states == {}
    _, calls = fetch(known=fetched.part_states | {"positions": "2026-03-09"})
    assert debank.POSITIONS in calls and debank.CHAINS not in calls


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_positions_that_cannot_be_read_are_named_and_stop_nothing(status):
    fetched, _ = fetch(ANSWERS | {debank.POSITIONS: status})
    (unread,) = fetched.unread
    assert (unread.dataset, unread.part) == ("positions", "positions") and str(
        status
    ) in unread.reason
    assert {c.dataset for c in fetched.covered} == {
        "balances",
        "onchain_transactions",
        "onchain_transfers",
    }
    assert "positions" not in fetched.part_states, "so they are tried again"
    since = NOW - timedelta(days=1)
    healed, _ = fetch(unread={"positions": since})
    (span,) = [c.interval for c in healed.covered if c.dataset == "positions"]
    assert span.start == since and span.end > NOW


def test_units_used_up_at_the_last_call_keep_what_was_read():
    for endpoint in (debank.POSITIONS, debank.CHAINS):
        with pytest.raises(UnitsExhausted) as stop:
            fetch(ANSWERS | {endpoint: 403})
        assert {c.dataset for c in stop.value.partial.covered} >= {"balances", "onchain_transfers"}
