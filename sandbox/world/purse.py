"""Purse: what each holder can spend, so that no balance of the world ever goes negative.

Money can be spent only once the vendor shows it: an inflow counts from the moment it is
visible and settled, an outflow from the moment it happens. Hence the sum over visible rows
is never negative, whatever the moment asked for and however late rows appear.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from heapq import heappop, heappush


class Purse:
    def __init__(self) -> None:
        self._held: dict[Hashable, dict] = defaultdict(dict)
        self._coming: list = []
        self._count = 0

    def put(self, holder: Hashable, asset: Hashable, units: int, when: int) -> None:
        self._count += 1
        heappush(self._coming, (when, self._count, holder, asset, units))

    def held(self, holder: Hashable, now: int) -> dict:
        """Spendable units by asset; in order of first arrival, so choices are repeatable."""
        while self._coming and self._coming[0][0] <= now:
            _, _, whose, asset, units = heappop(self._coming)
            mine = self._held[whose]
            mine[asset] = mine.get(asset, 0) + units
        return self._held[holder]

    def take(self, holder: Hashable, asset: Hashable, units: int, now: int) -> None:
        held = self.held(holder, now)
        left = held.get(asset, 0) - units
        if left < 0:
            raise ValueError(f"{holder} cannot pay {units} of {asset}: short by {-left}")
        held[asset] = left
