"""What the head of an answer says: the vendor's clock, the wait it asks for, and the error that its
status stands for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

from extract.core.errors import ExtractError, Fatal, RateLimited, Retriable
from extract.core.interval import UTC, utc

AHEAD_S = 600.0  # a vendor's clock further ahead of ours is not believed; see believed_ahead_s


def _date(headers: Mapping[str, str]) -> datetime | None:
    """What the Date header says, None where it says nothing that can be read."""
    try:
        return utc(parsedate_to_datetime(headers.get("Date") or headers["date"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def now() -> datetime:
    """This machine's clock, in UTC."""
    return datetime.now(UTC)


def skew(headers: Mapping[str, str]) -> float:
    """Seconds by which the vendor's clock is ahead of this machine's; 0 where it says none."""
    said = _date(headers)
    return (said - now()).total_seconds() if said else 0.0


def believed_ahead_s() -> float:
    """Seconds that a vendor's clock may be ahead of this machine's: $CLOCK_AHEAD_S, else AHEAD_S."""
    return float(os.environ.get("CLOCK_AHEAD_S") or AHEAD_S)


def vendor_clock(headers: Mapping[str, str]) -> datetime:
    """The instant of the answer by the vendor's own clock (Date header), else by ours.

    By ours too where the vendor's is more than believed_ahead_s ahead of it: of two versions of a row
    that of the later clock stays, so one answer from next year would freeze its rows until then.
    """
    said, ours = _date(headers), now()
    far = said is not None and (said - ours).total_seconds() > believed_ahead_s()
    return ours if said is None or far else said


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for, None without one; a date is read by the vendor's clock."""
    asked = str(headers.get("Retry-After") or headers.get("retry-after") or "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked)
    try:
        until = utc(parsedate_to_datetime(asked))
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, (until - (_date(headers) or now())).total_seconds())


def failed(status: int, text: str, headers: Mapping[str, str]) -> ExtractError:
    """The error that an HTTP status above 399 stands for, by what the caller should do next."""
    text = f"HTTP {status}: {text[:300] or 'no body'}"
    if status == 429:
        return RateLimited(text, asked_wait(headers), status=status)
    if status >= 500 or status in (408, 425):
        return Retriable(text, status=status)
    return Fatal(text, status=status)
