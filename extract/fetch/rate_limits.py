"""Rate limiters of two kinds, token bucket and sliding window. They never sleep; the client does.

`Bucket` meets a token bucket by even spacing a little below the rate. `Window` meets a strict
sliding window ("at most R calls in any W seconds"): R slots, each free again W seconds after
its *answer* arrived. The vendor counts a call somewhere between its sending and its answer, so
two counts of one slot are always at least W apart, whatever the network does between.

Both are used by several threads at once. `turn` is held by the one that waits at the front.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from threading import Lock

from extract.core.source import Rate

# What is left over fills the vendor's bucket, for calls that overtake each other on the way.
SHARE = 0.98


class Bucket:
    """A token bucket: `rate` calls a second, spaced evenly, `burst` together after a pause."""

    def __init__(self, rate: float, burst: float = 1.0):
        self.turn, self._lock = Lock(), Lock()
        self._gap = 1.0 / (rate * SHARE)
        self._ahead = (burst - 1.0) * self._gap
        self._next = self._held = float("-inf")

    def take(self, now: float) -> float:
        """0.0 when a call may be sent at monotonic time `now`, otherwise the least seconds to wait."""
        with self._lock:
            start = max(self._next - self._ahead, self._held)
            if now < start:
                return start - now
            self._next = max(self._next, now) + self._gap
            return 0.0

    def answered(self, now: float) -> None:
        """The answer (or failure) of a call arrived; a bucket needs no such news."""

    def hold(self, until: float) -> None:
        """Nobody sends before `until`: the vendor said too many."""
        with self._lock:
            self._held = max(self._held, until)


class Window:
    """At most `calls` in any `seconds`, by the count of the vendor or of any proxy before it."""

    def __init__(self, calls: int, seconds: float = 1.0):
        self.turn, self._lock = Lock(), Lock()
        self._seconds = seconds
        self._free = [float("-inf")] * calls  # a heap: when each idle slot may be used again
        self._held = float("-inf")

    def take(self, now: float) -> float:
        """0.0 when a call may be sent at monotonic time `now`, otherwise the least seconds to wait.

        A caller that gets 0.0 owes an `answered`.
        """
        with self._lock:
            # Where every slot's call is under way, none is free before its answer plus W.
            start = max(self._free[0] if self._free else now + self._seconds, self._held)
            if now < start:
                return start - now
            heappop(self._free)
            return 0.0

    def answered(self, now: float) -> None:
        """The answer (or failure) of a call arrived at `now`; its slot rests from then on."""
        with self._lock:
            heappush(self._free, now + self._seconds)

    def hold(self, until: float) -> None:
        """Nobody sends before `until`: the vendor said too many."""
        with self._lock:
            self._held = max(self._held, until)


class Pacing:
    """The limiters of one API key, by endpoint prefix; the longest match counts.

    Clients that follow each other on one key within one process share it.
    """

    def __init__(self, rates: Mapping[str, Rate]):
        self._limiters = {
            prefix: Window(rate.calls, rate.seconds)
            if rate.strict
            else Bucket(rate.calls / rate.seconds, rate.burst)
            for prefix, rate in rates.items()
        }

    def of(self, endpoint: str) -> Bucket | Window | None:
        """The limiter an endpoint is under, None where no prefix matches."""
        prefixes = [p for p in self._limiters if endpoint.startswith(p)]
        return self._limiters[max(prefixes, key=len)] if prefixes else None
