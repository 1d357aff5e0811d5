"""One call at a time: paced, retried within bounds, logged. The only place that sleeps.

    ExtractError
    ├── Retriable            wait and ask again (bounded): network, 5xx, broken answer
    │   └── RateLimited      the same, honouring Retry-After
    └── Fatal                asking again cannot help: wrong key, forbidden, bad request
        └── UnitsExhausted   prepaid units are used up: refill, then run again

A source sends one HTTP request in `send()` and raises one of these; everything else about
calling (when, how often, what is written down) is decided here.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

from extract.source import UTC, utc

log = logging.getLogger(__name__)

TRIES = 6          # waits of 0.5, 1, 2, 4, 8 s: half a minute of trouble is survived in place
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
TIMEOUT_S = 30.0


class ExtractError(Exception):
    """Base of every error a fetch can end with; the text never holds a secret."""


class Retriable(ExtractError):
    """The same call may succeed later."""


class RateLimited(Retriable):
    """Too many calls; `wait_s` is what the vendor asked for, if it did."""

    def __init__(self, message: str, wait_s: float | None = None):
        super().__init__(message)
        self.wait_s = wait_s


class Fatal(ExtractError):
    """The same call will fail again until somebody changes something."""


class UnitsExhausted(Fatal):
    """The vendor's prepaid units are used up."""


@dataclass(frozen=True)
class Answer:
    """One good answer: the wire's text, the same parsed, and the vendor's clock."""

    status: int
    body: str
    data: Any
    received_at: datetime
    rows: int | None = None
    units_left: int | None = None


@dataclass
class Bucket:
    """A token bucket: `rate` calls a second on average, `burst` at once."""

    rate: float
    burst: float = 1.0
    level: float | None = None
    at: float = 0.0

    def delay(self, now: float) -> float:
        """Take one token at monotonic time `now`; seconds to wait before it may be used."""
        if self.level is None:
            self.level, self.at = self.burst, now
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        self.level -= 1.0
        return max(0.0, -self.level / self.rate) if self.level < 0 else 0.0


class Client:
    """Calls one account of one source makes. `record` gets a dict per HTTP request, also failed.

    `rates` maps an endpoint prefix to (calls a second, burst); the longest match counts.
    `units` maps an endpoint to its price; `secrets` are struck out of every error text.
    """

    def __init__(
        self, source: str, account: str, *, rates: Mapping[str, tuple[float, float]],
        units: Mapping[str, int], record: Callable[[dict], None] = lambda call: None,
        secrets: tuple[str, ...] = (), tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep, timer: Callable[[], float] = time.monotonic,
    ):
        self.source, self.account = source, account
        self.calls = self.units_spent = 0
        self._buckets = {prefix: Bucket(*rate) for prefix, rate in rates.items()}
        self._units, self._record, self._tries = units, record, tries
        self._secrets = tuple(s for s in secrets if s)
        self._sleep, self._timer = sleep, timer

    def call(self, endpoint: str, send: Callable[[], Answer]) -> Answer:
        """One answer from `endpoint`, asked up to `tries` times.

        Raises Fatal at once, or the last Retriable after the tries are used up.
        """
        for attempt in range(1, self._tries + 1):
            self._pace(endpoint)
            started = self._timer()
            try:
                answer = send()
            except ExtractError as error:
                self._log(endpoint, started, status=getattr(error, "status", None), error=error)
                if isinstance(error, Fatal) or attempt == self._tries:
                    raise self._explained(error, endpoint, attempt) from None
                wait = self._backoff(error, attempt)
                log.warning("%s %s: %s; asking again in %.1f s (try %d of %d)", self.source,
                            endpoint, self._clean(error), wait, attempt, self._tries)
                self._sleep(wait)
            else:
                self._log(endpoint, started, status=answer.status, rows=answer.rows,
                          units=self._units.get(endpoint, 0), units_left=answer.units_left)
                return answer
        raise AssertionError("unreachable")

    def _pace(self, endpoint: str) -> None:
        prefixes = [p for p in self._buckets if endpoint.startswith(p)]
        if prefixes and (wait := self._buckets[max(prefixes, key=len)].delay(self._timer())):
            self._sleep(wait)

    def _backoff(self, error: Retriable, attempt: int) -> float:
        asked = getattr(error, "wait_s", None)
        if asked is not None:
            return min(asked, LONGEST_WAIT_S)
        # Half fixed, half drawn: callers that failed together do not come back together.
        return min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)

    def _clean(self, error: Exception) -> str:
        text = " ".join(str(error).split())[:500]
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _explained(self, error: ExtractError, endpoint: str, attempt: int) -> ExtractError:
        error.args = (
            f"{self.source} account {self.account}, {endpoint}: {self._clean(error)}"
            + (f" (after {attempt} tries)" if attempt > 1 else ""),
        )
        return error

    def _log(self, endpoint: str, started: float, *, status: int | None, rows: int | None = None,
             units: int = 0, units_left: int | None = None, error: Exception | None = None) -> None:
        self.calls += 1
        self.units_spent += units
        self._record({
            "call_id": uuid4().hex, "called_at": datetime.now(UTC).isoformat(), "source": self.source,
            "account": self.account, "endpoint": endpoint, "status": status,
            "duration_ms": round((self._timer() - started) * 1000), "rows": rows, "units": units,
            "units_left": units_left, "error": self._clean(error) if error else None,
        })


def vendor_clock(headers: Mapping[str, str]) -> datetime:
    """The instant of the answer by the vendor's own clock (Date header), else by ours."""
    try:
        return utc(parsedate_to_datetime(headers.get("Date") or headers["date"]))
    except (KeyError, TypeError, ValueError):
        return datetime.now(UTC)


def failed(status: int, text: str, headers: Mapping[str, str]) -> ExtractError:
    """The error that an HTTP status above 399 stands for, by what the caller should do next."""
    text = f"HTTP {status}: {text[:300] or 'no body'}"
    error: ExtractError
    if status == 429:
        asked = headers.get("Retry-After", "")
        error = RateLimited(text, float(asked) if asked.isdigit() else None)
    elif status >= 500 or status in (408, 425):
        error = Retriable(text)
    else:
        error = Fatal(text)
    error.status = status
    return error
