"""The settings: accounts.toml (accounts, budgets, alert rules, deadlines), and the environment.

    file = AccountsFile.read()       of $LEDGERHOUSE_ACCOUNTS, else accounts.toml in the project
    file.accounts(), file.entries(), file.limits(), file.rules(), file.deadlines()

The file is read once, each part of it is judged when it is asked for: a wrong budget stops no
fetch of a source that has none. The environment is read when a setting is asked for, never at
import.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from extract.sources import get, names

# The environment (see .env.example)


def project_dir() -> Path:
    """The checkout; where the package is installed without one, $AIRFLOW_HOME/ledgerhouse."""
    checkout = Path(__file__).parents[1]
    if (checkout / "pyproject.toml").exists():
        return checkout
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser() / "ledgerhouse"


def accounts_file() -> Path:
    """$LEDGERHOUSE_ACCOUNTS, otherwise accounts.toml in the project."""
    return Path(os.environ.get("LEDGERHOUSE_ACCOUNTS") or project_dir() / "accounts.toml")


def var_dir() -> Path:
    """The folder of all that the project writes: $LEDGERHOUSE_VAR, otherwise its own `var/`."""
    return Path(os.environ.get("LEDGERHOUSE_VAR") or project_dir() / "var")


def warehouse_path() -> Path:
    """The warehouse file."""
    return var_dir() / "warehouse.duckdb"


def state_uri() -> str | None:
    """$LEDGERHOUSE_STATE_URI: PostgreSQL of the models' state; None keeps it in the warehouse."""
    return os.environ.get("LEDGERHOUSE_STATE_URI") or None


def sync_start() -> datetime:
    """$SYNC_START_DATE: since when the DAGs have intervals, UTC."""
    return datetime.fromisoformat(os.environ.get("SYNC_START_DATE") or "2020-01-01").replace(
        tzinfo=UTC
    )


def metadata_uri() -> str | None:
    """$LEDGERHOUSE_METADATA_URI: Airflow's database, for `airflow db clean`; None: a task may not."""
    return os.environ.get("LEDGERHOUSE_METADATA_URI") or None


def retry_delay() -> timedelta:
    """$RETRY_DELAY_S: how long a failed task waits before it is tried again, the first time."""
    return timedelta(seconds=float(os.environ.get("RETRY_DELAY_S") or 20))


# Of each connection to the warehouse. SQLMesh's own takes the same: sqlmesh_project/config.py
# cannot import this, tests/ledgerhouse/test_config.py compares them.
MEMORY_LIMIT = "4GB"

# accounts.toml

ACCOUNT_NAME = re.compile(r"[A-Za-z0-9._@:+-]{1,128}")
CONNECTION_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # also the end of a task's and a pool's name
NAMES = {
    f"{measure}_per_{period}": (measure, period)
    for measure in ("units", "calls")
    for period in ("day", "month")
}
SECTIONS = {"account", "budget", "alerts", "checks", "deadlines", "maintenance"}
HEARTBEAT = "alerts_heartbeat"
WAYS = {"slack": "alerts_slack", "smtp": "alerts_smtp", "webhook": "alerts_webhook"}


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


@dataclass(frozen=True)
class Limit:
    """At most `allowed` calls or units (`measure`) of a source a UTC day or month (`period`)."""

    source: str
    measure: str
    period: str
    allowed: int

    def as_row(self) -> tuple[str, str, str, int]:
        """Its row of ops.budgets."""
        return self.source, self.measure, self.period, self.allowed


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
    heartbeat: str = HEARTBEAT  # id of the Connection that is asked while syncs come


@dataclass(frozen=True)
class Checks:
    """[checks] of accounts.toml. `off`: what a balance that is off does, publish (it is shown as
    off) or hold (its account keeps its last good days)."""

    off: str = "publish"


def _setting(default: int, says: str, *, least: int = 1, most: int = 8784) -> Any:
    """A whole number of a section, `least` to `most`; `says` what it is, for the reference."""
    return dataclasses.field(default=default, metadata={"says": says, "least": least, "most": most})


@dataclass(frozen=True)
class Deadlines:
    """[deadlines] of accounts.toml, in hours: what hangs is ended, what is late is reported."""

    task_hours: int = _setting(2, "one try of a task that is no fetch and no replay")
    long_task_hours: int = _setting(
        12, "one try of a fetch or a replay; a fetch that is ended begins again"
    )
    sync_hours: int = _setting(
        24, "a run of `sync`: what still runs then is stopped, and it failed"
    )
    run_hours: int = _setting(168, "a run of another DAG, such as a history of years")
    sync_late_hours: int = _setting(
        3, "a run of `sync` that has not succeeded by then is reported; 0: never", least=0
    )
    late_hours: int = _setting(24, "likewise a run of another DAG; 0: never", least=0)


@dataclass(frozen=True)
class Maintenance:
    """[maintenance] of accounts.toml: how long what is known elsewhere is kept."""

    airflow_rows_days: int = _setting(
        90, "runs, tasks and events in Airflow's own database (`airflow db clean`)", least=14
    )
    task_log_days: int = _setting(30, "logs of tasks")
    processor_log_days: int = _setting(7, "logs of Airflow's parsing of the DAG files")
    call_log_days: int = _setting(
        62, "loaded call logs, whose calls are in `ops.api_calls`", least=32
    )
    attempt_days: int = _setting(
        14, "records of tasks that no mirror has read; they go into `ops.sync_runs` first", least=8
    )
    landed_file_days: int = _setting(
        62, "landed files by themselves; older ones are in an archive of their month", least=7
    )
    draft_hours: int = _setting(24, "hours: drafts that a killed writer has left", least=12)
    data_docs_runs: int = _setting(20, "runs: the newest whose Data Docs are kept", most=10_000)
    free_percent: int = _setting(
        50, "percent of the warehouse file that may be free before it is copied", most=100
    )
    process_log_megabytes: int = _setting(
        10, "megabytes: a log of a process of the local stack, then the next begins", most=10_000
    )
    process_log_files: int = _setting(4, "files: full ones that are kept of each", most=1000)


Section = TypeVar("Section", Deadlines, Maintenance)


@dataclass(frozen=True)
class AccountsFile:
    """An accounts file that was read: `content` is what TOML says, numbers with a point as Decimal.

    Its parts are typed, and judged, by the methods; each raises ValueError naming the file and
    the entry.
    """

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path | None = None, what: str = "accounts") -> AccountsFile:
        """The file at `path`, otherwise accounts_file().

        Raises ValueError that says why `what` of it cannot be read: no such file, no TOML.
        """
        path = Path(path or accounts_file())
        try:
            return cls(path, tomllib.loads(path.read_text(), parse_float=Decimal))
        except FileNotFoundError:
            raise ValueError(
                f"there is no {path}: copy accounts.toml of the project there, or let "
                "LEDGERHOUSE_ACCOUNTS name the file"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the {what} in {path}: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(
                f"cannot read the {what} in {path}: it is not TOML: {error}. Texts stand "
                'in quotation marks, as in source = "debank"'
            ) from None

    def accounts(self) -> list[Account]:
        """The accounts, all of them: ValueError also where an entry is wrong."""
        accounts, wrong = self.entries()
        if wrong:
            raise ValueError("; ".join(wrong.values()))
        return accounts

    def entries(self) -> tuple[list[Account], dict[int, str]]:
        """The accounts, and by their number in the file, from 1, what is wrong with the entries
        that cannot be used: the others can.

        Raises ValueError where the file lists nothing: no [[account]], or other blocks.
        """
        entries = self.content.get("account", [])
        if set(self.content) - SECTIONS or not isinstance(entries, list):
            raise ValueError(
                f"{self.path} may hold [[account]] blocks, with two brackets, [budget.…], "
                f"[alerts], [checks], [deadlines] and [maintenance] only; it has "
                f"{', '.join(sorted(self.content))}"
            )
        if not entries:
            raise ValueError(f"{self.path} lists no [[account]]; see accounts.toml in the project")
        accounts: dict[int, Account] = {}
        wrong: dict[int, str] = {}
        for number, entry in enumerate(entries, 1):
            if why := _wrong(entry, accounts):
                wrong[number] = f"{self.path}, [[account]] number {number}: {why}"
            else:
                accounts[number] = Account(**entry)
        return [*accounts.values()], wrong

    def connections(self) -> list[str]:
        """The Airflow Connections that the usable accounts name, each once, in the file's order."""
        return list(dict.fromkeys(account.connection for account in self.entries()[0]))

    def limits(self) -> list[Limit]:
        """[budget.…]; none where there is none.

        Raises ValueError for an unknown source or name, or what is no whole number of at least 0.
        """
        budgets = self.content.get("budget", {})
        if not isinstance(budgets, dict):
            raise ValueError(f"{self.path}: write the budget of a source as [budget.debank]")
        limits = []
        for source, lines in budgets.items():
            where = f"{self.path}, [budget.{source}]"
            if source not in names():
                raise ValueError(f"{where}: unknown source {source!r}; known: {', '.join(names())}")
            if not isinstance(lines, dict):
                raise ValueError(f"{where}: give it lines like units_per_day = 20000")
            for name, allowed in lines.items():
                if name not in NAMES:
                    raise ValueError(f"{where}: unknown {name!r}; there are {', '.join(NAMES)}")
                if type(allowed) is not int or not 0 <= allowed < 2**63:
                    raise ValueError(
                        f"{where}: {name} is {_shown(allowed)}; write a whole number, 0 or more"
                    )
                limits.append(Limit(source, *NAMES[name], allowed))
        return limits

    def checks(self) -> Checks:
        """[checks]; the defaults where there is none."""
        checks = self.content.get("checks", {})
        if not isinstance(checks, dict) or set(checks) - {"off"}:
            raise ValueError(
                f'{self.path}, [checks]: it has one line, off = "publish" or off = "hold"'
            )
        off = checks.get("off", "publish")
        if off not in ("publish", "hold"):
            raise ValueError(
                f'{self.path}, [checks]: off is {_shown(off)}; write "publish" to show balances '
                'that are off, or "hold" to hold back the account'
            )
        return Checks(off)

    def deadlines(self) -> Deadlines:
        """[deadlines]; the defaults where there is none."""
        return self._numbers("deadlines", Deadlines)

    def maintenance(self) -> Maintenance:
        """[maintenance]; the defaults where there is none."""
        return self._numbers("maintenance", Maintenance)

    def _numbers(self, name: str, section: type[Section]) -> Section:
        """A section of whole numbers; ValueError names what is unknown or out of bounds."""
        values = self.content.get(name, {})
        if not isinstance(values, dict):
            raise ValueError(f"{self.path}: write [{name}] in one pair of brackets")
        known = {each.name: each.metadata for each in dataclasses.fields(section)}
        if unknown := set(values) - set(known):
            raise ValueError(
                f"{self.path}, [{name}]: unknown {', '.join(map(repr, sorted(unknown)))}; "
                f"there are {', '.join(known)}"
            )
        for key, value in values.items():
            least, most = known[key]["least"], known[key]["most"]
            if type(value) is not int or not least <= value <= most:
                raise ValueError(
                    f"{self.path}, [{name}]: {key} is {_shown(value)}; write a whole number from "
                    f"{least} to {most:,}"
                )
        return section(**values)

    def rules(self) -> Rules:
        """[alerts]; the defaults where there is none."""
        alerts = self.content.get("alerts", {})
        if not isinstance(alerts, dict):
            raise ValueError(f"{self.path}: write [alerts] in one pair of brackets")

        def need(name: str, fits: bool, wanted: str) -> None:
            if name in alerts and not fits:
                raise ValueError(
                    f"{self.path}, [alerts]: {name} is {alerts[name]!r}; write {wanted}"
                )

        known = ("stale_after_hours", "budget_at", *WAYS, "email_to", "email_from", "heartbeat")
        if unknown := set(alerts) - set(known):
            raise ValueError(
                f"{self.path}, [alerts]: unknown {', '.join(map(repr, sorted(unknown)))}; "
                f"there are {', '.join(known)}"
            )
        hours, share = alerts.get("stale_after_hours", 12), alerts.get("budget_at", Decimal("0.8"))
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
        for way in (*WAYS, "heartbeat"):
            need(
                way,
                isinstance(alerts.get(way), str) and bool(CONNECTION_ID.fullmatch(alerts[way])),
                "the id of an Airflow Connection, in quotation marks",
            )
        to = alerts.get("email_to", [])
        to = [to] if isinstance(to, str) else to
        need(
            "email_to",
            isinstance(to, list) and all(isinstance(a, str) and "@" in a for a in to),
            "an address, or a list of addresses",
        )
        need("email_from", isinstance(alerts.get("email_from"), str), "an address")
        return Rules(
            timedelta(seconds=int(hours * 3600)),
            Decimal(share),
            tuple((WAYS | {k: v for k, v in alerts.items() if k in WAYS}).items()),
            tuple(way for way in (*WAYS, "heartbeat") if way in alerts),
            tuple(to),
            alerts.get("email_from"),
            alerts.get("heartbeat", HEARTBEAT),
        )


def maintenance() -> Maintenance:
    """[maintenance] for what must go on where it is wrong: the defaults then. The DAG says so."""
    try:
        return AccountsFile.read(what="maintenance").maintenance()
    except ValueError:
        return Maintenance()


def _wrong(entry: Any, before: Mapping[int, Account]) -> str | None:
    """Why an entry cannot be used, or None; `before` are those above it, by number.

    An account keeps the spelling of the file, which its rows in the warehouse have.
    """
    if not isinstance(entry, dict) or set(entry) != {"source", "account", "connection"}:
        has = ", ".join(sorted(entry)) if entry and isinstance(entry, dict) else "nothing"
        return f"it needs exactly source, account and connection; it has {has}"
    if entry["source"] not in names():
        return (
            f"unknown source {_shown(entry['source'])}; known: {', '.join(names())}. A new one is "
            "a file in extract/sources/"
        )
    for field, legal, signs in (
        ("account", ACCOUNT_NAME, "._@:+-"),
        ("connection", CONNECTION_ID, "._-"),
    ):
        if not isinstance(entry[field], str) or not legal.fullmatch(entry[field]):
            return (
                f"{field} {_shown(entry[field])} may hold letters, digits and {signs} only, in "
                "quotation marks"
            )
    account_id = get(entry["source"]).account_id or str
    try:
        mine = account_id(entry["account"])
    except ValueError as error:
        return str(error)
    for number, other in before.items():
        if other.source == entry["source"] and account_id(other.account) == mine:
            same = "" if other.account == entry["account"] else f" (here as {entry['account']})"
            return (
                f"{other.source} {other.account} is listed twice{same}, before as number {number} "
                f"with the connection {other.connection}: remove one, or give it another name"
            )
        if other.connection == entry["connection"] and other.source != entry["source"]:
            return (
                f"the connection {other.connection} is {other.source}'s above: a key opens "
                "one API, so name another"
            )
    return None


def _shown(value: object) -> str:
    """A value of the file as a message quotes it."""
    return str(value) if isinstance(value, Decimal) else repr(value)


def _number(value: object) -> bool:
    return type(value) is int or (isinstance(value, Decimal) and value.is_finite())
