"""adjustments.toml and rebasing.toml, beside accounts.toml: what a person knows of a difference.

entries() -> (entries, {name of an entry: why it is refused})
bands()   -> {chain:token: largest change a day, a share}
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from ledgerhouse.config import accounts_file

SHIPPED = Path(__file__).parents[1] / "rebasing.toml"
FIELDS = ("source", "account", "token", "amount", "kind", "evidence")
TIMES = ("from", "to", "at")
KIND = re.compile(r"[a-z][a-z0-9_]{0,40}")
RESERVED = ("opening_inferred", "rebase", "spam", "nft")
LARGEST = Decimal(10) ** 20
DIGITS = 18
TICK = timedelta(microseconds=1)  # what is dated a tick before a snapshot is part of it


@dataclass(frozen=True)
class Entry:
    """One [[adjustment]]: `ts`, naive UTC, is when it is booked; `name` is what messages call it."""

    name: str
    source: str
    account: str
    token: str
    ts: datetime
    amount: Decimal
    kind: str
    evidence: str
    note: str | None


def adjustments_file() -> Path:
    """The file of a person's adjustments; it need not be there."""
    return accounts_file().with_name("adjustments.toml")


def entries(path: Path | None = None) -> tuple[list[Entry], dict[str, str]]:
    """The entries that can be read, and by name why the others are refused."""
    path = path or adjustments_file()
    content = _read(path)
    if isinstance(content, str):
        return [], {str(path): content}
    blocks = content.get("adjustment", [])
    if set(content) - {"adjustment"} or not isinstance(blocks, list):
        return [], {str(path): "it may hold [[adjustment]] blocks only, with two brackets"}
    good: list[Entry] = []
    wrong: dict[str, str] = {}
    for number, block in enumerate(blocks, 1):
        name = f"{path.name}, [[adjustment]] number {number}"
        try:
            entry = _entry(name, block)
        except ValueError as error:
            wrong[name] = str(error)
            continue
        key = (entry.source, entry.account, entry.token, entry.ts, entry.kind)
        twin = next((e for e in good if (e.source, e.account, e.token, e.ts, e.kind) == key), None)
        if twin:
            wrong[name] = f"it has account, token, time and kind of {twin.name}: make them one"
        else:
            good.append(entry)
    return good, wrong


def bands() -> dict[str, Decimal]:
    """By chain:token the largest change of a rebasing token a day, as a share of it.

    Raises ValueError where the user's rebasing.toml cannot be read.
    """
    found: dict[str, Decimal] = {}
    for path in (SHIPPED, accounts_file().with_name("rebasing.toml")):
        content = _read(path)
        tokens = content.get("tokens", {}) if isinstance(content, Mapping) else None
        if not isinstance(tokens, dict) or set(content) - {"tokens"}:
            why = f": {content}" if isinstance(content, str) else ""
            raise ValueError(
                f'{path} may hold [tokens] only, with lines like "eth:0xae7a…" = 0.1{why}'
            )
        for token, percent in tokens.items():
            if ":" not in token or isinstance(percent, bool) or not _is_percent(percent):
                raise ValueError(
                    f"{path}: {token!r} = {percent!r}; write chain:token = the largest change a "
                    "day in percent, more than 0 and at most 100"
                )
            found[token.lower()] = Decimal(percent) / 100
    return found


def _is_percent(value: Any) -> bool:
    return isinstance(value, (int, Decimal)) and 0 < value <= 100


def _read(path: Path) -> dict[str, Any] | str:
    """The content, {} where there is no file, or why it cannot be read."""
    try:
        return tomllib.loads(path.read_text(), parse_float=Decimal)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        return f"it cannot be read: {error}"


def _entry(name: str, block: Any) -> Entry:
    """Raises ValueError saying what is wrong with the block."""
    if not isinstance(block, dict):
        raise ValueError("it is no block")
    if unknown := set(block) - {*FIELDS, *TIMES, "note"}:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}; there are {_known()}")
    for field in FIELDS:
        if not isinstance(block.get(field), str) or not block[field].strip():
            raise ValueError(f"it needs {field}, as text in quotation marks; there are {_known()}")
    if not KIND.fullmatch(block["kind"]) or block["kind"] in RESERVED:
        raise ValueError(
            f"kind {block['kind']!r}: write a word in small letters, such as l1_data_fee, and none "
            f"of {', '.join(RESERVED)}"
        )
    try:
        amount = Decimal(block["amount"])
        fits = amount.is_finite() and amount == round(amount, DIGITS) and 0 < abs(amount) < LARGEST
    except (InvalidOperation, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"amount {block['amount']!r}: write a number of at most {DIGITS} digits after the "
            "point, not 0, negative where the balance falls"
        )
    if ("at" in block) == ("to" in block):
        raise ValueError("it needs either `at`, or `from` and `to`, the window of the break")
    # The window of a break ends with the first snapshot that shows it.
    ts = _time(block, "at") if "at" in block else _time(block, "to") - TICK
    if "from" in block and _time(block, "from") > ts:
        raise ValueError("`from` is after `to`")
    token = block["token"].lower() if ":" in block["token"] else block["token"]
    if note := block.get("note"):
        note = str(note)
    return Entry(
        name,
        block["source"],
        block["account"],
        token,
        ts,
        amount,
        block["kind"],
        block["evidence"],
        note,
    )


def _time(block: dict[str, Any], field: str) -> datetime:
    value = block[field]
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{field} {block[field]!r}: write a time like 2026-03-01T06:00:00Z"
        ) from None
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def _known() -> str:
    return ", ".join((*FIELDS, *TIMES, "note"))
