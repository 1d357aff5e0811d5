"""Laws of the client: bounded tries, asked-for waits, every request logged, no secret told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.client import (
    Answer, Bucket, Client, Fatal, RateLimited, Retriable, failed, vendor_clock,
)
from extract.source import utc

OK = Answer(200, "{}", {}, utc("2026-01-01"), rows=3)


class Clock:
    def __init__(self):
        self.now, self.slept = 0.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self):
        return self.now


def client(clock, calls, **kwargs):
    return Client("debank", "0xabc", **({"rates": {}, "units": {"/x": 7}} | kwargs),
                  record=calls.append, secrets=("hunter2",), sleep=clock.sleep, timer=clock)


def sender(*outcomes):
    left = list(outcomes)

    def send():
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return one
    return send


def test_a_passing_fault_is_survived_and_both_requests_are_logged_but_one_is_paid():
    clock, calls = Clock(), []
    caller = client(clock, calls)
    assert caller.call("/x", sender(failed(500, "oops hunter2", {}), OK)) is OK
    assert [(c["status"], c["units"], c["rows"]) for c in calls] == [(500, 0, None), (200, 7, 3)]
    assert caller.units_spent == 7 and caller.calls == 2
    assert "hunter2" not in str(calls) and "***" in calls[0]["error"]
    assert 0 < clock.slept[0] <= 0.5


def test_tries_are_bounded_and_the_error_says_where_and_how_often():
    clock, calls = Clock(), []
    with pytest.raises(Retriable, match=r"debank account 0xabc, /x: gone \(after 6 tries\)"):
        client(clock, calls).call("/x", sender(*[Retriable("gone")] * 9))
    assert len(calls) == 6 and len(clock.slept) == 5


def test_a_wrong_key_is_asked_once():
    clock, calls = Clock(), []
    with pytest.raises(Fatal, match="401"):
        client(clock, calls).call("/x", sender(failed(401, "no hunter2", {}), OK))
    assert len(calls) == 1 and not clock.slept


def test_retry_after_is_honoured_and_absent_it_the_wait_grows():
    clock, calls = Clock(), []
    client(clock, calls).call("/x", sender(failed(429, "", {"Retry-After": "17"}), OK))
    assert clock.slept == [17]
    clock, calls = Clock(), []
    client(clock, calls).call("/x", sender(*[RateLimited("slow")] * 4, OK))
    assert all(0.25 * 2 ** n <= wait <= 0.5 * 2 ** n for n, wait in enumerate(clock.slept))


@given(st.floats(0.5, 200), st.integers(1, 50), st.integers(2, 120))
def test_a_bucket_never_passes_its_rate(rate, burst, calls):
    bucket, now, sent = Bucket(rate, burst), 0.0, []
    for _ in range(calls):
        now += bucket.delay(now)
        sent.append(now)
    for i in range(len(sent)):
        for j in range(i, len(sent)):
            assert j - i + 1 <= burst + (sent[j] - sent[i]) * rate + 1e-6
    assert sent[-1] <= max(0, calls - burst) / rate + 1e-6, "and it is no slower than it must be"


def test_the_longest_prefix_paces():
    clock = Clock()
    caller = client(clock, [], rates={"/v1/": (1.0, 1), "/v1/fast": (1000.0, 1000)})
    for _ in range(10):
        caller.call("/v1/fast/x", lambda: OK)
    assert clock.now == 0
    for _ in range(3):
        caller.call("/v1/slow", lambda: OK)
    assert clock.now == pytest.approx(2)


def test_the_vendors_clock_is_the_date_header():
    assert vendor_clock({"Date": "Thu, 01 Jan 2026 06:00:00 GMT"}) == utc("2026-01-01T06:00:00Z")
    assert vendor_clock({}).tzinfo is not None
