"""The sources: one file per API. A new source is one file here, and its twin in `sandbox/`.

A module of this folder is a source when it has a `SOURCE`; nothing else lists them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from extract.core.datasets import DATASETS
from extract.core.source import Source

ACCOUNT_NAME = re.compile(r"[A-Za-z0-9._@:+-]{1,128}")
CONNECTION_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # also the end of a task's and a pool's name


@dataclass(frozen=True)
class Account:
    """One account of one source, and the Airflow Connection that opens it."""

    source: str
    account: str
    connection: str

    @property
    def pool(self) -> str:
        """The Airflow pool with one slot: one caller per API key."""
        return f"api_{self.connection}"


def names() -> list[str]:
    """Names of the sources in this folder, without importing them."""
    return sorted(f.stem for folder in __path__ for f in Path(folder).glob("*.py")
                  if not f.stem.startswith("_"))


def get(name: str) -> Source:
    """The source called `name`; ValueError with the known ones where there is none."""
    if name not in names():
        raise ValueError(f"unknown source {name!r}; known: {', '.join(names())}. A new one is a "
                         "file in extract/sources/")
    source: Source = import_module(f"extract.sources.{name}").SOURCE
    unknown = set(source.mappings) - set(DATASETS)
    if unknown:
        raise ValueError(f"source {name} maps to unknown datasets {sorted(unknown)}")
    return source


def all_sources() -> dict[str, Source]:
    return {name: get(name) for name in names()}


def read_file(file: str | Path, what: str, fraction: Callable[[str], Any] = float
              ) -> dict[str, Any]:
    """All that an accounts file holds, numbers with a point made by `fraction`.

    Raises ValueError that says why `what` of it cannot be read.
    """
    try:
        return tomllib.loads(Path(file).read_text(), parse_float=fraction)
    except FileNotFoundError:
        raise ValueError(f"there is no {file}: copy accounts.toml of the project there, or let "
                         "LEDGERHOUSE_ACCOUNTS name the file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the {what} in {file}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"cannot read the {what} in {file}: it is not TOML: {error}. Texts stand "
                         'in quotation marks, as in source = "debank"') from None


def read_accounts(file: str | Path) -> tuple[list[Account], dict[int, str]]:
    """The accounts a TOML file lists (see accounts.toml), and by their number in the file, from
    1, what is wrong with the entries that cannot be used: the others can.

    Raises ValueError where nothing can be told: no such file, no TOML, no [[account]].
    """
    listed = read_file(file, "accounts")
    entries = listed.get("account", [])
    if set(listed) - {"account", "budget", "alerts"} or not isinstance(entries, list):
        raise ValueError(f"{file} may hold [[account]] blocks, with two brackets, [budget.…] and "
                         f"[alerts] only; it has {', '.join(sorted(listed))}")
    if not entries:
        raise ValueError(f"{file} lists no [[account]]; see accounts.toml in the project")
    found: list[Account] = []
    wrong: dict[int, str] = {}
    for number, entry in enumerate(entries, 1):
        if why := _wrong(entry, found):
            wrong[number] = f"{file}, [[account]] number {number}: {why}"
        else:
            found.append(Account(**entry))
    return found, wrong


def _wrong(entry: dict, before: list[Account]) -> str | None:
    """Why an entry cannot be used, or None; `before` are those above it."""
    if not isinstance(entry, dict) or set(entry) != {"source", "account", "connection"}:
        has = ", ".join(sorted(entry)) if entry and isinstance(entry, dict) else "nothing"
        return f"it needs exactly source, account and connection; it has {has}"
    if entry["source"] not in names():
        return (f"unknown source {entry['source']!r}; known: {', '.join(names())}. A new one is "
                "a file in extract/sources/")
    for field, legal, signs in (("account", ACCOUNT_NAME, "._@:+-"),
                                ("connection", CONNECTION_ID, "._-")):
        if not isinstance(entry[field], str) or not legal.fullmatch(entry[field]):
            return (f"{field} {entry[field]!r} may hold letters, digits and {signs} only, in "
                    "quotation marks")
    for other in before:
        if (other.source, other.account) == (entry["source"], entry["account"]):
            return (f"{other.source} {other.account} is listed twice (before with the connection "
                    f"{other.connection}): remove one, or give it another name")
        if other.connection == entry["connection"] and other.source != entry["source"]:
            return (f"the connection {other.connection} is {other.source}'s above: a key opens "
                    "one API, so name another")
    return None


def accounts(file: str | Path) -> list[Account]:
    """The accounts of a file, all of them: ValueError also where an entry is wrong."""
    found, wrong = read_accounts(file)
    if wrong:
        raise ValueError("; ".join(wrong.values()))
    return found
