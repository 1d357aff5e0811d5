"""The hostile host of the sandbox does what its faults are named for."""

from __future__ import annotations

import time

import pytest
import requests

from sandbox.debank.keys import DEBANK_KEY
from sandbox.faults.faults import HOSTILE, PASSING, TRANSIENT, WORLDLY
from sandbox.faults.hostile import DEEP
from sandbox.server import serve


@pytest.fixture(scope="module")
def url():
    with serve(scale=0.05, pause=0.001) as served:
        yield served


def asked(url, fault: str, **options) -> requests.Response:
    url.app.faults.set(fault, rate=1.0)
    return requests.get(
        f"{url.debank}/v1/account/units",
        headers={"AccessKey": DEBANK_KEY},
        timeout=10,
        **options,
    )


def test_a_drip_is_the_right_answer_a_byte_at_a_time(url):
    right, begun = asked(url, "none"), time.monotonic()
    dripped = asked(url, "drip")
    assert dripped.content == right.content and len(right.content) > 20
    assert time.monotonic() - begun > 0.001 * (len(right.content) - 1)


def test_an_endless_body_goes_on_until_the_client_hangs_up(url):
    with asked(url, "endless", stream=True) as answer:
        assert answer.status_code == 200 and "Content-Length" not in answer.headers
        assert sum(len(chunk) for chunk, _ in zip(answer.iter_content(1 << 16), range(200))) > 9e6
    assert asked(url, "none").status_code == 200, "the sandbox goes on"


@pytest.mark.slow
def test_a_bomb_is_small_on_the_way_and_huge_where_it_is_opened(url):
    with asked(url, "bomb", stream=True) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        sent = sum(map(len, answer.raw.stream(1 << 16, decode_content=False)))
    with asked(url, "bomb", stream=True) as answer:
        opened = sum(map(len, answer.iter_content(1 << 20)))
    assert 0 < sent < 2 << 20 and opened > 1 << 30


def test_a_redirect_leads_to_another_host_that_answers(url):
    answer = asked(url, "redirect", allow_redirects=False)
    port = url.rpartition(":")[2]
    there = f"http://localhost:{port}/debank/v1/account/units"
    assert (answer.status_code, answer.headers["Location"]) == (302, there)


def test_deep_json_is_deeper_than_a_parser_goes(url):
    answer = asked(url, "deep_json")
    assert answer.text.count("[") == answer.text.count("]") == DEEP
    with pytest.raises(RecursionError):
        answer.json()


def test_a_future_date_is_a_year_ahead_of_the_real_time(url):
    date = asked(url, "future_date").headers["Date"]
    assert str(time.gmtime().tm_year + 1) in date


def test_a_host_turns_hostile_only_where_it_is_asked_to():
    assert not {*HOSTILE, "future_date"} & {*TRANSIENT}, "chaos draws of these"
    assert {*HOSTILE} < {*PASSING} and "future_date" in WORLDLY
