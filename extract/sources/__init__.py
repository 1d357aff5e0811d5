"""The sources: one file per API. A new source is one file here, and its twin in `sandbox/`.

A module of this folder is a source when it has a `SOURCE`; nothing else lists them.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from extract.datasets import DATASETS
from extract.source import Source

ACCOUNT_NAME = re.compile(r"[A-Za-z0-9._@:+-]{1,128}")


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
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if f.stem != "__init__")


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


def accounts(file: str | Path) -> list[Account]:
    """The accounts listed in a TOML file (see accounts.toml).

    Raises ValueError naming the file and the entry when one is incomplete, unknown or double.
    """
    try:
        entries = tomllib.loads(Path(file).read_text()).get("account", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read the accounts in {file}: {error}") from None
    found: list[Account] = []
    for number, entry in enumerate(entries, 1):
        where = f"{file}, [[account]] number {number}"
        if set(entry) != {"source", "account", "connection"}:
            raise ValueError(f"{where} needs exactly source, account and connection; "
                             f"it has {', '.join(sorted(entry)) or 'nothing'}")
        if entry["source"] not in names():
            raise ValueError(f"{where}: unknown source {entry['source']!r}; "
                             f"known: {', '.join(names())}")
        for field in ("account", "connection"):
            if not ACCOUNT_NAME.fullmatch(str(entry[field])):
                raise ValueError(f"{where}: {field} {entry[field]!r} may hold letters, digits "
                                 "and ._@:+- only")
        account = Account(**entry)
        if any((a.source, a.account) == (account.source, account.account) for a in found):
            raise ValueError(f"{where}: {account.source} {account.account} is listed twice")
        found.append(account)
    if not found:
        raise ValueError(f"{file} lists no [[account]]; see accounts.toml in the project")
    return found
