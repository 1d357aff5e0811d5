"""Laws of the client: bounded tries, asked-for waits, every request logged, no secret shown."""

import logging
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from threading import Barrier, Event, Thread

import pytest

from extract.core.errors import DeadlineExceeded, Fatal, RateLimited, Retriable, Unforeseen
from extract.core.interval import UTC, Interval, utc
from extract.core.source import Job, Rate
from extract.fetch.answer_head import AHEAD_S, failed, skew, vendor_clock
from extract.fetch.client import Answer, Client, fetch
from extract.fetch.rate_limits import Pacing
from extract.sources import debank

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
    return Client(
        "debank",
        "0xabc",
        **({"rates": {}, "units": {"/x": 7}} | kwargs),
        record=calls.append,
        secrets=("hunter2",),
        sleep=clock.sleep,
        timer=clock,
    )


def sender(*outcomes):
    left = list(outcomes)

    def send():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

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


def slow(clock, seconds, outcome):
    """A send that takes its time, and ends in `outcome`."""

    def send():
        clock.now += seconds
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return send


@pytest.mark.parametrize(
    "seconds, error, tries",
    [(60, DeadlineExceeded, 2), (30, Retriable, 4), (180, DeadlineExceeded, 1), (5, Retriable, 6)],
)
def test_a_host_that_does_not_answer_costs_a_task_two_minutes_and_a_call_at_most(
    seconds, error, tries
):
    clock, calls = Clock(), []
    caller = client(clock, calls)
    for number in range(3):
        with pytest.raises(error, match="debank account 0xabc, /x: ") as raised:
            caller.call("/x", slow(clock, seconds, error(f"slow hunter2 {number}")))
        assert number or "slow ***" in str(raised.value), "what the host did is said"
    assert "hunter2" not in str(raised.value)
    if seconds * tries < 120:
        assert len(calls) > 2 * tries, "trouble that is soon over has its six tries a call"
    else:
        assert len(calls) == tries, "no other call is sent, and none is paid"
        assert clock.now < 120 + seconds + 4
        assert "this task asks it no more" in str(raised.value) and not raised.value.sent


@pytest.mark.parametrize("answer", [OK, failed(404, "", {}), failed(500, "", {})])
def test_one_answer_of_a_slow_host_is_enough_to_ask_it_again(answer):
    """However long ago the first deadline was: a history takes hours."""
    clock, calls = Clock(), []
    caller = client(clock, calls)
    for _ in range(3):
        with suppress(Fatal, Retriable):
            caller.call("/x", slow(clock, 60, DeadlineExceeded("late", status=200)), tries=1)
        with suppress(Fatal, Retriable):
            caller.call("/x", slow(clock, 40, answer), tries=1)
    assert len(calls) == 6


def test_once_a_host_is_given_up_no_call_is_sent_nor_its_turn_lost():
    clock, calls = Clock(), []
    caller = client(clock, calls, rates={"/": Rate(1)})
    with pytest.raises(DeadlineExceeded):
        caller.call("/x", slow(clock, 130, DeadlineExceeded("slow")))
    sent = []
    for _ in range(3):
        with pytest.raises(DeadlineExceeded, match="asks it no more"):
            caller.call("/x", lambda: sent.append(1))
    assert sent == [] and len(calls) == 1


def test_a_call_may_be_asked_less_often_but_a_limit_is_waited_for():
    for tries, error, asked in ((2, 500, 2), (9, 500, 4), (1, 429, 4)):
        clock, calls = Clock(), []
        caller = client(clock, calls, tries=4)
        with pytest.raises(Retriable):
            caller.call("/x", sender(*[failed(error, "", {}) for _ in range(9)]), tries=tries)
        assert len(calls) == asked


def test_a_wrong_key_is_asked_once():
    clock, calls = Clock(), []
    with pytest.raises(Fatal, match="401"):
        client(clock, calls).call("/x", sender(failed(401, "no hunter2", {}), OK))
    assert len(calls) == 1 and not clock.slept


def test_a_date_in_retry_after_is_read_by_the_vendors_clock():
    headers = {"Date": "Fri, 31 Jan 2020 06:00:00 GMT"}
    for asked, wait in (
        ("Fri, 31 Jan 2020 06:00:17 GMT", 17),
        ("Fri, 31 Jan 2020 05:00:00 GMT", 0),
        ("soon", None),
        ("", None),
        ("4", 4),
    ):
        assert failed(429, "", headers | {"Retry-After": asked}).wait_s == wait
    assert failed(429, "", headers).wait_s is None


def test_retry_after_is_honoured_and_absent_it_the_wait_grows():
    clock, calls = Clock(), []
    client(clock, calls).call("/x", sender(failed(429, "", {"Retry-After": "17"}), OK))
    assert clock.slept == [17]
    clock, calls = Clock(), []
    client(clock, calls).call("/x", sender(*[RateLimited("slow")] * 4, OK))
    assert all(0.25 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(clock.slept))


def test_the_longest_prefix_paces():
    clock = Clock()
    caller = client(clock, [], rates={"/v1/": Rate(1), "/v1/fast": Rate(1000, burst=1000)})
    for _ in range(10):
        caller.call("/v1/fast/x", lambda: OK)
    assert clock.now == 0
    for _ in range(3):
        caller.call("/v1/slow", lambda: OK)
    assert clock.now == pytest.approx(2 / 0.98)


@pytest.mark.parametrize("strict", [True, False])
def test_one_told_to_slow_down_holds_everybody_back(strict):
    clock, others = Clock(), []

    def sleep(seconds):
        others.append(pacing.of("/v1/y").take(clock()))  # what another thread would wait
        clock.sleep(seconds)

    pacing = Pacing({"/v1/": Rate(100, burst=100, strict=strict)})
    caller = Client("debank", "0xabc", rates=pacing, units={}, sleep=sleep, timer=clock, tries=2)
    caller.call("/v1/x", sender(failed(429, "", {"Retry-After": "17"}), OK))
    assert others == [17] and clock.now == 17
    with pytest.raises(RateLimited):
        caller.call("/v1/x", sender(*[failed(429, "", {"Retry-After": "5"})] * 2))
    assert pacing.of("/v1/y").take(clock()) == 5, "also after the last try"


def test_work_that_forks_is_done_once_by_no_more_threads_than_asked_for():
    caller, done, alone = client(Clock(), []), [], []
    met = Barrier(3, timeout=20)

    def work(item, fork):
        caller.call("/x", lambda: OK)
        if item == 0:
            assert fork(1) and fork(2) and not fork(3), "three workers are busy"
        met.wait()
        done.append(item)

    caller.run_concurrently(work, 0, workers=3)
    assert sorted(done) == [0, 1, 2] and caller.calls == 3 and caller.units_spent == 21
    caller.run_concurrently(lambda item, fork: alone.append(item), 7)
    assert alone == [7]


@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("error", [Fatal, KeyboardInterrupt])
def test_the_first_error_stops_the_others_at_their_next_call_and_is_raised(failing, error):
    caller, calls = Client("debank", "0xabc", rates={}, units={}), []
    begun, failed_already = Barrier(3, timeout=20), Event()

    def work(item, fork):
        if item == 0:
            assert fork(1) and fork(2)
        begun.wait()
        if item == failing:
            failed_already.set()
            raise error("no units")
        failed_already.wait(20)
        caller._sleep(60)  # a wait is cut short
        caller.call("/x", lambda: calls.append(item))

    with pytest.raises(error, match="no units"):
        caller.run_concurrently(work, 0)
    assert calls == [] and caller.calls == 0
    assert caller.call("/x", lambda: OK) is OK, "the client itself is as good as before"


def test_counts_and_the_log_are_whole_when_threads_call_together():
    inside, overlaps, calls = [], [], []

    def record(call):
        inside.append(1)
        overlaps.append(len(inside) > 1)
        calls.append(call["call_id"])
        inside.pop()

    caller = Client(
        "debank", "0xabc", rates={"/": Rate(10_000, strict=True)}, units={"/x": 1}, record=record
    )
    threads = [
        Thread(target=lambda: [caller.call("/x", lambda: OK) for _ in range(200)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caller.calls == caller.units_spent == len(set(calls)) == 1600
    assert not any(overlaps)


@pytest.mark.parametrize("raised", [KeyError("data"), RecursionError("deep"), ZeroDivisionError()])
def test_what_nobody_foresaw_is_logged_and_named_and_not_asked_again(raised):
    clock, calls = Clock(), []
    with pytest.raises(Unforeseen, match=rf"debank account 0xabc, /x: {type(raised).__name__}.*py"):
        client(clock, calls).call("/x", sender(raised, OK))
    (call,) = calls
    assert type(raised).__name__ in call["error"] and (call["status"], call["units"]) == (None, 7)


def test_a_source_that_trips_over_an_answer_it_has_got_is_named_with_its_account():
    job = Job("debank", "0xabc", "debank", Interval("2026-01-01", "2026-01-02"), utc("2026-01-01"))

    def trips(client, api, job):
        return {}["hunter2"]

    with pytest.raises(
        Unforeseen, match=r"debank account 0xabc, .*: KeyError: '\*\*\*', at test_c"
    ):
        fetch(replace(debank.SOURCE, fetch=trips), client(Clock(), []), None, job)


def test_a_call_that_is_under_way_when_the_task_is_ended_is_logged():
    clock, calls = Clock(), []

    def send():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client(clock, calls).call("/x", send)
    assert len(calls) == 1 and calls[0]["error"].startswith("KeyboardInterrupt")


def test_a_hosts_words_bring_no_escapes_into_the_log():
    calls = []
    with pytest.raises(Fatal) as raised:
        client(Clock(), calls).call("/x", sender(failed(400, "\x1b[2Jgone\u202e", {})))
    assert "\x1b" not in str(raised.value) + calls[0]["error"] and "gone" in str(raised.value)
    assert "\u202e" not in str(raised.value)


def test_the_vendors_clock_is_the_date_header():
    assert vendor_clock({"Date": "Thu, 01 Jan 2026 06:00:00 GMT"}) == utc("2026-01-01T06:00:00Z")
    assert vendor_clock({}).tzinfo is not None
    for odd in ("Fri, 31 Dec 9999 23:59:59 -2359", "soon", "", "Thu, 01 Jan 99999 06:00:00 GMT"):
        assert abs(vendor_clock({"Date": odd}) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "ahead_s, is_believed", [(-(10**9), True), (AHEAD_S - 60, True), (AHEAD_S + 60, False)]
)
def test_a_vendors_clock_is_believed_unless_it_is_far_ahead_of_ours(ahead_s, is_believed, caplog):
    said = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=ahead_s)
    headers = {"Date": format_datetime(said, usegmt=True)}
    assert (vendor_clock(headers) == said) == is_believed
    assert abs(skew(headers) - ahead_s) < 5
    answer = Answer(200, "{}", {}, vendor_clock(headers), skew_s=skew(headers))
    caller = Client("debank", "0xabc", rates={}, units={})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            caller.call("/x", lambda: answer)
    assert len([r for r in caplog.records if "clock" in r.message]) == (not is_believed)


def test_a_wait_until_a_date_goes_by_one_clock_also_where_that_is_wrong():
    headers = {"Date": "Fri, 31 Jan 2150 06:00:00 GMT"}
    asked = headers | {"Retry-After": "Fri, 31 Jan 2150 06:00:17 GMT"}
    assert failed(429, "", asked).wait_s == 17
