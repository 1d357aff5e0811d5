"""The contract of a source: Source, Job, Page, and what else an API's file in `sources/` states.

A Source fetches a Job (an account over an interval) as Pages, and states with Covered which time
of which dataset they hold whole; its mappings turn the pages into rows of Datasets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from extract.core.interval import Interval, iso, utc
from extract.core.records import Records


@dataclass(frozen=True)
class Page:
    """One response of an API: `body` is its text exactly as received, never re-serialized."""

    endpoint: str
    params: Mapping[str, Any]
    body: str
    received_at: datetime  # the vendor's own clock: the Date header, in UTC
    as_of: datetime | None = None  # snapshots only: the one instant all its pages speak of
    read_from: datetime | None = None  # rows before it are not loaded; None: the job's read_from


@dataclass(frozen=True)
class Covered:
    """A statement that a dataset was read whole over an interval, and why its paging ended.

    `parts` are the parts of the account (wallets of an exchange) that were read; the others have
    not changed since they were read last, so only rows of these can be missed as vanished. None:
    every part was read.
    """

    dataset: str
    interval: Interval
    reason: str
    parts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Unread:
    """A part of an account that could not be read over an interval, and why; the rest was.

    `part` is what column `wallet` of raw.balances holds for it: an exchange's wallet, or a chain.
    """

    dataset: str
    part: str
    interval: Interval
    reason: str


@dataclass
class Fetched:
    """The result of a fetch: its pages, and what they cover.

    Filled while the fetch runs; landed when it is whole, or when it was stopped for its cost: then
    `covered` says what of it is whole; `unread` names the parts of the account within that which
    could not be read. `part_states` is {part: text}: what tells that a part has not changed since.
    The next job gets it back as `known`, and needs not read a part whose text is still the same.
    """

    pages: list[Page] = field(default_factory=list)
    covered: list[Covered] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    part_states: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One fetch to do: an account of a source over an interval.

    `read_from` is where reading starts: the lookback before the interval (read_from <= interval.start);
    `snapshot` asks for the reported balances too. `known` is {part: text} of Fetched.part_states,
    of parts read whole up to the interval and without pending rows; `unread` is {part: from when
    it could not be read}, so that it is read again from there.
    """

    source: str
    account: str
    connection: str
    interval: Interval
    read_from: datetime
    snapshot: bool = False
    known: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, datetime] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "account": self.account,
            "connection": self.connection,
            "interval_start": iso(self.interval.start),
            "interval_end": iso(self.interval.end),
            "read_from": iso(self.read_from),
            "snapshot": self.snapshot,
            "known": dict(self.known),
            "unread": {part: iso(since) for part, since in self.unread.items()},
        }

    @classmethod
    def from_dict(cls, job: Mapping[str, Any]) -> Job:
        return cls(
            source=job["source"],
            account=job["account"],
            connection=job["connection"],
            interval=Interval(job["interval_start"], job["interval_end"]),
            read_from=utc(job["read_from"]),
            snapshot=bool(job["snapshot"]),
            known=dict(job.get("known") or {}),
            unread={part: utc(since) for part, since in (job.get("unread") or {}).items()},
        )


@dataclass(frozen=True)
class Rate:
    """A vendor's limit: `calls` in `seconds`.

    A token bucket that lets `burst` calls through at once; or, `strict`, a sliding window:
    never more than `calls` in any `seconds`.
    """

    calls: int
    seconds: float = 1.0
    burst: int = 1
    strict: bool = False


@dataclass(frozen=True)
class FullRefreshCall:
    """The calls of `endpoint` that a full refresh of an account needs: `page` rows of `dataset` a call.

    `probes_past_end`: one row more is asked for, since a full last page does not say that it is the last;
    `per_column`: asked once for every value of this column; `lists_column`: the pages list the values of this
    column instead of rows. Without a dataset: one call.
    """

    endpoint: str
    dataset: str = ""
    page: int = 1
    probes_past_end: bool = False
    per_column: str = ""
    lists_column: str = ""


@dataclass(frozen=True)
class Form:
    """Labels of the fields in Airflow's form for a Connection of this source.

    A field with a label is asked for and needed; `login` empty: it is hidden and not needed.
    `secrets` are further secret fields, {name in the extra: label}; `hints` are placeholders by
    field.
    """

    title: str = ""  # in the list of connection types; empty: the source's name
    host: str = ""  # the vendor's own address, the host's placeholder
    password: str = "API key"
    login: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """One API: how to fetch it, and the SQL that maps its landed pages to datasets.

    `records` names the lists of records in the pages: {name: Records}; mappings read each as
    `records_<name>(page_id, source, account, params, as_of, item, row, payload)`.
    `mappings` gives, for each dataset, a SELECT over those, or over `pages(page_id, source,
    account, endpoint, params, body, received_at, as_of)`, with the dataset's columns plus
    `page_id` and `item` (the record's number in the page, the same in each dataset made of it).
    `rates` gives the vendor's limit per endpoint prefix; `units` the assumed price of a call by
    endpoint.
    `monthly`: the API can seek in time, so long ranges are cut into months.
    `form` and `test_connection` are for the Connection: `test_connection(client, api)` makes one call, the cheapest that
    proves the key, and returns in words what it sees; without it the form has no working Test.
    `expected`: {endpoint: calls} that a job without a snapshot will take, given the number of rows:
    `rows(dataset, interval)` over the account, `rows(dataset, interval, column)` as a list of them
    by what the column holds; the interval may reach up to now. None: at least a call a job.
    `remaining_units(client, api)`: prepaid units left as the vendor counts them, by one call.
    `whole`: what reading everything again would ask for (ops.full_refreshes).
    `account_id`: of an account as it is listed, what is the same for each spelling of it; raises
    ValueError, in words, for what is no account. None: an account's name is what the user chose.
    `own_states`: a job gets every recorded text of Fetched.part_states back, whatever the parts
    are, and judges by itself what it needs not read; without it, those whose rows add up.
    `seeks`: the API can be asked for a time, so that a gap is read without what lies beside it.
    `depth`: how far back the API's history goes, in words. Without `reconcilable`, the history is
    not all that moved the balances: `why` says what the API does not list.
    """

    name: str
    documentation: str
    mappings: Mapping[str, str]
    fetch: Callable[[Any, Any, Job], Fetched]
    connect: Callable[..., Any]
    rates: Mapping[str, Rate]
    records: Mapping[str, Records] = field(default_factory=dict)
    units: Mapping[str, int] = field(default_factory=dict)
    monthly: bool = False
    expected: Callable[[Job, Callable[..., Any], datetime], Mapping[str, int]] | None = None
    whole: tuple[FullRefreshCall, ...] = ()
    form: Form = Form()
    test_connection: Callable[[Any, Any], str] | None = None
    remaining_units: Callable[[Any, Any], int] | None = None
    account_id: Callable[[str], str] | None = None
    own_states: bool = False
    seeks: bool = False
    depth: str = "the whole life of the account"
    reconcilable: bool = True
    why: str = ""
