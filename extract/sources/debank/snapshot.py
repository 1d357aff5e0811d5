"""What a wallet holds just now: its tokens, its positions in protocols, and the chains it uses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from extract.core.errors import BodyTooLarge, ExtractError, Retriable
from extract.core.interval import Interval
from extract.core.source import Covered, Fetched, Job, Page, Unread
from extract.fetch.client import Client
from extract.sources.debank.calls import CHAINS, POSITIONS, TOKENS, get

CHAIN_PART = "chain:"  # + id: its state is the id of its native token
POSITIONS_PART = "positions"  # its state is the UTC day of the newest


def read_tokens(client: Client, session: Any, got: Fetched, job: Job) -> set[str]:
    """The token balances, added to `got`; returns the chains of those that are held."""
    params = {"id": job.account, "is_all": "true"}
    answer = get(client, session, TOKENS, params, _no_list("tokens"), got.pages, True)
    got.covered.append(_at("balances", answer.received_at, "the list is not paged"))
    return {
        row["chain"]
        for row in answer.data
        if isinstance(row, dict) and row.get("chain") and isinstance(row["chain"], str)
    }


def read_positions(client: Client, session: Any, got: Fetched, job: Job) -> None:
    """The positions in protocols, added to `got`: with the first snapshot of a UTC day only.

    They are no part of the token balances, so where they cannot be read they are named as unread.
    """
    day = max(page.received_at for page in got.pages)
    if job.known.get(POSITIONS_PART) == f"{day:%Y-%m-%d}":
        return
    try:
        answer = get(
            client,
            session,
            POSITIONS,
            {"id": job.account},
            _no_list("protocols"),
            got.pages,
            True,
        )
    except ExtractError as error:
        if not _only_here(error):
            raise
        why = f"{POSITIONS}: {error}"
        span = _at("positions", day, why).interval
        got.unread.append(Unread("positions", POSITIONS_PART, span, why))
        return
    read = _at("positions", answer.received_at, "the list is not paged")
    if since := job.unread.get(POSITIONS_PART):  # the newest list is all that there is to read
        read = replace(read, interval=Interval(min(since, answer.received_at), read.interval.end))
    got.covered.append(read)
    got.part_states[POSITIONS_PART] = f"{answer.received_at:%Y-%m-%d}"


def _only_here(error: ExtractError) -> bool:
    """Whether an error is this endpoint's own: not the key's, the units', or a lost connection's."""
    return (
        isinstance(error, BodyTooLarge)
        or error.status in (400, 404)
        or (isinstance(error, Retriable) and error.status is not None)
    )


@dataclass
class Chains:
    """The chains of a wallet: `shown` by its rows, `too_full` seconds of theirs, and, once asked
    for, the vendor's list. Used by the threads of a walk."""

    client: Client
    session: Any
    job: Job
    shown: set[str] = field(default_factory=set)
    too_full: dict[tuple[str, int], str] = field(default_factory=dict)
    pages: list[Page] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)  # of Fetched.part_states
    _lock: Lock = field(default_factory=Lock)

    def listed(self, also: Iterable[str] = ()) -> list[str]:
        """The chains that the vendor lists for the wallet, asked once a fetch, and `also` these."""
        with self._lock:
            if not self.pages:
                self._read()
        return sorted({part.removeprefix(CHAIN_PART) for part in self.states} | {*also})

    def read_if_new(self) -> None:
        """Ask for the list where a row is of a chain whose native token is not known yet."""
        parts = {CHAIN_PART + chain for chain in self.shown}
        if parts - self.job.known.keys() - self.states.keys():
            self.listed()
            # Not listed, it would be asked for at each sync: its gas is booked by its own id.
            self.states |= dict.fromkeys(parts - self.job.known.keys() - self.states.keys(), "")

    def _read(self) -> None:
        params = {"id": self.job.account}
        answer = get(self.client, self.session, CHAINS, params, _no_list("chains"), self.pages)
        for row in answer.data:
            if isinstance(row, dict) and isinstance(row.get("id"), str) and row["id"]:
                self.states[CHAIN_PART + row["id"]] = str(row.get("native_token_id") or "")


def _no_list(what: str):
    return lambda data: None if isinstance(data, list) else f"not a list of {what}"


def _at(dataset: str, as_of: datetime, reason: str) -> Covered:
    return Covered(dataset, Interval(as_of, as_of + timedelta(seconds=1)), reason)
