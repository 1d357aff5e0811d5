"""Limits and faults: the vendors' shape, drawn from the seed, and with an end."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import ccxt
import pytest
import requests

from sandbox.debank.keys import DEBANK_KEY
from sandbox.server import serve
from sandbox.vendors import all_vendors
from sandbox.world.tokens import WALLETS
from tests.sandbox.vendors.scene import NOW, ROOT, SMALL, debank, exchange


def test_more_than_100_calls_a_second_are_refused():
    with serve(seed=2, scale=SMALL, now=NOW) as url, requests.Session() as session:
        url.app.apis["debank"].second.limit = 20
        ask = [
            session.get(f"{url}/debank/v1/account/units", headers={"AccessKey": DEBANK_KEY})
            for _ in range(25)
        ]
        assert (
            429 in {answer.status_code for answer in ask} and "Retry-After" not in ask[-1].headers
        )


def test_faults_have_the_vendors_shape_and_an_end(small):
    def fail(**what):
        assert requests.post(f"{small}/_control/fail", json=what, timeout=5).status_code == 200

    fail(vendor="debank", status=429, count=2, endpoint="units")
    assert debank(small, "user/used_chain_list", id=WALLETS[0]).status_code == 200
    answers = [debank(small, "account/units") for _ in range(3)]
    assert [a.status_code for a in answers] == [429, 429, 200] and "Retry-After" not in answers[
        0
    ].headers
    reader = exchange(small.coinbase)
    for status, error in (
        (401, ccxt.AuthenticationError),
        (429, ccxt.RateLimitExceeded),
        (500, ccxt.BaseError),
    ):
        fail(vendor="coinbase", status=status, count=None)
        for call in ("v2PrivateGetAccounts", "v3PrivateGetBrokerageAccounts"):
            with pytest.raises(error):
                getattr(reader, call)()
    fail(vendor="coinbase", status=403, count=None)
    with pytest.raises(ccxt.PermissionDenied):
        reader.v3PrivateGetBrokerageAccounts()
    fail(vendor="coinbase", status=None)
    assert reader.v2PrivateGetAccounts()["data"]
    stats = requests.get(f"{small}/_stats", timeout=5).json()
    assert stats["calls"]["debank"]["/v1/account/units"]["429"] == 2 and stats["units_spent"] > 0
    requests.post(f"{small}/_control/reset_stats", timeout=5)
    total = requests.get(f"{small}/_stats", timeout=5).json()["total"]
    assert set(total) == set(all_vendors()) and set(total.values()) == {0}


def test_a_broken_body_with_status_200_can_be_asked_for(small):
    what = {"vendor": "debank", "status": 200, "count": 1, "body": "{}", "retry_after": 3}
    requests.post(f"{small}/_control/fail", json=what, timeout=5)
    broken = debank(small, "account/units")
    assert (broken.status_code, broken.text, broken.headers["Retry-After"]) == (200, "{}", "3")
    assert debank(small, "account/units").json()["balance"]
    assert (
        requests.post(f"{small}/_control/fail", json={"vendor": "nobank"}, timeout=5).status_code
        == 400
    )
    nothing = requests.get(f"{small.coinbase}/v2/nowhere", timeout=5)
    assert (nothing.status_code, nothing.json()["errors"][0]["id"]) == (404, "not_found")


ASKED = [
    ("account/units", {}),
    ("user/used_chain_list", {"id": WALLETS[0]}),
    ("user/all_history_list", {"id": WALLETS[0]}),
    ("user/history_list", {"id": WALLETS[1], "chain_id": "eth"}),
]


def heard(url, calls: int) -> list[tuple]:
    """What a client hears in so many calls: status, Retry-After, Date and body, or the kind of silence."""
    answers = []
    for number in range(calls):
        endpoint, params = ASKED[number % len(ASKED)]
        try:
            answer = debank(url, endpoint, **params)
            answers.append(
                (
                    answer.status_code,
                    answer.headers.get("Retry-After"),
                    answer.headers["Date"],
                    answer.text,
                )
            )
        except requests.RequestException as error:
            answers.append((type(error).__name__,))
    return answers


def test_faults_are_drawn_from_the_seed_and_counted():
    mixed = "chaos:0.5,clock_skew:0.3,changing_rows:0.1"
    answers = {}
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        with serve(seed=2, scale=SMALL, now=NOW, faults=mixed, faults_seed=seed, hold=0.01) as url:
            answers[name] = heard(url, 60)
            stats = requests.get(f"{url}/_stats", timeout=5).json()
            injected = Counter(stats["faults"]["debank"])
            failed = sum(len(answer) == 1 or answer[0] != 200 for answer in answers[name])
            loud = ("rate_limited", "rate_limited_silent", "server_errors", "cut")
            assert failed == sum(injected[kind] for kind in loud) > 0
            assert (
                stats["faults"]["coinbase"] == {}
                and injected["clock_skew"]
                and injected["changing_rows"]
            )
            assert sum(n for by in stats["calls"]["debank"].values() for n in by.values()) == 60
            requests.post(f"{url}/_control/reset_stats", timeout=5)
            faults = requests.get(f"{url}/_stats", timeout=5).json()["faults"]
            assert faults == {vendor: {} for vendor in all_vendors()}
    assert answers["one"] == answers["same"] != answers["other"]


def test_a_passing_fault_lets_every_fourth_try_of_a_call_through(small):
    what = {"profile": "server_errors", "rate": 1, "vendor": "debank", "count": None}
    assert (
        requests.post(f"{small}/_control/faults", json=what, timeout=5).json()[0]["name"]
        == "server_errors"
    )
    statuses = [debank(small, "account/units").status_code for _ in range(8)]
    assert statuses == [500, 500, 500, 200] * 2
    small.app.faults.set("server_errors", rate=1.0, count=1)
    assert [debank(small, "account/units").status_code for _ in range(3)] == [500, 200, 200]
    small.app.faults.set("key_revoked", after=2, vendor="debank")
    statuses = [debank(small, "account/units").status_code for _ in range(9)]
    assert statuses == [200, 200, *[401] * 7], "until it is turned off"
    assert requests.get(f"{small.coinbase}/v2/time", timeout=5).status_code == 200
    small.app.faults.set("none")
    assert debank(small, "account/units").status_code == 200


@pytest.mark.parametrize(
    "what, said",
    [
        ({"profile": "chaoss"}, "unknown fault profile 'chaoss'; there are none, chaos"),
        ({"profile": "cut:2"}, "not between 0 and 1"),
        ({"profile": "cut", "rate": -1}, "not between 0 and 1"),
        ({"profile": "cut", "vendor": "nobank"}, f"write {', '.join(all_vendors())} or null"),
        ({"profil": "cut"}, "profil"),
    ],
)
def test_a_profile_that_is_none_is_refused_with_what_there_is(small, what, said):
    refused = requests.post(f"{small}/_control/faults", json=what, timeout=5)
    assert refused.status_code == 400 and said in refused.json()["error"]
    assert small.app.faults.rules == []


def test_the_command_refuses_an_unknown_fault():
    command = [sys.executable, "-m", "sandbox", "--now", NOW, "--faults", "cut,rain"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "unknown fault profile 'rain'" in done.stderr
