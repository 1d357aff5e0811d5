"""Laws of the limiters, on a simulated clock: never too many, never much too few."""

import random
from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.core.source import Rate
from extract.fetch.rate_limits import SHARE, Bucket, Pacing, Window


def simulate(limiter, latency, *, callers, calls):
    """When the vendor counted each of `calls`; `latency()` draws (to the count, to the answer)."""
    counted, queue = [], [(0.0, n, None) for n in range(callers)]
    sent = number = 0
    while queue:
        now, _, event = heappop(queue)
        number += 1
        if event == "answer":
            limiter.answered(now)
        elif sent == calls:
            continue
        elif wait := limiter.take(now):
            heappush(queue, (now + wait, callers + number, None))
            continue
        else:
            sent += 1
            there, back = latency()
            counted.append(now + there)
            heappush(queue, (now + there + back, callers + number, "answer"))
            continue
        heappush(queue, (now, callers + number, None))
    return sorted(counted)


seconds = st.floats(0, 3)


@given(
    rate=st.integers(1, 12),
    window=st.floats(0.2, 5),
    callers=st.integers(1, 20),
    spread=st.tuples(seconds, seconds, seconds, seconds),
    seed=st.integers(),
)
def test_no_window_ever_holds_more_calls_than_are_allowed(rate, window, callers, spread, seed):
    draw, (a, b, c, d) = random.Random(seed), spread
    counted = simulate(
        Window(rate, window),
        callers=callers,
        calls=6 * rate,
        latency=lambda: (draw.uniform(min(a, b), max(a, b)), draw.uniform(min(c, d), max(c, d))),
    )
    assert len(counted) == 6 * rate
    # The vendor forgets a call W after it counted it.
    assert all(later - first >= window - 1e-9 for first, later in zip(counted, counted[rate:]))


@pytest.mark.parametrize("rate", [10, 100])
@given(there=st.floats(0, 0.08))
def test_a_window_uses_all_but_the_time_its_answers_are_under_way(rate, there):
    counted = simulate(
        Window(rate, 1.0), lambda: (there, 0.08 - there), callers=rate, calls=5 * rate + 1
    )
    share = (len(counted) - 1) / (counted[-1] - counted[0]) / rate
    assert share >= 1 / 1.08 - 1e-9 > 0.92


@given(
    rate=st.floats(0.5, 200),
    burst=st.integers(1, 50),
    calls=st.integers(2, 120),
    pauses=st.lists(st.floats(0, 2), max_size=20),
)
def test_a_bucket_never_passes_its_rate_and_is_no_slower_than_it_must_be(
    rate, burst, calls, pauses
):
    bucket, now, sent = Bucket(rate, burst), 0.0, []
    for number in range(calls):
        now += pauses[number] if number < len(pauses) else 0.0
        while wait := bucket.take(now):
            now += wait
        sent.append(now)
    for i in range(len(sent)):
        for j in range(i, len(sent)):
            assert j - i + 1 <= burst + (sent[j] - sent[i]) * rate * SHARE + 1e-6
    busy = calls - min(len(pauses), calls)
    assert sent[-1] - sent[-1 - busy if busy < calls else 0] <= busy / rate / SHARE + 1e-6


@pytest.mark.parametrize("strict", [True, False])
def test_a_hold_stops_everybody_until_it_is_over_and_never_shortens(strict):
    limiter = Pacing({"/": Rate(10, burst=10, strict=strict)}).of("/x")
    assert limiter.take(100.0) == 0
    limiter.hold(107.0)
    limiter.hold(103.0)
    assert limiter.take(100.0) == 7 and limiter.take(106.0) == 1 and limiter.take(107.0) == 0


def test_a_call_without_answer_keeps_its_slot():
    window = Window(2, 1.0)
    assert window.take(0.0) == window.take(0.0) == 0
    assert window.take(50.0) == 1.0, "both are under way: no sooner than a second from now"
    window.answered(50.0)
    assert window.take(50.5) == 0.5 and window.take(51.0) == 0 and window.take(51.0) > 0
