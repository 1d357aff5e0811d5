"""Moments: whole seconds since 1970 inside the sandbox, ISO 8601 and RFC 1123 outside."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import formatdate

DAY = 86_400
NEVER = 2**63  # later than any moment, that of "everything generated so far" (2**62) too
Moment = int | str | datetime


def micros(value: Moment) -> int:
    """Microseconds since 1970 of ISO text (UTC unless it says otherwise), a datetime or seconds."""
    if isinstance(value, int):
        return value * 1_000_000
    if isinstance(value, str):
        # A "+" of a zone arrives as a blank when a client forgot to quote it.
        text = value.strip().replace("Z", "+00:00")
        value = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    past = value - datetime(1970, 1, 1, tzinfo=UTC)
    return (past.days * DAY + past.seconds) * 1_000_000 + past.microseconds


def seconds(value: Moment) -> int:
    """The last whole second not after `value`."""
    return micros(value) // 1_000_000


def ceil_seconds(value: Moment) -> int:
    """The first whole second not before `value`: `t < value` and `t < ceil` agree for whole t."""
    return -(-micros(value) // 1_000_000)


def iso(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def iso_micros(moment: int) -> str:
    whole, part = divmod(moment, 1_000_000)
    return f"{iso(whole)[:-1]}.{part:06d}Z"


def http_date(moment: int) -> str:
    return formatdate(moment, usegmt=True)


class Clock:
    """The sandbox's now: frozen, or running with the wall clock (`tick`), and settable."""

    def __init__(self, now: Moment, tick: bool = False) -> None:
        self.tick = tick
        self.set(now)

    def set(self, now: Moment) -> None:
        self._now, self._set_at = seconds(now), time.monotonic()

    def now(self) -> int:
        if not self.tick:
            return self._now
        return self._now + int(time.monotonic() - self._set_at)
