"""Rate limits: how many calls a vendor allows, by the wall clock."""

from __future__ import annotations

import time
from collections import deque


class SlidingSecond:
    """At most `limit` calls in any second."""

    def __init__(self, limit: int) -> None:
        self.limit, self._calls = limit, deque()

    def allows(self) -> bool:
        now = time.monotonic()
        while self._calls and self._calls[0] <= now - 1:
            self._calls.popleft()
        if len(self._calls) >= self.limit:
            return False
        self._calls.append(now)
        return True


class NoLimit:
    """For tests whose clients do not wait."""

    def allows(self) -> bool:
        return True


class Bucket:
    """`limit` calls an hour, refilled evenly."""

    def __init__(self, limit: int) -> None:
        self.limit, self._left, self._at = limit, float(limit), time.monotonic()

    def allows(self) -> bool:
        now = time.monotonic()
        self._left = min(self.limit, self._left + (now - self._at) * self.limit / 3600)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
