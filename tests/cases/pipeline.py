"""A run of the pipeline in this process, for accounts whose vendors answer from written worlds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from extract.core.errors import ExtractError
from extract.core.interval import Interval, utc
from extract.fetch import landing
from extract.fetch.call_log import call_log
from extract.fetch.client import Client
from extract.sources import all_sources
from ledgerhouse.check.run import check
from ledgerhouse.config import AccountsFile
from ledgerhouse.load.loader import LoadFailed, load
from ledgerhouse.plan import coverage
from ledgerhouse.publish.gate import NotChecked, publish_checked
from ledgerhouse.transform.touched_days import transform
from ledgerhouse.warehouse.connection import open_warehouse
from tests.cases.vendors import Vendors
from tests.helpers.books import Hurried, credentials

SIX_HOURS = timedelta(hours=6)
log = logging.getLogger(__name__)


def last_mark(now: datetime) -> datetime:
    """The last six-hour mark, up to which a sync at `now` reads."""
    return now.replace(hour=now.hour // 6 * 6, minute=0, second=0, microsecond=0)


@dataclass
class Pipeline:
    """A folder `var` with its accounts.toml: run(now) is what the DAG sync does at that moment.

    `failures` is {(source, account): text} of the fetches of the last run that failed,
    `refused` what is wrong with entries of its accounts.toml.
    """

    var: Path
    vendors: Vendors
    start: datetime = utc("2026-01-01T00:00:00Z")
    entries: list[dict[str, str]] = field(default_factory=list)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    extra: str = ""  # more of accounts.toml
    runs: int = 0

    def add(self, source: str, account: str, world: str) -> None:
        """An entry of accounts.toml, whose Connection opens the world of that name."""
        connection = f"{world}.{source}"
        self.entries.append({"source": source, "account": account, "connection": connection})

    def run(self, now: datetime) -> None:
        """Plan, fetch and load every account over [start, the last six-hour mark), then transform,
        check and publish."""
        self.vendors.now, self.failures = now, {}
        self.runs += 1
        run_id = f"run-{self.runs}"
        end = last_mark(now)
        blocks = ("\n".join(f"{k} = {json.dumps(v)}" for k, v in e.items()) for e in self.entries)
        text = "".join(f"[[account]]\n{block}\n\n" for block in blocks)
        (self.var / "accounts.toml").write_text(text + self.extra)
        sources, file = all_sources(), AccountsFile.read(self.var / "accounts.toml")
        accounts, self.refused = file.entries()
        for account in accounts:
            with open_warehouse(owner="cases") as con:
                jobs = coverage.jobs(
                    con, sources, [account], Interval(self.start, end), snapshot=True
                )
            for job in jobs:
                try:
                    self._fetch(sources[job.source], job, run_id)
                except ExtractError as error:
                    self.failures[job.source, job.account] = f"{type(error).__name__}: {error}"
        try:
            with open_warehouse(owner="cases") as con:
                load(con, self.var / "landing", sources)
            done = transform(owner="cases")
            spans = done.spans or [Interval(end - SIX_HOURS, end)]
            check(
                Interval(spans[0].start, spans[-1].end), run_id=run_id, owner="cases", spans=spans
            )
            publish_checked(done.batches, done.changed, run_id=run_id, owner="cases")
        except (LoadFailed, NotChecked) as error:
            self.failures["", type(error).__name__] = str(error)

    def _fetch(self, source, job, run_id: str) -> None:
        clock, run = Hurried(), {"dag_id": "sync", "run_id": run_id}
        with call_log(self.var / "calls", run) as record:
            client = Client(
                job.source,
                job.account,
                rates={},
                units=source.units,
                record=record,
                sleep=clock.sleep,
                timer=clock,
            )
            world = f"{self.vendors.url}/{job.connection.rpartition('.')[0]}"
            api = source.connect(**credentials(job.source, world))
            landing.write(self.var / "landing", job, source.fetch(client, api, job), run)


@contextmanager
def environment(var: Path) -> Iterator[None]:
    """The product's settings point to `var`."""
    settings: Mapping[str, str] = {
        "LEDGERHOUSE_VAR": str(var),
        "LEDGERHOUSE_ACCOUNTS": str(var / "accounts.toml"),
    }
    with patch.dict(os.environ, settings):
        yield
