"""The plan operator: which fetches make an interval complete, and what they will cost.

Heavy imports happen inside `execute`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from extract.core.interval import Interval, utc
from extract.core.source import Job
from extract.sources import all_sources
from ledgerhouse.config import AccountsFile, var_dir
from ledgerhouse.operate.airflow.context import lock_owner, resolve_interval
from ledgerhouse.operate.airflow.init import shared_limit
from ledgerhouse.operate.airflow.operators.budget import estimate
from ledgerhouse.operate.airflow.operators.recorded import RecordedOperator
from ledgerhouse.warehouse.connection import open_warehouse, require_all_loads


class PlanOperator(RecordedOperator):
    """Plan the fetches that make this run's interval complete, for the accounts of one connection.

    Returns a list of kwargs for FetchOperator, one a job. `history_start` is how far back an
    account that was never read is read; `close_gaps` asks for holes before the run's interval too,
    and for a balance snapshot.

    Says what the fetches will cost. What is more than the budget has left is begun all the same,
    a sync as a backfill: it stops before the call that would pass a limit, keeps what it has, and
    the next run goes on from there, so that a history too long for a day takes several.
    """

    template_fields: Sequence[str] = ("interval_start", "interval_end", "history_start")

    def __init__(
        self,
        *,
        connection: str,
        interval_start: str,
        interval_end: str,
        history_start: str,
        close_gaps: bool,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.connection, self.close_gaps = connection, close_gaps
        self.interval_start, self.interval_end = interval_start, interval_end
        self.history_start = history_start

    def work(self, context: Any, outcome: dict[str, Any]) -> list[dict[str, Any]]:
        asked = self.asked(context)
        file = AccountsFile.read()
        listed, _ = file.entries()
        mine, sources = [a for a in listed if a.connection == self.connection], all_sources()
        with open_warehouse(owner=lock_owner(context)) as con:
            require_all_loads(con, var_dir() / "landing")
            jobs, now = self.jobs(con, sources, mine, asked)
            costs = estimate(self.log, con, file, sources, mine, jobs, now)
        outcome["rows"] = len(jobs)
        for job in jobs:
            self.log.info(
                "%s %s: %s, read from %s", job.source, job.account, job.interval, job.read_from
            )
        if not jobs:
            self.log.info("nothing to fetch by connection %s: %s", self.connection, self.at_rest)
        elif mine:
            self._ensure_pool(mine[0].pool)
        context["ti"].xcom_push(
            key="estimate",
            value=[[*account, cost.calls, cost.units] for account, cost in sorted(costs.items())],
        )
        return [job.as_dict() for job in jobs]

    at_rest = "all of the interval is covered"

    def asked(self, context: Any) -> Any:
        """What the run is asked for: (interval, holes before it closed and balances too, refetch).

        Raises AirflowFailException before anything is opened.
        """
        params = context["params"]
        try:
            interval = resolve_interval(params, self.interval_start, self.interval_end)
        except ValueError as error:
            raise AirflowFailException(str(error)) from None
        run_type = str(getattr(context["dag_run"].run_type, "value", context["dag_run"].run_type))
        close_gaps = self.close_gaps and not params.get("interval_start") and run_type != "backfill"
        if close_gaps:  # holes that failed runs or downtime left are closed by this run
            start = Interval(utc(self.history_start), interval.end).start
            interval = Interval(min(start, interval.start), interval.end)
        return interval, close_gaps, bool(params.get("refetch"))

    def jobs(self, con: Any, sources: Any, mine: list, asked: Any) -> tuple[list[Job], datetime]:
        """The fetches, and up to when there are rows."""
        from ledgerhouse.plan import coverage

        interval, close_gaps, refetch = asked
        return coverage.jobs(
            con, sources, mine, interval, snapshot=close_gaps, refetch=refetch
        ), interval.end

    def _ensure_pool(self, pool: str) -> None:
        """A connection added to accounts.toml since the start has no pool yet, and a task whose
        pool is missing waits forever, without a word."""
        from ledgerhouse.operate.airflow.api import AirflowApi, AirflowUnreachable

        try:
            if AirflowApi.for_task().ensure_pool(pool, shared_limit(self.connection)):
                self.log.info("created the pool %s, with one slot", pool)
        except Exception as error:
            self.log.warning(
                "could not look for the pool %s (%s): where it is missing, the "
                "fetches wait for it; create it with one slot",
                pool,
                error if isinstance(error, AirflowUnreachable) else type(error).__name__,
            )


class RefuseOperator(RecordedOperator):
    """Fails with what is wrong with an entry of accounts.toml, so that the run is not green; the
    other accounts are synced all the same."""

    def __init__(self, *, why: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.why = why

    def work(self, context: Any, outcome: dict[str, Any]) -> None:
        raise AirflowFailException(self.why)
