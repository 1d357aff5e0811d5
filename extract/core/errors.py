"""Errors of a fetch, named by what the caller does next.

    ExtractError
    ├── Retriable            wait and ask again (bounded): network, 5xx, broken answer
    │   ├── RateLimited      the same, honouring Retry-After
    │   ├── NotJson          the answer is cut off, or not from an API at all
    │   └── DeadlineExceeded the answer took longer than a call may
    └── Fatal                asking again cannot help: wrong key, forbidden, bad request
        ├── Redirected       the host sends on to another, which is not asked
        ├── BodyTooLarge     the answer is larger than what we read
        ├── Unforeseen       a call failed in a way that its source does not know
        └── FetchStopped     no call may be paid now; what was read before is good, and kept
            ├── UnitsExhausted   prepaid units are used up: refill, then run again
            └── BudgetReached    the next call would pass a limit of ours: wait, or raise it

A source sends one HTTP request in `send()` and raises one of these; the client decides the rest.
"""

from __future__ import annotations

from datetime import datetime

from extract.core.source import Fetched


class ExtractError(Exception):
    """Base of every error a fetch can end with; the text never holds a secret.

    `status` is the HTTP status of the answer, None where there was none; `sent` is False where no
    request can have left this machine; `skew_s` is by how much the vendor's clock is ahead of
    this machine's, where that may be why a signature was refused.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        sent: bool = True,
        skew_s: float = 0.0,
    ):
        super().__init__(message)
        self.status, self.sent, self.skew_s = status, sent, skew_s


class Retriable(ExtractError):
    """The same call may succeed later."""


class RateLimited(Retriable):
    """Too many calls; `wait_s` is what the vendor asked for, if it did."""

    def __init__(
        self, message: str = "", wait_s: float | None = None, *, status: int | None = None
    ):
        super().__init__(message, status=status)
        self.wait_s = wait_s


class NotJson(Retriable):
    """The answer says that all is well, and is no JSON: cut off, or somebody else's."""


class DeadlineExceeded(Retriable):
    """The answer was not whole by the deadline of a call, however steadily it came."""


class Fatal(ExtractError):
    """The same call will fail again until somebody changes something."""


class Redirected(Fatal):
    """The host answers by sending on to another address. None is followed, by no source."""


class BodyTooLarge(Fatal):
    """The answer is larger, as sent or unpacked, than what is read of one."""


class Unforeseen(Fatal):
    """A call was sent, and failed in a way that its source does not know: a gap in our code."""


class FetchStopped(Fatal):
    """No further call may be paid for now. `partial`: what the fetch had read whole, to be landed."""

    partial: Fetched | None = None


class UnitsExhausted(FetchStopped):
    """The vendor's prepaid units are used up."""


class BudgetReached(FetchStopped):
    """The next call would pass a limit of the budget; it was not sent."""

    def __init__(
        self,
        message: str,
        source: str,
        measure: str,
        period: str,
        allowed: int,
        spent: int,
        opens_at: datetime,
    ):
        super().__init__(message)
        self.source, self.measure, self.period = source, measure, period
        self.allowed, self.spent, self.opens_at = allowed, spent, opens_at
