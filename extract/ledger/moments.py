"""Moments in the units that exchanges ask and answer in, without a float."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from extract.core.interval import UTC
from extract.core.records import time_of
from extract.core.sql import time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# No record of an exchange is older: a time before it is one in another unit, and is none.
OLDEST = datetime(2009, 1, 3, tzinfo=UTC)
# What is asked for more on either side; datetimes end at microseconds.
STEP = {
    "s": timedelta(seconds=1),
    "text": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
    "ns": timedelta(microseconds=1),
}


def in_unit(moment: datetime, unit: str, *, up: bool = False) -> int | str:
    """A moment in a unit, rounded down, or `up`; ISO text for "text"."""
    micros = (moment - EPOCH) // timedelta(microseconds=1)
    if unit == "text":
        seconds = -(-micros // 10**6) if up else micros // 10**6
        return (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    scaled = micros * PER_SECOND[unit]
    return -(-scaled // 10**6) if up else scaled // 10**6


def moment_of(value: Any, unit: str) -> datetime | None:
    """The moment that a record states; None for what is none."""
    if unit == "text":
        return time_of(value)
    try:
        micros = Decimal(str(value)) * 10**6 / PER_SECOND[unit]
        moment = EPOCH + timedelta(microseconds=int(micros))
        return moment if moment >= OLDEST else None
    except (InvalidOperation, ValueError, OverflowError):
        return None


def sql(text: str, unit: str) -> str:
    """SQL of a record's time as TIMESTAMP in UTC, as moment_of reads it; NULL for what is none."""
    if unit == "text":
        return time(text)
    # Without "/", which would be a division of doubles.
    digits = f"TRY_CAST({text} AS DECIMAL(38,9))"
    micros = (
        f"trunc({digits} * {10**6 // PER_SECOND[unit]})"
        if unit != "ns"
        else (f"(TRY_CAST(trunc({digits}) AS HUGEINT) // 1000)")
    )
    oldest = (OLDEST - EPOCH) // timedelta(microseconds=1)
    return f"CASE WHEN {micros} >= {oldest} THEN make_timestamp(TRY_CAST({micros} AS BIGINT)) END"
