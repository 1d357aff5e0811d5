"""The client of a source's API: paces, retries and logs every call. The only place that sleeps.

A source sends one HTTP request in `send()` and raises one of `extract.core.errors`; everything
else about calling (when, how often, how many at once, what is written down) is decided here.
"""

from __future__ import annotations

import logging
import random
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Protocol
from uuid import uuid4

from extract.core.errors import (
    ExtractError,
    Fatal,
    FetchStopped,
    RateLimited,
    Unforeseen,
)
from extract.core.interval import UTC
from extract.core.redact import redact
from extract.core.source import Fetched, Job, Rate, Source
from extract.core.text import visible
from extract.fetch.answer_head import believed_ahead_s
from extract.fetch.patience import Patience
from extract.fetch.rate_limits import Bucket, Pacing, Window

log = logging.getLogger(__name__)
TRIES = 6  # waits of 0.5, 1, 2, 4, 8 s: half a minute of trouble is survived in place
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
WORKERS = 8  # at 80 ms a call, 100 calls a second


class Budget(Protocol):
    """What a call must be reserved in before it is sent (see ledgerhouse.plan.budget.Ledger)."""

    def reserve(self, units: int) -> tuple[str, datetime]: ...

    def settle(self, call_id: str, units: int) -> None: ...


class _NoBudget:
    """A budget without a limit: every call may be sent."""

    def reserve(self, units: int) -> tuple[str, datetime]:
        return uuid4().hex, datetime.now(UTC)

    def settle(self, call_id: str, units: int) -> None:
        pass


@dataclass(frozen=True)
class Answer:
    """A successful response: its text, the same parsed, and the vendor's clock.

    `received_at` is at most believed_ahead_s ahead of this machine's clock; `skew_s` is by how much
    the vendor's is ahead of it, whatever it says.
    """

    status: int
    body: str
    data: Any
    received_at: datetime
    rows: int | None = None
    units_left: int | None = None
    skew_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


class _Stopped(Exception):
    """Another thread of this client has failed: this one makes no further call."""


class Client:
    """The calls of one account of one source. `record` gets a dict per HTTP request, also failed.

    `rates` are the vendor's limits by endpoint prefix, or the Pacing that clients of one key
    share; `units` maps an endpoint to its price; `secrets` are redacted from every error text;
    `budget` is asked before every request, retries too, and raises BudgetReached.
    Safe for several threads, whose calls share the limits; `record` is called by one at a time.
    """

    def __init__(
        self,
        source: str,
        account: str,
        *,
        rates: Mapping[str, Rate] | Pacing,
        units: Mapping[str, int],
        record: Callable[[dict], None] = lambda call: None,
        secrets: tuple[str, ...] = (),
        tries: int = TRIES,
        budget: Budget | None = None,
        sleep: Callable[[float], Any] | None = None,
        timer: Callable[[], float] = time.monotonic,
    ):
        self.source, self.account = source, account
        self.calls = self.units_spent = 0
        self._pacing = rates if isinstance(rates, Pacing) else Pacing(rates)
        self._units, self._record, self._tries = units, record, tries
        self._secrets = tuple(s for s in secrets if s)
        self._budget = budget or _NoBudget()
        self._stopped, self._lock, self._warned = Event(), Lock(), False
        self._patience = Patience()
        # Waiting for the event, not time.sleep: who sleeps is woken when another has failed.
        self._sleep, self._timer = sleep or self._stopped.wait, timer

    def call(
        self, endpoint: str, send: Callable[[], Answer], *, tries: int | None = None
    ) -> Answer:
        """One answer from `endpoint`, asked up to `tries` times (the client's, or fewer; a limit
        concerns all calls, and is waited for as often as the client does).

        Raises Fatal without another try (Unforeseen for what `send` does not know), or the last
        Retriable after the tries are used up, or where the host has answered nothing to any call for
        PATIENCE_S: then no further call is sent. Every request that was sent leaves a line in the log.
        """
        limiter, price = self._pacing.of(endpoint), self._units.get(endpoint, 0)
        fewer = min(tries or self._tries, self._tries)
        for attempt in range(1, self._tries + 1):
            self._pace(limiter)
            started = self._timer()
            try:
                self._patience.require()
            except ExtractError as gone:
                if limiter:
                    limiter.answered(started)
                raise self._explained(gone, endpoint, 1) from None
            try:
                reserved = self._budget.reserve(price)
            except BaseException:
                if limiter:
                    limiter.answered(started)
                raise
            try:
                try:
                    answer = send()
                finally:
                    if limiter:
                        limiter.answered(self._timer())
            except Exception as raised:
                error = raised if isinstance(raised, ExtractError) else _unforeseen(raised)
                self._log_failed(endpoint, started, reserved, price, error)
                is_given_up = self._patience.failed(error, started, self._timer())
                wait = self._backoff(error, attempt)
                most = self._tries if isinstance(error, RateLimited) else fewer
                if limiter and isinstance(error, RateLimited):
                    limiter.hold(self._timer() + wait)  # the limit is everybody's
                if isinstance(error, Fatal) or attempt >= most or is_given_up:
                    raise self._explained(error, endpoint, attempt) from None
                log.warning(
                    "%s %s: %s; asking again in %.1f s (try %d of %d)",
                    self.source,
                    endpoint,
                    self.clean(error),
                    wait,
                    attempt,
                    most,
                )
                self._sleep(wait)
            except BaseException as stop:  # the task is ended from outside; the call was sent
                self._log_failed(endpoint, started, reserved, price, stop)
                raise
            else:
                self._patience.answered()
                self._warn_of_clock(answer.skew_s)
                self._log(
                    endpoint,
                    started,
                    reserved,
                    status=answer.status,
                    rows=answer.rows,
                    units=price,
                    units_left=answer.units_left,
                    answered_at=answer.received_at,
                )
                return answer
        raise AssertionError("unreachable")

    def run_concurrently(
        self, work: Callable[[Any, Callable[[Any], bool]], None], first: Any, workers: int = WORKERS
    ) -> None:
        """Run `work(item, fork)` on `first`, and on every item forked meanwhile, up to `workers`
        at once; `first` runs in the calling thread, so that without a fork there is no other.

        `fork(item)` begins an item in a thread of its own and returns True; where `workers` are
        busy it returns False and begins nothing. The first error stops all others at their
        next call (or wakes them from a wait) and is raised when every thread has ended.
        """
        threads: list[Thread] = []
        errors: list[BaseException] = []
        busy, lock = 1, Lock()

        def run(item: Any) -> None:
            nonlocal busy
            try:
                work(item, fork)
            except BaseException as error:  # an interrupt of the calling thread, too
                if not isinstance(error, _Stopped):
                    errors.append(error)
                self._stopped.set()
            finally:
                with lock:
                    busy -= 1

        def fork(item: Any) -> bool:
            nonlocal busy
            with lock:
                if busy >= workers or self._stopped.is_set():
                    return False
                busy += 1
                threads.append(Thread(target=run, args=(item,), daemon=True))
                threads[-1].start()
                return True

        try:
            run(first)
            for thread in threads:  # grows while threads fork
                thread.join()
        except BaseException:
            self._stopped.set()
            for thread in threads:
                thread.join()
            raise
        finally:
            self._stopped.clear()
        if errors:
            raise min(
                errors, key=lambda e: (isinstance(e, Exception), not isinstance(e, FetchStopped))
            )

    def _pace(self, limiter: Bucket | Window | None) -> None:
        """Wait until a call may be sent; raises _Stopped where none may be any more."""
        self._go_on()
        if limiter:
            with limiter.turn:  # one waits at the front, the others queue behind it
                self._go_on()
                while wait := limiter.take(self._timer()):
                    self._sleep(wait)
                    self._go_on()

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise _Stopped

    def _backoff(self, error: ExtractError, attempt: int) -> float:
        """Seconds before the next try: what the vendor asked for, or growing with `attempt`."""
        if isinstance(error, RateLimited) and error.wait_s is not None:
            return min(error.wait_s, LONGEST_WAIT_S)
        # Half fixed, half drawn: callers that failed together do not come back together.
        return min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)

    def _warn_of_clock(self, skew_s: float) -> None:
        """Say, once a client, that the vendor's clock is not believed."""
        if skew_s > believed_ahead_s() and not self._warned:
            self._warned = True
            log.warning(
                "%s account %s: the vendor's clock is %.0f s ahead of this machine's, so this "
                "machine's is taken; see which of the two is wrong",
                self.source,
                self.account,
                skew_s,
            )

    def clean(self, error: BaseException) -> str:
        """The error's text on one line, without secrets; control characters are written out."""
        # Redacted before the text is cut or its line ends go: half a secret is one, too.
        text = redact(" ".join(redact(str(error), self._secrets).split()), self._secrets)
        return visible(text)[:500]

    def _explained(self, error: ExtractError, endpoint: str, attempt: int) -> ExtractError:
        error.args = (
            f"{self.source} account {self.account}, {endpoint}: {self.clean(error)}"
            + (f" (after {attempt} tries)" if attempt > 1 else ""),
        )
        return error

    def _log_failed(
        self,
        endpoint: str,
        started: float,
        reserved: tuple[str, datetime],
        price: int,
        error: BaseException,
    ) -> None:
        known = isinstance(error, ExtractError)
        self._log(
            endpoint,
            started,
            reserved,
            status=error.status if known else None,
            units=price if not known or _may_cost(error) else 0,
            error=error if known else _unforeseen(error),
        )

    def _log(
        self,
        endpoint: str,
        started: float,
        reserved: tuple[str, datetime],
        *,
        status: int | None,
        rows: int | None = None,
        units: int = 0,
        units_left: int | None = None,
        answered_at: datetime | None = None,
        error: Exception | None = None,
    ) -> None:
        call = {
            "call_id": reserved[0],
            "called_at": reserved[1].isoformat(),
            "source": self.source,
            "account": self.account,
            "endpoint": endpoint,
            "status": status,
            "duration_ms": round((self._timer() - started) * 1000),
            "rows": rows,
            "units": units,
            "units_left": units_left,
            "error": self.clean(error) if error else None,
            "answered_at": answered_at.isoformat() if answered_at else None,
        }
        with self._lock:
            self.calls += 1
            self.units_spent += units
            self._record(call)
        self._budget.settle(reserved[0], units)


def _may_cost(error: ExtractError) -> bool:
    """Whether the vendor may charge for a call that failed: a refusal (a status above 399) is
    free, and so is what was never sent; an answer that was lost or spoiled on the way is not.
    """
    return error.sent and (error.status is None or error.status < 400)


def fetch(source: Source, client: Client, api: Any, job: Job) -> Fetched:
    """What the source fetches for a job. What it did not foresee in an answer that it has got ends
    as Unforeseen, with the source and the account."""
    try:
        return source.fetch(client, api, job)
    except ExtractError:
        raise
    except Exception as error:
        where = f"{source.name} account {job.account}, {job.interval}"
        raise Unforeseen(f"{where}: {client.clean(_unforeseen(error))}") from None


def _unforeseen(error: BaseException) -> Unforeseen:
    """The error of a call that failed in a way its source does not know, with where it did."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return Unforeseen(
        f"{type(error).__name__}: {error}{where}: an answer is of a kind that this source does not "
        "know; please report it"
    )
