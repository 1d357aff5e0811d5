"""JSON records that carry a checksum of their own text, so that a changed bit is noticed.

    seal({"a": 1})   →   {"a":1,"sum":"015abd7f5cc57a2d"}
    unseal(text)     →   {"a": 1}, or Damaged

The sum is the beginning of the SHA-256 of the text without it. A record without one is of an older
version and is read as it is. Readers of older versions meet one more field.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FIELD = "sum"
SEALED = re.compile(rb'(.*),"sum":"([0-9a-f]{16})"\}', re.DOTALL)


class Damaged(ValueError):
    """A file or a record is not as it was written; the message says in which way."""


def seal(record: Mapping[str, Any]) -> str:
    """The record, which has a field or more, as one line of JSON with its sum."""
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
    return f'{text[:-1]},"{FIELD}":"{_sum(text[:-1].encode())}"}}'


def unseal(text: bytes | str) -> dict[str, Any]:
    """The record of a text, without its sum; raises Damaged where it is not as it was written."""
    data = (text.encode() if isinstance(text, str) else text).rstrip(b"\n")
    if not data.strip():
        raise Damaged("it is empty")
    match = SEALED.fullmatch(data)
    if match and _sum(match[1]) != match[2].decode():
        raise Damaged("it is not what was written: its checksum is another one")
    try:
        record = json.loads(data)
    except ValueError:
        raise Damaged("it is no whole record of JSON") from None
    if not isinstance(record, dict):
        raise Damaged("it is JSON, but no record")
    # A changed bit in the name of the field must not make a record of an older version of it.
    if not match and any(_near(name) for name in record):
        raise Damaged("it is not what was written: its checksum cannot be read")
    record.pop(FIELD, None)
    return record


def is_intact(text: bytes) -> bool:
    """Whether a text is a record that carries its sum and is as it was written."""
    match = SEALED.fullmatch(text)
    return match is not None and _sum(match[1]) == match[2].decode()


def read(file: Path) -> dict[str, Any]:
    """The record in a file of one record; raises Damaged, also where it cannot be read at all."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Damaged(f"it cannot be read: {error.strerror}") from None
    return unseal(data)


def lines(file: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | Damaged]]:
    """Every line of a file of records: its number from 1, its text, and the record or what is
    wrong with it. Empty lines are passed."""
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if line:
            try:
                yield number, line, unseal(line)
            except Damaged as error:
                yield number, line, error


def _sum(data: bytes) -> str:
    return hashlib.sha256(data + b"}").hexdigest()[:16]


def _near(name: str) -> bool:
    return len(name) == len(FIELD) and sum(a != b for a, b in zip(name, FIELD)) <= 1
