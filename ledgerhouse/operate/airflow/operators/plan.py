"""Planning as Airflow operators: which fetches make an interval complete, and what they cost.

Heavy imports happen inside `execute`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from extract.core.errors import ExtractError, Fatal
from extract.core.interval import Interval
from extract.core.source import Job
from extract.fetch.client import Client
from extract.sources import all_sources
from ledgerhouse.config import AccountsFile, var_dir
from ledgerhouse.operate.airflow.context import facts_of, lock_owner, resolve_interval
from ledgerhouse.operate.run_log.attempts import attempt
from ledgerhouse.warehouse.connection import open_warehouse


def ledger(source: str) -> Any:
    """The ledger of a source that has a limit, else None; AirflowFailException for a wrong one.

    Of a file that is new it counts the call logs first, where no plan has counted before.
    """
    from extract.fetch.call_log import logged
    from ledgerhouse.plan.budget import from_logs, open_ledgers

    try:
        for ledger in open_ledgers(var_dir(), AccountsFile.read(what="budget").limits(), [source]):
            if not ledger.is_counted:
                ledger.recount(from_logs(lambda first: logged(var_dir() / "calls", first)))
            return ledger
    except ValueError as error:
        raise AirflowFailException(str(error)) from None
    return None


def read_units(
    log: Any, facts: dict[str, Any], connection: str, source: Any, accounts: list[str], moment: str
) -> dict[str, int]:
    """Note the units left by the vendor's count; what that took. A failure is told, no more."""
    from extract.fetch.call_log import call_log
    from ledgerhouse.load.unit_balances import note
    from ledgerhouse.operate.airflow.hooks import SourceHook

    client = None
    try:
        with call_log(var_dir() / "calls", facts) as record:
            api, units, secrets = SourceHook(connection).open(source)
            client = Client(
                source.name,
                accounts[0],
                rates=source.rates,
                units=units,
                record=record,
                secrets=secrets,
                tries=1,
                budget=ledger(source.name),
            )
            balance = source.remaining_units(client, api)
        note(
            var_dir() / "account_units",
            source=source.name,
            connection=connection,
            run_id=facts["run_id"],
            moment=moment,
            balance=balance,
            accounts=accounts,
        )
        log.info("%s, connection %s: %s units are left", source.name, connection, f"{balance:,}")
    except Exception as error:
        why = str(error) if isinstance(error, ExtractError) else type(error).__name__
        log.warning("the units left of connection %s could not be read: %s", connection, why)
    return {"calls": client.calls, "units": client.units_spent} if client else {}


class PlanOperator(BaseOperator):
    """Which fetches make this run's interval complete, for the accounts of one connection.

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

    def execute(self, context: Any) -> list[dict[str, Any]]:
        asked = self.asked(context)
        file = AccountsFile.read()
        listed, _ = file.entries()
        mine, sources = [a for a in listed if a.connection == self.connection], all_sources()
        with attempt(var_dir() / "attempts", facts_of(context)) as outcome:
            with open_warehouse(owner=lock_owner(context)) as con:
                jobs, now = self.jobs(con, sources, mine, asked)
                costs = self._budget(con, file, sources, mine, jobs, now)
            outcome["rows"] = len(jobs)
            for source in {job.source for job in jobs if sources[job.source].remaining_units}:
                planned = [job.account for job in jobs if job.source == source]
                others = [a.account for a in mine if a.source == source]
                outcome |= read_units(
                    self.log,
                    facts_of(context),
                    self.connection,
                    sources[source],
                    [planned[0], *others],
                    "before",
                )
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
            start = Interval(self.history_start, interval.end).start
            interval = Interval(min(start, interval.start), interval.end)
        return interval, close_gaps, bool(params.get("refetch"))

    def jobs(self, con: Any, sources: Any, mine: list, asked: Any) -> tuple[list[Job], datetime]:
        """The fetches, and up to when there are rows."""
        from ledgerhouse.plan import coverage

        interval, close_gaps, refetch = asked
        return coverage.jobs(
            con, sources, mine, interval, snapshot=close_gaps, refetch=refetch
        ), interval.end

    def _budget(
        self, con: Any, file: AccountsFile, sources: Any, mine: list, jobs: list[Job], now: datetime
    ) -> dict:
        """Count the ledger anew, note what is allowed, and say what the jobs will cost: that, by
        source and account."""
        from extract.fetch.call_log import logged
        from ledgerhouse.plan import spending
        from ledgerhouse.plan.budget import from_warehouse, open_ledgers
        from ledgerhouse.plan.estimate import Cost, Known, priced

        try:
            allowed = file.limits()
        except ValueError as error:
            raise AirflowFailException(str(error)) from None
        spending.record(con, sources.values(), [limit.as_row() for limit in allowed])
        ledgers = {
            one.source: one for one in open_ledgers(var_dir(), allowed, {a.source for a in mine})
        }
        for ledger in ledgers.values():
            ledger.recount(from_warehouse(con, lambda: logged(var_dir() / "calls")))
        if not jobs:
            return {}
        costs = priced(
            Known.read(con, sources, mine, now),
            sources,
            jobs,
            now,
            prices=self._prices(sources, {job.source for job in jobs}),
        )
        for source in sorted({source for source, _ in costs}):
            cost = sum((one for (name, _), one in costs.items() if name == source), Cost())
            self.log.info(
                "%s: %d fetches, about %s calls and %s units",
                source,
                len([job for job in jobs if job.source == source]),
                f"{cost.calls:,}",
                f"{cost.units:,}",
            )
            left = ledgers[source].remaining() if source in ledgers else {}
            for (measure, period), rest in left.items():
                if getattr(cost, measure) > rest:
                    self.log.warning(
                        "%s: about %s %s are needed, and the budget has %s left of this %s: the "
                        "run will stop there, keep what it has, and fail; the next goes on",
                        source,
                        f"{getattr(cost, measure):,}",
                        measure,
                        f"{max(rest, 0):,}",
                        period,
                    )
        return costs

    def _prices(self, sources: Any, wanted: set[str]) -> dict[str, dict[str, int]]:
        """Units by source and endpoint, as the Connection has them; where it cannot be opened, as
        assumed: the fetch will say why."""
        from ledgerhouse.operate.airflow.hooks import SourceHook

        found = {}
        for name in wanted:
            try:
                found[name] = SourceHook(self.connection).open(sources[name])[1]
            except Fatal:
                continue
        return found

    def _ensure_pool(self, pool: str) -> None:
        """A connection added to accounts.toml since the start has no pool yet, and a task whose
        pool is missing waits for ever, without a word."""
        from ledgerhouse.operate.airflow.api import AirflowApi

        try:
            if AirflowApi.for_task().ensure_pool(
                pool, f"accounts of connection {self.connection} share its rate limit"
            ):
                self.log.info("made the pool %s, with one slot", pool)
        except Exception as error:
            self.log.warning(
                "could not look for the pool %s (%s): where it is missing, the "
                "fetches wait for it; make it with one slot",
                pool,
                type(error).__name__,
            )


class RefuseOperator(BaseOperator):
    """Fails with what is wrong with an entry of accounts.toml, so that the run is not green; the
    other accounts are synced all the same."""

    def __init__(self, *, why: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.why = why

    def execute(self, context: Any) -> None:
        raise AirflowFailException(self.why)
