"""Base units of one token or currency: what is reported, what is stated, and what makes the rest."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class Difference:
    """`reported` by the vendor's balances, `stated` by its history; `parts` by kind add up to the
    difference, `steps` say when each came: (moment, kind, units)."""

    reported: int = 0
    stated: int = 0
    turnover: int = 0
    parts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    steps: list[tuple[int, str, int]] = field(default_factory=list)

    def differs(self, kind: str, when: int, units: int) -> None:
        """Because of an event of this kind, by so much."""
        if units:
            self.parts[kind] += units
            self.steps.append((when, kind, units))
