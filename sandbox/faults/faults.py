"""Faults on demand: what an API does to its callers on a bad day, by name, from a seed.

    --faults chaos:0.2            at any call, one of the passing faults, one call in five
    --faults cut:0.1,clock_skew   several at once; a call suffers the first that occurs

Whether a fault occurs depends on the seed, its name, the vendor and the number of the call
alone. A passing fault hits one and the same call at most LONGEST_RUN times running, so six
tries survive any of them; `key_revoked` and `units_exhausted` last until they are turned off.
Those of a hostile host (HOSTILE, `sandbox.faults.hostile`, and `future_date`) are no part of chaos:
a client may give up at some of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from starlette.responses import Response

from sandbox.faults.spoil import SPOILED
from sandbox.vendor import Vendor
from sandbox.vendors import all_vendors
from sandbox.world.moments import http_date

LONGEST_RUN = 3

# Answers given instead of the vendor's own: (status shown, status of the HTTP answer).
_INSTEAD = {
    "rate_limited": (429, 429),
    "rate_limited_silent": (429, 429),
    "server_errors": (500, 500),
    "error_body": (500, 200),
    "key_revoked": (401, 401),
    "key_revoked_body": (401, 200),
    "units_exhausted": (403, 403),
    "units_exhausted_body": (403, 200),
}
LASTING = ("key_revoked", "key_revoked_body", "units_exhausted", "units_exhausted_body")
TRANSIENT = (
    "rate_limited",
    "rate_limited_silent",
    "server_errors",
    "timeouts",
    "cut",
    "error_body",
    *SPOILED,
)
HOSTILE = ("drip", "endless", "bomb", "redirect", "deep_json")
PASSING = (*TRANSIENT, *HOSTILE)
# These do not spoil an answer: the Date header is off, or the world itself moves on.
WORLDLY = ("clock_skew", "future_date", "changing_rows", "vanishing")
PROFILES = ("none", "chaos", *PASSING, *WORLDLY, *LASTING)
RATES = {"chaos": 0.15, "vanishing": 0.01} | dict.fromkeys(PASSING, 0.3)  # others: every call
YEAR = 365 * 86_400


@dataclass
class Rule:
    """`count` faults are left (None: without end), after `after` calls that pass unharmed."""

    name: str
    rate: float
    vendor: str | None = None
    count: int | None = None
    after: int = 0


@dataclass(frozen=True)
class Fault:
    """One fault of one call: its kind, and the draws that belong to this call."""

    kind: str
    rng: Random
    rule: Rule


def parse(text: str, **more) -> list[Rule]:
    """Rules of NAME[:rate][,NAME[:rate]…]; ValueError names what is wrong and what there is."""
    rules = []
    for part in (part.strip() for part in text.split(",")):
        name, _, rate = part.partition(":")
        if name not in PROFILES:
            raise ValueError(f"unknown fault profile {name!r}; there are {', '.join(PROFILES)}")
        try:
            share = float(rate or RATES.get(name, 1.0))
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ValueError(
                f"the rate of {part!r} is not between 0 and 1; write it like {name}:0.2"
            )
        if name != "none":
            rules.append(Rule(name, share, **more))
    return rules


class Faults:
    """Which call suffers what. `injected[vendor, kind]` counts what really happened."""

    def __init__(
        self,
        seed: int,
        text: str = "none",
        hold: float = 35.0,
        pause: float = 1.0,
        vendors: Iterable[str] | None = None,
    ) -> None:
        self.seed, self.hold, self.pause = seed, hold, pause
        self.vendors = tuple(all_vendors() if vendors is None else vendors)
        self.injected: Counter = Counter()
        self.set(text)

    def set(
        self,
        profile: str = "none",
        rate: float | None = None,
        vendor: str | None = None,
        count: int | None = None,
        after: int = 0,
    ) -> None:
        """Replace what is set for `vendor` (None: all); `rate` is that of every profile named."""
        if vendor not in (None, *self.vendors):
            known = ", ".join(self.vendors)
            raise ValueError(f"vendor is {vendor!r}; write {known} or null for all")
        rules = parse(profile, vendor=vendor, count=count, after=int(after))
        if rate is not None:
            if not 0 <= float(rate) <= 1:
                raise ValueError(f"rate is {rate}, not between 0 and 1")
            for rule in rules:
                rule.rate = float(rate)
        others = [] if vendor is None else [r for r in self.rules if r.vendor != vendor]
        self.rules = others + rules
        self._calls: Counter = Counter()  # by rule and vendor
        self._running: Counter = Counter()  # faults in a row, by call

    def draw(self, vendor: str, call: str) -> list[Fault]:
        """What the vendor's next call suffers: any that are WORLDLY, then at most one other."""
        faults: list[Fault] = []
        for rule in self.rules:
            if rule.vendor not in (None, vendor) or rule.count == 0:
                continue
            self._calls[rule.name, vendor] += 1
            number = self._calls[rule.name, vendor]
            rng = Random(f"ledgerhouse/{self.seed}/faults/{rule.name}/{vendor}/{number}")
            if number <= rule.after or rng.random() >= rule.rate:
                continue
            kind = rng.choice(TRANSIENT) if rule.name == "chaos" else rule.name
            if kind in WORLDLY:
                faults.insert(0, Fault(kind, rng, rule))
            elif (not faults or faults[-1].kind in WORLDLY) and (
                kind in LASTING or self._running[vendor, call] < LONGEST_RUN
            ):
                faults.append(Fault(kind, rng, rule))
        return faults

    def done(self, vendor: str, call: str, injected: list[Fault]) -> None:
        """The call is answered and really suffered these."""
        for fault in injected:
            self.injected[vendor, fault.kind] += 1
            if fault.rule.count:
                fault.rule.count -= 1
        if any(fault.kind in PASSING for fault in injected):
            self._running[vendor, call] += 1
        else:
            self._running.pop((vendor, call), None)

    def listed(self) -> list[dict]:
        return [vars(rule) for rule in self.rules]

    def stats(self) -> dict:
        return {
            v: {kind: n for (of, kind), n in sorted(self.injected.items()) if of == v}
            for v in self.vendors
        }


def instead(fault: Fault, vendor: Vendor, path: str, now: int) -> Response | None:
    """The answer that stands in for the vendor's, or None where the vendor has no such fault.

    Retry-After comes in seconds or as an HTTP date, by the sandbox's clock.
    """
    if fault.kind not in _INSTEAD or ("units" in fault.kind and not vendor.sells_units):
        return None
    shown, status = _INSTEAD[fault.kind]
    if fault.kind == "error_body":
        shown = fault.rng.choice((429, 500))
    answer = vendor.error(shown, path)
    answer.status_code = status
    if fault.kind == "rate_limited":
        wait = fault.rng.randrange(1, 8)
        answer.headers["Retry-After"] = (
            str(wait) if fault.rng.random() < 0.5 else http_date(now + wait)
        )
    return answer


def skew(fault: Fault, now: int) -> int:
    """Seconds the Date header is off `now`: 2 to 20 minutes, ahead or behind; `future_date` is a
    year ahead of the real time, whatever the sandbox's own."""
    if fault.kind == "future_date":
        return int(time.time()) + YEAR - now
    return fault.rng.choice((-1, 1)) * fault.rng.randrange(120, 1200)
