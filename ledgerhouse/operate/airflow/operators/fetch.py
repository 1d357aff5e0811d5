"""The fetch operator: one account of one source over one interval, into the landing.

Heavy imports happen inside `execute`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from airflow.sdk.exceptions import AirflowFailException

from extract.core.errors import BudgetReached, ExtractError, Fatal, FetchStopped
from extract.core.source import Job
from extract.fetch.client import Client, fetch
from extract.sources import get
from ledgerhouse.config import var_dir
from ledgerhouse.operate.airflow.context import attempt_key
from ledgerhouse.operate.airflow.operators.budget import ledger
from ledgerhouse.operate.airflow.operators.recorded import RecordedOperator


class FetchOperator(RecordedOperator):
    """Fetch one account of one source over one interval into the landing.

    A failure lands nothing: the interval stays uncovered and the next run asks for it. Only
    where no more may be spent (FetchStopped) it lands what was read, and the next run asks for the rest.
    """

    template_fields: Sequence[str] = ("interval_start", "interval_end")
    map_index_template = "{{ task.source }} {{ task.account }} {{ task.interval_start }}"

    def __init__(
        self,
        *,
        source: str,
        account: str,
        connection: str,
        interval_start: str,
        interval_end: str,
        read_from: str,
        snapshot: bool,
        known: Mapping[str, str] | None = None,
        unread: Mapping[str, str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.source, self.account, self.connection = source, account, connection
        self.interval_start, self.interval_end = interval_start, interval_end
        self.read_from, self.snapshot = read_from, snapshot
        self.known, self.unread = known or {}, unread or {}

    def job(self) -> dict[str, str]:
        return {
            "source": self.source,
            "account": self.account,
            "interval_start": self.interval_start,
            "interval_end": self.interval_end,
        }

    def work(self, context: Any, outcome: dict[str, Any]) -> str:
        from extract.fetch import encryption, landing
        from extract.fetch.call_log import call_log
        from ledgerhouse.operate.airflow.hooks import SourceHook

        encryption.for_writing(var_dir() / "landing")  # or what is paid for could not be kept
        key, source = attempt_key(context), get(self.source)
        job = Job.from_dict(
            {
                k: getattr(self, k)
                for k in (
                    "source",
                    "account",
                    "connection",
                    "interval_start",
                    "interval_end",
                    "read_from",
                    "snapshot",
                    "known",
                    "unread",
                )
            }
        )
        with call_log(var_dir() / "calls", key) as record:
            client, secrets, hook = None, (), SourceHook(self.connection)
            try:
                api, units, secrets = hook.open(source)
                client = Client(
                    job.source,
                    job.account,
                    rates=source.rates,
                    units=units,
                    record=record,
                    secrets=secrets,
                    budget=ledger(job.source),
                )
                fetched = fetch(source, client, api, job)
            except ExtractError as error:
                if isinstance(error, FetchStopped) and error.partial and error.partial.pages:
                    landing.write(var_dir() / "landing", job, error.partial, key, secrets)
                    outcome["rows"] = len(error.partial.pages)
                    self.log.info(
                        "stopped; %d pages are kept, and whole are: %s",
                        len(error.partial.pages),
                        ", ".join(f"{c.dataset} {c.interval}" for c in error.partial.covered)
                        or "none",
                    )
                outcome |= _described(error)
                text = f"{type(error).__name__}: {hook.advice(error, source)}"
                if isinstance(error, Fatal):  # asking again would meet the same
                    raise AirflowFailException(text) from None
                raise cast("Callable[[str], ExtractError]", type(error))(text) from None
            finally:
                outcome |= {
                    "calls": client.calls if client else 0,
                    "units": client.units_spent if client else 0,
                }
            file = landing.write(var_dir() / "landing", job, fetched, key, secrets)
            outcome["rows"] = len(fetched.pages)
        self.log.info(
            "%s %s %s: %d pages in %d calls, %d units",
            job.source,
            job.account,
            job.interval,
            len(fetched.pages),
            outcome["calls"],
            outcome["units"],
        )
        return file.name


def _described(error: ExtractError) -> dict[str, str]:
    """What the run log says of an error besides its text; alerts go by it."""
    described = {"error_type": type(error).__name__}
    if isinstance(error, BudgetReached):
        limit = {"measure": error.measure, "period": error.period, "allowed": error.allowed}
        described["error_fields"] = json.dumps(limit)
    return described
