"""The settings: accounts.toml (accounts, budgets, alert rules), the folders, and memory."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from extract.sources import names

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


def read_file(
    file: str | Path, what: str, fraction: Callable[[str], Any] = float
) -> dict[str, Any]:
    """All that an accounts file holds, numbers with a point made by `fraction`.

    Raises ValueError that says why `what` of it cannot be read.
    """
    try:
        return tomllib.loads(Path(file).read_text(), parse_float=fraction)
    except FileNotFoundError:
        raise ValueError(
            f"there is no {file}: copy accounts.toml of the project there, or let "
            "LEDGERHOUSE_ACCOUNTS name the file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the {what} in {file}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(
            f"cannot read the {what} in {file}: it is not TOML: {error}. Texts stand "
            'in quotation marks, as in source = "debank"'
        ) from None


def read_accounts(file: str | Path) -> tuple[list[Account], dict[int, str]]:
    """The accounts a TOML file lists (see accounts.toml), and by their number in the file, from
    1, what is wrong with the entries that cannot be used: the others can.

    Raises ValueError where nothing can be told: no such file, no TOML, no [[account]].
    """
    listed = read_file(file, "accounts")
    entries = listed.get("account", [])
    if set(listed) - {"account", "budget", "alerts"} or not isinstance(entries, list):
        raise ValueError(
            f"{file} may hold [[account]] blocks, with two brackets, [budget.…] and "
            f"[alerts] only; it has {', '.join(sorted(listed))}"
        )
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
        return (
            f"unknown source {entry['source']!r}; known: {', '.join(names())}. A new one is "
            "a file in extract/sources/"
        )
    for field, legal, signs in (
        ("account", ACCOUNT_NAME, "._@:+-"),
        ("connection", CONNECTION_ID, "._-"),
    ):
        if not isinstance(entry[field], str) or not legal.fullmatch(entry[field]):
            return (
                f"{field} {entry[field]!r} may hold letters, digits and {signs} only, in "
                "quotation marks"
            )
    for other in before:
        if (other.source, other.account) == (entry["source"], entry["account"]):
            return (
                f"{other.source} {other.account} is listed twice (before with the connection "
                f"{other.connection}): remove one, or give it another name"
            )
        if other.connection == entry["connection"] and other.source != entry["source"]:
            return (
                f"the connection {other.connection} is {other.source}'s above: a key opens "
                "one API, so name another"
            )
    return None


def accounts(file: str | Path) -> list[Account]:
    """The accounts of a file, all of them: ValueError also where an entry is wrong."""
    found, wrong = read_accounts(file)
    if wrong:
        raise ValueError("; ".join(wrong.values()))
    return found


def project_dir() -> Path:
    """The checkout; where the package is installed without one, $AIRFLOW_HOME/ledgerhouse."""
    checkout = Path(__file__).parents[1]
    if (checkout / "pyproject.toml").exists():
        return checkout
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser() / "ledgerhouse"


def accounts_file() -> Path:
    """$LEDGERHOUSE_ACCOUNTS, else accounts.toml in the project."""
    return Path(os.environ.get("LEDGERHOUSE_ACCOUNTS") or project_dir() / "accounts.toml")


def var_dir() -> Path:
    """Where everything the project writes lives: $LEDGERHOUSE_VAR, else `var/` in the project."""
    return Path(os.environ.get("LEDGERHOUSE_VAR") or project_dir() / "var")


def warehouse_path() -> Path:
    return var_dir() / "warehouse.duckdb"


# Of each connection to the warehouse; SQLMesh's own takes the same (sqlmesh_project/config.py).
MEMORY_LIMIT = "4GB"
NAMES = {
    f"{measure}_per_{period}": (measure, period)
    for measure in ("units", "calls")
    for period in ("day", "month")
}


@dataclass(frozen=True)
class Limit:
    """At most `allowed` calls or units (`measure`) of a source a UTC day or month (`period`)."""

    source: str
    measure: str
    period: str
    allowed: int

    def as_row(self) -> tuple[str, str, str, int]:
        return self.source, self.measure, self.period, self.allowed


def limits(file: str | Path) -> list[Limit]:
    """The [budget.…] of an accounts file; none where it has none.

    Raises ValueError naming the file and the entry: an unknown source or name, or what is no
    whole number of at least 0.
    """
    budgets = read_file(file, "budget").get("budget", {})
    if not isinstance(budgets, dict):
        raise ValueError(f"{file}: write the budget of a source as [budget.debank]")
    found = []
    for source, lines in budgets.items():
        where = f"{file}, [budget.{source}]"
        if source not in names():
            raise ValueError(f"{where}: unknown source {source!r}; known: {', '.join(names())}")
        if not isinstance(lines, dict):
            raise ValueError(f"{where}: give it lines like units_per_day = 20000")
        for name, allowed in lines.items():
            if name not in NAMES:
                raise ValueError(f"{where}: unknown {name!r}; there are {', '.join(NAMES)}")
            if type(allowed) is not int or not 0 <= allowed < 2**63:
                raise ValueError(f"{where}: {name} is {allowed!r}; write a whole number, 0 or more")
            found.append(Limit(source, *NAMES[name], allowed))
    return found


WAYS = {"slack": "alerts_slack", "smtp": "alerts_smtp", "webhook": "alerts_webhook"}


@dataclass(frozen=True)
class Rules:
    """[alerts] of accounts.toml. `ways`: slack, smtp, webhook → id of the Airflow Connection;
    `named` are those that the file names, and so must be there."""

    stale_after: timedelta = timedelta(hours=12)  # two intervals of the DAG sync
    budget_at: Decimal = Decimal("0.8")
    ways: tuple[tuple[str, str], ...] = tuple(WAYS.items())
    named: tuple[str, ...] = ()
    email_to: tuple[str, ...] = ()
    email_from: str | None = None


def read_rules(file: str | Path) -> Rules:
    """The [alerts] of an accounts file. Raises ValueError naming the file and the entry."""
    told = read_file(file, "alerts", Decimal).get("alerts", {})
    if not isinstance(told, dict):
        raise ValueError(f"{file}: write [alerts] in one pair of brackets")

    def need(name: str, fits: bool, wanted: str) -> None:
        if name in told and not fits:
            raise ValueError(f"{file}, [alerts]: {name} is {told[name]!r}; write {wanted}")

    known = ("stale_after_hours", "budget_at", *WAYS, "email_to", "email_from")
    if unknown := set(told) - set(known):
        raise ValueError(
            f"{file}, [alerts]: unknown {', '.join(map(repr, sorted(unknown)))}; "
            f"there are {', '.join(known)}"
        )
    hours, share = told.get("stale_after_hours", 12), told.get("budget_at", Decimal("0.8"))
    need(
        "stale_after_hours",
        _number(hours) and 0 < hours <= 8784,
        "hours, more than 0 and at most a year",
    )
    need(
        "budget_at",
        _number(share) and 0 < share <= 1,
        "a share of the budget, such as 0.8, at most 1",
    )
    for way in WAYS:
        need(
            way,
            isinstance(told.get(way), str) and bool(CONNECTION_ID.fullmatch(told[way])),
            "the id of an Airflow Connection, in quotation marks",
        )
    to = [told["email_to"]] if isinstance(told.get("email_to"), str) else told.get("email_to", [])
    need(
        "email_to",
        isinstance(to, list) and all(isinstance(a, str) and "@" in a for a in to),
        "an address, or a list of addresses",
    )
    need("email_from", isinstance(told.get("email_from"), str), "an address")
    return Rules(
        timedelta(seconds=int(hours * 3600)),
        Decimal(share),
        tuple((WAYS | {k: v for k, v in told.items() if k in WAYS}).items()),
        tuple(way for way in WAYS if way in told),
        tuple(to),
        told.get("email_from"),
    )


def _number(value: object) -> bool:
    return type(value) is int or (isinstance(value, Decimal) and value.is_finite())
