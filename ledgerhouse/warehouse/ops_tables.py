"""The tables of `ops`, and raw.history: their columns, types and comments, as one text.

    schema.name -- what a row is
        column TYPE [NOT NULL] -- what it holds

A column without words of its own has those of SHARED. The CREATE and COMMENT statements and
docs/reference.md are made of this. (The tables of the datasets are in extract.core.datasets.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from extract.core.datasets import Column

# Columns that mean the same in every table.
SHARED = {
    "source": "the API, e.g. coinbase",
    "account": "the account within the source: a name, or a wallet address",
    "dataset": "raw table, without the schema",
    "run_id": "Airflow's run",
    "dag_id": "Airflow's DAG",
    "task_id": "Airflow's task",
    "map_index": "number of the mapped task; -1 where it is not mapped",
    "try_number": "1, 2, … of the task",
    "batch_id": "the load that wrote it (ops.batches)",
    "start_ts": "start, UTC, included",
    "end_ts": "end, UTC, excluded",
    "loaded_at": "when, by our clock, UTC",
    "recorded_at": "when it was written down, by our clock, UTC",
    "calls": "HTTP requests made, retries too",
    "units": "units spent, by our own count",
    "endpoint": "path of the API, without what stands in it for an account",
    "error": "text of the error, secrets redacted; NULL where there was none",
    "state": "Airflow's word: success, failed, running, skipped, …",
}

TEXT = """
raw.history -- An older version of a raw row, and what became of it
    dataset VARCHAR NOT NULL -- raw table the row was in, without the schema
    key VARCHAR NOT NULL -- the row's key as JSON text
    ts TIMESTAMP -- its event time, UTC; NULL for dimensions
    row_hash UBIGINT NOT NULL -- hash of the row's columns
    valid_from TIMESTAMP NOT NULL -- vendor's clock when this version was first seen, UTC
    valid_to TIMESTAMP NOT NULL -- vendor's clock when the next version was seen, UTC
    change VARCHAR NOT NULL -- changed, removed, vanished, or stale (seen after a newer one)
    batch_id VARCHAR NOT NULL -- the load that replaced it (ops.batches)
    row VARCHAR NOT NULL -- the whole row as JSON text, amounts as text

ops.batches -- What a load did to one dataset
    batch_id VARCHAR NOT NULL -- the load; several files and datasets share it
    file VARCHAR NOT NULL -- how many landed files it read (ops.landed_files), such as 12 files
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    dataset VARCHAR NOT NULL
    run_id VARCHAR NOT NULL
    rows BIGINT NOT NULL -- rows of this dataset in the files, each key once
    new BIGINT NOT NULL -- rows that were not there
    changed BIGINT NOT NULL -- rows that replaced an older version
    same BIGINT NOT NULL -- rows that were there already
    stale BIGINT NOT NULL -- rows older than what was there: kept in raw.history only
    removed BIGINT NOT NULL -- legs that their transaction no longer has
    vanished BIGINT NOT NULL -- rows that a whole fetch of their time lacked
    loaded_at TIMESTAMP NOT NULL -- when it was committed, by our clock, UTC
    read BIGINT -- records of this dataset in the pages, within their interval: all of them are in rows, shadowed or rejected
    shadowed BIGINT -- records that a newer or equal version in the same batch replaced
    rejected BIGINT -- records without a place in the table (raw.rejected)

ops.sources -- What the history of an API can tell, by the version that loaded last
    source VARCHAR NOT NULL
    depth VARCHAR NOT NULL -- how far back it goes, in words
    reconcilable BOOLEAN NOT NULL -- it lists all that moves a balance, so that sums must agree
    why VARCHAR NOT NULL -- what it does not list; empty where it is reconcilable

raw.rejected -- A record of a vendor's answer that has no place in its raw table: kept as it is, with the reason
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    dataset VARCHAR NOT NULL
    endpoint VARCHAR NOT NULL
    file VARCHAR NOT NULL -- landed file in which it was first met
    page INTEGER NOT NULL -- number of the page in the file, from 0
    item INTEGER NOT NULL -- number of the record in the page, from 1
    reason VARCHAR NOT NULL -- what is wrong with it
    payload VARCHAR -- the record as JSON text
    first_seen_at TIMESTAMP NOT NULL -- vendor's clock when it was first met, UTC
    batch_id VARCHAR NOT NULL -- the load that met it first (ops.batches)

raw.adjustments -- A movement that no vendor lists: an opening balance, growth of a rebasing token, or one of adjustments.toml
    adjustment_id VARCHAR NOT NULL -- its id, the same after a replay
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    token VARCHAR NOT NULL -- asset code, or chain:token id; see curated.assets
    ts TIMESTAMP NOT NULL -- when it is booked, UTC
    kind VARCHAR NOT NULL -- opening, opening_inferred, rebase, or a kind of adjustments.toml
    amount_text VARCHAR NOT NULL -- signed change of the balance in token units, exact
    amount DECIMAL(38,18) -- the same; NULL where it does not fit DECIMAL(38,18)
    evidence VARCHAR NOT NULL -- what proves it: a snapshot or an entry, and its landed file, a URL, a hash
    note VARCHAR -- words of the user
    recorded_at TIMESTAMP NOT NULL

ops.unread_parts -- A part of an account (a wallet, a chain) that a fetch could not read, over a stretch of time
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    dataset VARCHAR NOT NULL
    part VARCHAR NOT NULL -- the exchange's wallet, or the chain: as wallet in raw.balances
    start_ts TIMESTAMP NOT NULL
    end_ts TIMESTAMP NOT NULL
    reason VARCHAR NOT NULL -- why it could not be read, when it was last tried
    first_tried_at TIMESTAMP NOT NULL -- vendor's clock when it failed first, UTC
    read_at TIMESTAMP NOT NULL -- vendor's clock when it was last tried, UTC
    run_id VARCHAR NOT NULL -- the run that tried last
    batch_id VARCHAR NOT NULL

ops.part_states -- The state of a part of an account when it was last read whole: while the vendor shows the same, it has not changed
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    part VARCHAR NOT NULL -- the exchange's wallet, or another part: the source knows
    state VARCHAR NOT NULL -- text of the source, the same as long as nothing has changed
    read_at TIMESTAMP NOT NULL -- vendor's clock when that fetch began, UTC
    batch_id VARCHAR NOT NULL

ops.breaks -- A token whose computed balance differs from the reported one: where that began, and what may be the cause
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    token VARCHAR NOT NULL -- asset code, or chain:token id; see curated.assets
    last_good_ts TIMESTAMP -- newest snapshot before it, UTC; NULL where there is none
    first_bad_ts TIMESTAMP NOT NULL -- first snapshot that shows it, UTC
    last_bad_ts TIMESTAMP NOT NULL -- newest snapshot that shows it, UTC
    step_text VARCHAR NOT NULL -- by how much reported - computed changed there, exact
    residual_text VARCHAR NOT NULL -- reported - computed after it, exact
    suspect VARCHAR NOT NULL -- opening, rebase, unsettled, scam, vanished, doubled, sign, fee, transfer, gas or unknown; adjustment: an entry of adjustments.toml that is refused; of running balances as in ops.chain_breaks
    suspect_ref VARCHAR -- the row whose amount the step is: txid leg
    explanation VARCHAR NOT NULL -- the suspect in words
    refetch_calls BIGINT -- requests that reading the window again would take, estimated
    refetch_units BIGINT -- units that it would take, estimated
    found_at TIMESTAMP NOT NULL -- by our clock, UTC
    wallet VARCHAR -- the wallet whose running balances do not follow from each other (ops.chain_breaks): the step is what is missing between two entries, at last_good_ts and first_bad_ts, '' where that is not known; NULL where snapshots show the break

ops.running_balances -- What a wallet holds of an asset by the balances that its own entries state
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    wallet VARCHAR NOT NULL -- the exchange's id of the sub-account; '' where it has none
    token VARCHAR NOT NULL -- asset code
    status VARCHAR NOT NULL -- of the wallet: proven (each balance follows from the one before), undecided (too few entries yet), or no running balance (what it states is none, and is not used)
    convention VARCHAR NOT NULL -- the change that the balances follow: amount; amount - fee or amount + fee where the source's mapping is wrong
    first_ts TIMESTAMP NOT NULL -- its first entry, UTC
    opening_text VARCHAR -- what was held before it, exact; NULL where that is not known
    opening_ref VARCHAR NOT NULL -- its entry_id
    opening_file VARCHAR -- landed file that it came with
    last_ts TIMESTAMP NOT NULL -- its newest entry, UTC
    last_text VARCHAR -- what was held after it, exact; NULL where that is not known
    batch_id VARCHAR NOT NULL

ops.chain_breaks -- An entry whose running balance does not follow from the one before it
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    wallet VARCHAR NOT NULL -- the exchange's id of the sub-account; '' where it has none
    token VARCHAR NOT NULL -- asset code
    after_ts TIMESTAMP -- the entry before it, UTC; NULL where there is none
    ts TIMESTAMP NOT NULL -- the entry, UTC
    entry_id VARCHAR NOT NULL -- the entry
    missing_text VARCHAR -- what is missing between the two, exact; NULL where that is not known
    suspect VARCHAR NOT NULL -- skipped, doubled, sign, fee, fee_convention, balance, unsettled or vanished
    suspect_ref VARCHAR -- the entry that it is
    explanation VARCHAR NOT NULL -- the suspect in words
    found_at TIMESTAMP NOT NULL -- when it was loaded, by our clock, UTC
    batch_id VARCHAR NOT NULL

ops.chain_gaps -- Two entries of a wallet between which the history is not read whole: their balances are compared once it is
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    wallet VARCHAR NOT NULL -- the exchange's id of the sub-account; '' where it has none
    token VARCHAR NOT NULL -- asset code
    after_ts TIMESTAMP NOT NULL -- the first entry, UTC
    ts TIMESTAMP NOT NULL -- the second, UTC
    batch_id VARCHAR NOT NULL

ops.held_accounts -- An account whose newest days are not published, because a critical check failed on its rows
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    held_since TIMESTAMP NOT NULL -- when it was first held back, by our clock, UTC
    run_id VARCHAR NOT NULL -- the run whose checks failed last
    reason VARCHAR NOT NULL -- the checkpoints and expectations that failed on its rows

ops.landed_files -- A landed file that has been loaded
    file VARCHAR NOT NULL -- its name in the landing
    batch_id VARCHAR NOT NULL
    sequence BIGINT NOT NULL -- order of the loads
    loaded_at TIMESTAMP NOT NULL -- when it was committed, by our clock, UTC

ops.quarantined_files -- A file that could not be read, and was put aside: see its quarantine folder
    place VARCHAR NOT NULL -- folder of the var folder it was in: landing, calls, attempts, …; '' is the var folder
    file VARCHAR NOT NULL -- its name in the quarantine
    source VARCHAR NOT NULL -- the API; '' where the name does not tell
    account VARCHAR NOT NULL -- the account; '' where the name does not tell
    start_ts TIMESTAMP -- start of what it was to cover, UTC, included
    end_ts TIMESTAMP -- end of what it was to cover, UTC, excluded
    reason VARCHAR NOT NULL -- what is wrong with it
    found_at TIMESTAMP NOT NULL -- when it was put aside, by our clock, UTC

ops.coverage -- A stretch of time of which a dataset is known whole; those of an account and dataset are disjoint
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    dataset VARCHAR NOT NULL
    start_ts TIMESTAMP NOT NULL
    end_ts TIMESTAMP NOT NULL
    read_at TIMESTAMP NOT NULL -- vendor's clock when the newest fetch of it began, UTC
    reason VARCHAR NOT NULL -- why paging ended there
    run_id VARCHAR NOT NULL -- the run that read it
    batch_id VARCHAR NOT NULL
    recorded_at TIMESTAMP NOT NULL
    parts VARCHAR -- parts of the account that were read, as a JSON list; NULL: all; the others have not changed

ops.touched_days -- A mark: a load changed rows of this day, and the books do not have them yet
    dataset VARCHAR NOT NULL
    day DATE NOT NULL -- UTC day of the rows
    batch_id VARCHAR NOT NULL

ops.api_calls -- An HTTP request to a vendor
    call_id VARCHAR NOT NULL -- id of the request
    called_at TIMESTAMP NOT NULL -- when it was sent, by our clock, UTC
    dag_id VARCHAR
    run_id VARCHAR
    task_id VARCHAR
    map_index INTEGER
    try_number INTEGER
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    endpoint VARCHAR NOT NULL
    status INTEGER -- HTTP status; NULL where there was no answer
    duration_ms INTEGER NOT NULL -- milliseconds to its answer or failure
    rows INTEGER -- records in the answer; NULL where they were not counted
    units INTEGER NOT NULL -- price of the call by our own list
    units_left BIGINT -- units left as the vendor counts them, where the answer says so
    error VARCHAR
    answered_at TIMESTAMP -- the vendor's own clock on a good answer, UTC

ops.checkpoints -- What an expectation found in a run
    run_id VARCHAR NOT NULL
    checkpoint VARCHAR NOT NULL -- the table that was checked
    expectation VARCHAR NOT NULL -- its name in the suite
    severity VARCHAR NOT NULL -- critical (the accounts whose rows failed it are held back), warning or info
    success BOOLEAN NOT NULL -- whether it held
    observed VARCHAR -- what was found, as text
    start_ts TIMESTAMP -- start of what was checked, UTC, included
    end_ts TIMESTAMP -- end of what was checked, UTC, excluded
    checked_at TIMESTAMP NOT NULL -- when, by our clock, UTC
    accounts VARCHAR -- accounts whose rows failed it, as a JSON list of [source, account]; NULL where that is not known

ops.refreshes -- What a weekly refresh found when it read a part of the history again
    run_id VARCHAR NOT NULL
    scope VARCHAR NOT NULL -- quarter, full, or the interval asked for
    source VARCHAR NOT NULL
    account VARCHAR NOT NULL
    dataset VARCHAR NOT NULL -- raw table; '' where nothing of the account was read whole
    start_ts TIMESTAMP
    end_ts TIMESTAMP
    rows_new BIGINT NOT NULL -- rows that came later than any lookback reached
    rows_changed BIGINT NOT NULL -- rows the vendor reports differently by now
    rows_vanished BIGINT NOT NULL -- rows the vendor no longer has
    rows_removed BIGINT NOT NULL -- legs that their transaction no longer has
    rows_same BIGINT NOT NULL -- rows that are as they were
    calls BIGINT NOT NULL -- requests of the account in the whole run, on the first of its rows only
    units BIGINT NOT NULL -- units of the account in the whole run, on the first of its rows only
    estimated_calls BIGINT NOT NULL -- requests estimated before, on the first row only
    estimated_units BIGINT NOT NULL -- units estimated before, on the first row only
    recorded_at TIMESTAMP NOT NULL

ops.incidents -- Something that was wrong, from when it was noticed to when it was over
    incident_id VARCHAR NOT NULL -- its id
    kind VARCHAR NOT NULL -- failed_source, stale_coverage, …: see alerts.KINDS
    source VARCHAR NOT NULL -- the API; '' where it is nobody's
    account VARCHAR NOT NULL -- the account; '' where it is nobody's
    subject VARCHAR NOT NULL -- the token, limit, type, task or expectation it is about
    severity VARCHAR NOT NULL -- critical or warning
    text VARCHAR NOT NULL -- as last seen while it was open
    opened_at TIMESTAMP NOT NULL -- when it was noticed, by our clock, UTC
    opened_by VARCHAR NOT NULL -- the run that noticed
    resolved_at TIMESTAMP -- when it was seen to be over, UTC; NULL while it lasts
    resolved_by VARCHAR -- the run that saw it over

ops.notices -- A notice of an incident to one channel, sent or still to be sent
    incident_id VARCHAR NOT NULL -- the incident (ops.incidents)
    event VARCHAR NOT NULL -- opened or resolved
    channel VARCHAR NOT NULL -- log, or the Airflow Connection it goes by
    noticed_at TIMESTAMP NOT NULL -- when it was written down, by our clock, UTC
    sent_at TIMESTAMP -- when it was delivered, UTC; NULL until it was
    tries INTEGER NOT NULL -- deliveries that were tried

ops.sync_runs -- An attempt of a task, from Airflow's run history
    dag_id VARCHAR NOT NULL
    run_id VARCHAR NOT NULL
    run_type VARCHAR -- scheduled, manual or backfill
    task_id VARCHAR NOT NULL
    map_index INTEGER NOT NULL
    try_number INTEGER NOT NULL
    source VARCHAR -- the API; NULL for other tasks
    account VARCHAR -- the account; NULL for other tasks
    interval_start TIMESTAMP -- start of what was fetched, UTC, included
    interval_end TIMESTAMP -- end of what was fetched, UTC, excluded
    state VARCHAR
    rows BIGINT -- rows new and changed (load), pages (fetch), otherwise what the task counts
    calls BIGINT
    units BIGINT
    started TIMESTAMP -- when it began, UTC
    ended TIMESTAMP -- when it ended, UTC; NULL while it runs
    error VARCHAR
    mirrored_at TIMESTAMP NOT NULL -- when it was copied from Airflow, UTC
    error_type VARCHAR -- class of the error, such as BudgetReached; NULL where nothing was raised
    error_fields VARCHAR -- what the error says besides its text, as JSON; of a BudgetReached the measure, period and allowed of the limit

ops.budgets -- What accounts.toml allows a source
    source VARCHAR NOT NULL
    measure VARCHAR NOT NULL -- units or calls
    period VARCHAR NOT NULL -- day or month, UTC
    allowed BIGINT NOT NULL -- as accounts.toml said when a run was last planned

ops.account_units -- Units left by the vendor's own count, around the fetches of a run, against ours
    reading_at TIMESTAMP NOT NULL -- when it was asked, by our clock, UTC
    source VARCHAR NOT NULL
    connection VARCHAR NOT NULL -- the Airflow Connection whose key was asked
    run_id VARCHAR NOT NULL
    moment VARCHAR NOT NULL -- before or after the fetches of the run
    balance BIGINT NOT NULL -- units left, as the vendor says
    used BIGINT -- after: by how much the balance fell since before
    counted BIGINT -- after: our own count of the calls in between

ops.listings -- What a full refresh asks for, as the sources say (Source.whole)
    source VARCHAR NOT NULL
    endpoint VARCHAR NOT NULL
    dataset VARCHAR NOT NULL -- whose rows it lists; '': one call an account
    page INTEGER NOT NULL -- rows a call
    more INTEGER NOT NULL -- 1: a full page is followed by another call
    asked_by VARCHAR NOT NULL -- asked once for every value of this column
    listed VARCHAR NOT NULL -- lists the values of this column instead of rows
"""
_LINE = re.compile(r"    (\w+) ([A-Z]+(?:\(\d+,\d+\))?(?: NOT NULL)?)(?: -- (.+))?")


@dataclass(frozen=True)
class Table:
    """A table: what a row is, and its columns (their type with NOT NULL, where it has that)."""

    name: str
    comment: str
    columns: tuple[Column, ...]

    def statements(self) -> list[str]:
        """SQL that creates the table where it is missing, and says on it what it holds."""
        columns = ", ".join(f"{column.name} {column.type}" for column in self.columns)
        return [
            f"CREATE TABLE IF NOT EXISTS {self.name} ({columns})",
            comment_on("TABLE", self.name, self.comment),
            *comment_columns(self.name, self.columns),
        ]


def comment_on(kind: str, name: str, words: str) -> str:
    """SQL that comments on a TABLE or VIEW."""
    return f"COMMENT ON {kind} {name} IS {_quoted(words)}"


def comment_columns(name: str, columns: Iterable[Column]) -> list[str]:
    """SQL that comments on the columns of a table or view."""
    return [f"COMMENT ON COLUMN {name}.{c.name} IS {_quoted(c.comment)}" for c in columns]


def _quoted(words: str) -> str:
    return "'" + words.replace("'", "''") + "'"


def _parse(text: str) -> dict[str, Table]:
    """The tables of such a text, by name. Raises ValueError naming a line that is none of it."""
    tables: dict[str, Table] = {}
    for block in text.strip().split("\n\n"):
        head, *lines = block.splitlines()
        name, _, comment = head.partition(" -- ")
        columns = []
        for line in lines:
            if not (match := _LINE.fullmatch(line)):
                raise ValueError(f"{name}: not `column TYPE [NOT NULL] -- words`: {line!r}")
            columns.append(Column(match[1], match[2], match[3] or SHARED[match[1]]))
        tables[name] = Table(name, comment, tuple(columns))
    return tables


TABLES = _parse(TEXT)
