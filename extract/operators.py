"""The tasks of a run, as Airflow operators: plan, fetch, load, transform, check, publish, mirror;
the last one, alert, is in alert_operators.

Fetch runs in parallel and never opens the warehouse. All others open it, so they share the
pool `warehouse`, which has one slot. Heavy imports happen inside `execute`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from extract.attempts import attempt
from extract.client import Client, ExtractError, Fatal, Stop, UnitsExhausted
from extract.source import Interval, Job
from extract.sources import all_sources, get, read_accounts
from extract.warehouse import open_warehouse, var_dir, warehouse_path

WAREHOUSE_POOL = "warehouse"
DAG_IDS = ("sync", "history", "replay", "weekly_refresh")

# Params of every DAG that fetches; empty means: the run's own data interval.
PARAMS = {
    "interval_start": Param(None, type=["null", "string"], description="start, UTC, included"),
    "interval_end": Param(None, type=["null", "string"], description="end, UTC, excluded"),
    "refetch": Param(False, type="boolean", description="ask again for what is covered already"),
}


def accounts_file() -> Path:
    """$LEDGERHOUSE_ACCOUNTS, else accounts.toml in the project."""
    return Path(os.environ.get("LEDGERHOUSE_ACCOUNTS")
                or Path(__file__).parents[1] / "accounts.toml")


def resolve_interval(params: dict[str, Any], start: str, end: str) -> Interval:
    """The interval of a run: the params, else its non-empty data interval, else ValueError.

    `start` and `end` are the rendered data interval; a manual run without one renders "" or
    "None", and a plain cron schedule would render an empty one.
    """
    params = {k: v for k, v in params.items() if v}
    if "interval_start" in params or "interval_end" in params:
        if not {"interval_start", "interval_end"} <= params.keys():
            raise ValueError("give both params, interval_start and interval_end, or neither")
        return Interval(params["interval_start"], params["interval_end"])
    if str(start) in ("", "None") or str(end) in ("", "None"):
        raise ValueError(
            "this run has no data interval (a manual run has none). Trigger it with the params "
            '{"interval_start": "2026-01-01T00:00:00Z", "interval_end": "2026-01-01T06:00:00Z"}')
    if str(start) == str(end):
        raise ValueError(
            f"this run's data interval is empty ({start} to {end}): its DAG needs "
            "CronDataIntervalTimetable, or give the params interval_start and interval_end")
    return Interval(str(start), str(end))


def _facts(context: Any) -> dict[str, Any]:
    """Who this attempt is: the key of ops.sync_runs."""
    ti = context["ti"]
    return {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id,
            "map_index": ti.map_index if ti.map_index is not None else -1,
            "try_number": ti.try_number}


def _who(context: Any) -> str:
    return "task {dag_id}.{task_id} of run {run_id}".format(**_facts(context))


def _ledger(source: str) -> Any:
    """The ledger of a source that has a limit, else None; AirflowFailException for a wrong one.

    Of a file that is new it counts the call logs first, where no plan has counted before.
    """
    from extract.budget import from_logs, limits, open_ledgers
    from extract.calls import logged

    try:
        for ledger in open_ledgers(var_dir(), limits(accounts_file()), [source]):
            if not ledger.is_counted:
                ledger.recount(from_logs(lambda first: logged(var_dir() / "calls", first)))
            return ledger
    except ValueError as error:
        raise AirflowFailException(str(error)) from None
    return None


def _read_units(log: Any, facts: dict[str, Any], connection: str, source: Any,
                accounts: list[str], moment: str) -> dict[str, int]:
    """Note the units left by the vendor's count; what that took. A failure is told, no more."""
    from extract.account_units import note
    from extract.calls import call_log
    from extract.hooks import SourceHook

    client = None
    try:
        with call_log(var_dir() / "calls", facts) as record:
            api, units, secrets = SourceHook(connection).open(source)
            client = Client(source.name, accounts[0], rates=source.rates, units=units,
                            record=record, secrets=secrets, tries=1, budget=_ledger(source.name))
            balance = source.left(client, api)
        note(var_dir() / "account_units", source=source.name, connection=connection,
             run_id=facts["run_id"], moment=moment, balance=balance, accounts=accounts)
        log.info("%s, connection %s: %s units are left", source.name, connection, f"{balance:,}")
    except Exception as error:
        why = str(error) if isinstance(error, ExtractError) else type(error).__name__
        log.warning("the units left of connection %s could not be read: %s", connection, why)
    return {"calls": client.calls, "units": client.units_spent} if client else {}


class PlanOperator(BaseOperator):
    """Which fetches make this run's interval complete, for the accounts of one connection.

    Returns a list of kwargs for FetchOperator, one a job. `history_start` is how far back an
    account that was never read is read; `whole` asks for holes before the run's interval too,
    and for a balance snapshot.

    Says what the fetches will cost. What is more than the budget has left is begun all the same,
    a sync as a backfill: it stops before the call that would pass a limit, keeps what it has, and
    the next run goes on from there, so that a history too long for a day takes several.
    """

    template_fields: Sequence[str] = ("interval_start", "interval_end", "history_start")

    def __init__(self, *, connection: str, interval_start: str, interval_end: str,
                 history_start: str, whole: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.connection, self.whole = connection, whole
        self.interval_start, self.interval_end = interval_start, interval_end
        self.history_start = history_start

    def execute(self, context: Any) -> list[dict[str, Any]]:
        from extract import coverage

        params = context["params"]
        try:
            interval = resolve_interval(params, self.interval_start, self.interval_end)
        except ValueError as error:
            raise AirflowFailException(str(error)) from None
        run_type = str(getattr(context["dag_run"].run_type, "value", context["dag_run"].run_type))
        asked = bool(params.get("interval_start")) or run_type == "backfill"
        requested = interval
        if self.whole and not asked:
            # Holes that failed runs or downtime left are closed by this run.
            start = Interval(self.history_start, interval.end).start
            requested = Interval(min(start, interval.start), interval.end)
        listed, _ = read_accounts(accounts_file())
        mine, sources = [a for a in listed if a.connection == self.connection], all_sources()
        with attempt(var_dir() / "attempts", _facts(context)) as outcome:
            with open_warehouse(who=_who(context)) as con:
                jobs = coverage.jobs(
                    con, sources, mine, requested, snapshot=self.whole and not asked,
                    refetch=bool(params.get("refetch")))
                self._budget(con, sources, mine, jobs, requested)
            outcome["rows"] = len(jobs)
            for source in {job.source for job in jobs if sources[job.source].left}:
                planned = [job.account for job in jobs if job.source == source]
                others = [a.account for a in mine if a.source == source]
                outcome |= _read_units(self.log, _facts(context), self.connection,
                                       sources[source], [planned[0], *others], "before")
        for job in jobs:
            self.log.info("%s %s: %s, read from %s", job.source, job.account, job.interval,
                          job.tail)
        if not jobs:
            self.log.info("%s is covered: nothing to fetch", requested)
        elif mine:
            self._ensure_pool(mine[0].pool)
        return [job.as_dict() for job in jobs]

    def _budget(self, con: Any, sources: Any, mine: list, jobs: list[Job],
                requested: Interval) -> None:
        """Count the ledger anew, note what is allowed, and say what the jobs will cost."""
        from extract import spending
        from extract.budget import from_warehouse, limits, open_ledgers
        from extract.calls import logged
        from extract.commands.estimate import Known, priced

        try:
            allowed = limits(accounts_file())
        except ValueError as error:
            raise AirflowFailException(str(error)) from None
        spending.record(con, sources.values(), [limit.as_row() for limit in allowed])
        ledgers = {one.source: one for one in open_ledgers(
            var_dir(), allowed, {a.source for a in mine})}
        for ledger in ledgers.values():
            ledger.recount(from_warehouse(con, lambda: logged(var_dir() / "calls")))
        if not jobs:
            return
        known = Known.read(con, sources, mine, requested.end)
        for source, cost in priced(known, sources, jobs, requested.end).items():
            self.log.info("%s: %d fetches, about %s calls and %s units", source, len(
                [job for job in jobs if job.source == source]), f"{cost.calls:,}",
                f"{cost.units:,}")
            left = ledgers[source].left() if source in ledgers else {}
            for (measure, period), rest in left.items():
                if getattr(cost, measure) > rest:
                    self.log.warning(
                        "%s: about %s %s are needed, and the budget has %s left of this %s: the "
                        "run will stop there, keep what it has, and fail; the next goes on",
                        source, f"{getattr(cost, measure):,}", measure, f"{max(rest, 0):,}", period)

    def _ensure_pool(self, pool: str) -> None:
        """A connection added to accounts.toml since the start has no pool yet, and a task whose
        pool is missing waits for ever, without a word."""
        from extract.hooks import AirflowHook

        try:
            if AirflowHook().ensure_pool(pool, f"accounts of connection {self.connection} share "
                                               "its rate limit"):
                self.log.info("made the pool %s, with one slot", pool)
        except Exception as error:
            self.log.warning("could not look for the pool %s (%s): where it is missing, the "
                             "fetches wait for it; make it with one slot", pool,
                             type(error).__name__)


class RefuseOperator(BaseOperator):
    """Fails with what is wrong with an entry of accounts.toml, so that the run is not green; the
    other accounts are synced all the same."""

    def __init__(self, *, why: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.why = why

    def execute(self, context: Any) -> None:
        raise AirflowFailException(self.why)


class FetchOperator(BaseOperator):
    """Fetch one account of one source over one interval into the landing.

    A failure lands nothing: the interval stays uncovered and the next run asks for it. Only
    where no more may be spent (Stop) it lands what was read, and the next run asks for the rest.
    """

    template_fields: Sequence[str] = ("interval_start", "interval_end")
    map_index_template = "{{ task.source }} {{ task.account }} {{ task.interval_start }}"

    def __init__(self, *, source: str, account: str, connection: str, interval_start: str,
                 interval_end: str, tail: str, snapshot: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.source, self.account, self.connection = source, account, connection
        self.interval_start, self.interval_end = interval_start, interval_end
        self.tail, self.snapshot = tail, snapshot

    def execute(self, context: Any) -> str:
        from extract import landing
        from extract.calls import call_log
        from extract.hooks import SourceHook

        facts, source = _facts(context), get(self.source)
        job = Job.from_dict({k: getattr(self, k) for k in (
            "source", "account", "connection", "interval_start", "interval_end", "tail",
            "snapshot")})
        about = {"source": job.source, "account": job.account,
                 "interval_start": self.interval_start, "interval_end": self.interval_end}
        with attempt(var_dir() / "attempts", facts, **about) as outcome, \
                call_log(var_dir() / "calls", facts) as record:
            client, secrets, hook = None, (), SourceHook(self.connection)
            try:
                api, units, secrets = hook.open(source)
                client = Client(job.source, job.account, rates=source.rates, units=units,
                                record=record, secrets=secrets, budget=_ledger(job.source))
                fetched = source.fetch(client, api, job)
            except ExtractError as error:
                if isinstance(error, Stop) and error.kept and error.kept.pages:
                    landing.write(var_dir() / "landing", job, error.kept, facts, secrets)
                    outcome["rows"] = len(error.kept.pages)
                    self.log.info("stopped; %d pages are kept, and whole are: %s", len(
                        error.kept.pages), ", ".join(
                            f"{c.dataset} {c.interval}" for c in error.kept.covered) or "none")
                words = f"{type(error).__name__}: {hook.told(error, source)}"
                if isinstance(error, Fatal):  # asking again would meet the same
                    raise AirflowFailException(words) from None
                raise type(error)(words) from None
            finally:
                outcome |= {"calls": client.calls if client else 0,
                            "units": client.units_spent if client else 0}
            file = landing.write(var_dir() / "landing", job, fetched, facts, secrets)
            outcome["rows"] = len(fetched.pages)
        self.log.info("%s %s %s: %d pages in %d calls, %d units", job.source, job.account,
                      job.interval, len(fetched.pages), client.calls, client.units_spent)
        return file.name


class LoadOperator(BaseOperator):
    """Load everything that waits in the landing, and the call logs."""

    def execute(self, context: Any) -> dict[str, int]:
        from dataclasses import asdict

        from extract.account_units import load_readings, waiting
        from extract.calls import load_calls
        from extract.loader import load

        facts, units = _facts(context), var_dir() / "account_units"
        with attempt(var_dir() / "attempts", facts) as outcome:
            # Oldest first: what an attempt that was killed has read since is not read again.
            read = {told["connection"]: told for _, told in waiting(units)
                    if told["run_id"] == facts["run_id"]}
            for connection, told in read.items():
                if told["moment"] == "before":
                    outcome |= _read_units(self.log, facts, connection, get(told["source"]),
                                           told["accounts"], "after")
            with open_warehouse(who=_who(context)) as con:
                load_calls(con, var_dir() / "calls")
                load_readings(con, units, facts["run_id"])
                loaded = load(con, var_dir() / "landing", all_sources())
            outcome["rows"] = loaded.new + loaded.changed
        return asdict(loaded)


class ReplayOperator(BaseOperator):
    """Rebuild raw, history and coverage from the landing alone, without a call."""

    def execute(self, context: Any) -> dict[str, Any]:
        from dataclasses import asdict

        from extract.replay import replay

        with attempt(var_dir() / "attempts", _facts(context)) as outcome:
            done = replay(warehouse_path(), var_dir() / "landing", all_sources(),
                          who=_who(context), tell=self.log.info)
            outcome["rows"] = done.loaded.rows
        for table, rows in done.differences.items():
            self.log.warning("%s: %d rows are not as they were", table, rows)
        return asdict(done)


class TransformOperator(BaseOperator):
    """Rebuild the curated days that loads have touched. The marks stay until they are published."""

    def execute(self, context: Any) -> dict[str, Any]:
        from extract.transform import coalesce, transform

        with attempt(var_dir() / "attempts", _facts(context)) as outcome:
            done = transform(who=_who(context))
            outcome["rows"] = len(done.marks)
        spans = coalesce((day for _, day, _ in done.marks), limit=64)
        return {"batches": sorted({batch for _, _, batch in done.marks}),
                "spans": [[str(first), str(after)] for first, after in spans]}


class CheckOperator(BaseOperator):
    """Validate raw and curated over the days transformed.

    Fails on a critical expectation; a warning is logged and recorded in ops.checkpoints.
    """

    template_fields: Sequence[str] = ("interval_start", "interval_end")

    def __init__(self, *, transform: str, interval_start: str, interval_end: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.transform = transform
        self.interval_start, self.interval_end = interval_start, interval_end

    def execute(self, context: Any) -> dict[str, int]:
        from extract.checks import check

        done = context["ti"].xcom_pull(task_ids=self.transform) or {}
        spans = [Interval(first, after) for first, after in done.get("spans", [])]
        if spans:
            interval = Interval(spans[0].start, spans[-1].end)
        else:
            interval = resolve_interval(context["params"], self.interval_start,
                                        self.interval_end)
        with attempt(var_dir() / "attempts", _facts(context)) as outcome:
            results = check(interval, run_id=context["ti"].run_id, who=_who(context),
                            spans=spans)
            outcome["rows"] = len(results)
            failed = [r for r in results if not r.success]
            for result in failed:
                self.log.warning("%s: %s", result.severity, result)
            critical = [r for r in failed if r.severity == "critical"]
            if critical:
                raise AirflowFailException(
                    f"{len(critical)} critical expectation(s) failed over {interval}: "
                    + "; ".join(f"{r.checkpoint} {r.expectation}" for r in critical[:5])
                    + ". Nothing is published; see the Data Docs, mend the cause and clear "
                    "this task")
        return {"passed": len(results) - len(failed), "warnings": len(failed)}


class PublishOperator(BaseOperator):
    """Publish the months that the run has touched and checked; then, and only then, drop the marks.

    Skips itself when another run has loaded since: that run's books will have these days too.
    """

    def __init__(self, *, transform: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.transform = transform

    def execute(self, context: Any) -> dict[str, int]:
        from extract.checks import NotChecked, Overtaken, publish_checked

        done = context["ti"].xcom_pull(task_ids=self.transform) or {}
        try:
            with attempt(var_dir() / "attempts", _facts(context)) as outcome:
                published = publish_checked(done.get("batches", []), who=_who(context),
                                            run_id=context["ti"].run_id)
                outcome["rows"] = published.rows
        except NotChecked as error:
            raise AirflowFailException(str(error)) from None
        except Overtaken as error:
            raise AirflowSkipException(str(error)) from None
        return {"generation": published.generation, "files": len(published.files),
                "months": len(published.months), "rows": published.rows,
                "bytes": published.bytes, "removed": published.removed}


class MirrorOperator(BaseOperator):
    """Copy Airflow's run history into ops.sync_runs: a teardown, so it also sees failed runs."""

    def execute(self, context: Any) -> int:
        from extract.hooks import AirflowHook
        from extract.mirror import mirror

        facts = _facts(context)
        with open_warehouse(who=_who(context)) as con:
            return mirror(con, AirflowHook().get, var_dir() / "attempts", DAG_IDS,
                          own=tuple(facts.values()))


def pipeline(*, whole: bool) -> None:
    """The tasks of one run, inside a DAG: plan → fetch (per account) → load … mirror.

    A failed fetch does not keep the others from being loaded, and fails the run: `complete`
    is a leaf that succeeds only when every fetch and the check did.
    """
    from airflow.providers.standard.operators.empty import EmptyOperator

    interval = {"interval_start": "{{ data_interval_start }}",
                "interval_end": "{{ data_interval_end }}"}
    load = LoadOperator(task_id="load", pool=WAREHOUSE_POOL, trigger_rule="all_done")
    complete = EmptyOperator(task_id="complete", trigger_rule="none_failed")
    listed, wrong = read_accounts(accounts_file())
    for number, why in wrong.items():
        RefuseOperator(task_id=f"account_{number}_of_accounts_toml", why=why, retries=0) >> complete
    for connection, pool in {a.connection: a.pool for a in listed}.items():
        plan = PlanOperator(
            task_id=f"plan_{connection}", pool=WAREHOUSE_POOL, connection=connection,
            history_start="{{ var.value.start_ts }}", whole=whole, **interval)
        fetch = FetchOperator.partial(task_id=f"fetch_{connection}", pool=pool).expand_kwargs(
            plan.output)
        fetch >> [load, complete]
    believe(load, complete)


def replay_pipeline() -> None:
    """The tasks of a replay: replay → transform → check → publish … mirror."""
    from airflow.providers.standard.operators.empty import EmptyOperator

    complete = EmptyOperator(task_id="complete", trigger_rule="none_failed")
    believe(ReplayOperator(task_id="replay", pool=WAREHOUSE_POOL), complete)


def believe(load: BaseOperator, complete: BaseOperator) -> None:
    """What follows new raw rows, however they came: transform → check → publish, the mirror, and
    the alerts, which want to know how the run went."""
    from extract.alert_operators import AlertOperator

    interval = {"interval_start": "{{ data_interval_start }}",
                "interval_end": "{{ data_interval_end }}"}
    # A file that could not be loaded keeps the others' days from nobody.
    transform = TransformOperator(task_id="transform", pool=WAREHOUSE_POOL,
                                  trigger_rule="all_done")
    check = CheckOperator(task_id="check", pool=WAREHOUSE_POOL, transform="transform", **interval)
    mirror = MirrorOperator(task_id="mirror", pool=WAREHOUSE_POOL).as_teardown(
        on_failure_fail_dagrun=False)
    publish = PublishOperator(task_id="publish", pool=WAREHOUSE_POOL, transform="transform")
    load >> transform >> check >> publish >> complete
    load >> complete
    # `complete` is done with the first fetch that fails, while the others still run.
    [load, transform, check, publish, complete] >> mirror
    # No slot of the pool: it takes its turn at the warehouse's lock, and sends without it.
    mirror >> AlertOperator(task_id="alert").as_teardown(on_failure_fail_dagrun=False)


__all__ = ["CheckOperator", "FetchOperator", "LoadOperator", "MirrorOperator", "PARAMS",
           "PlanOperator", "PublishOperator", "ReplayOperator", "TransformOperator", "UnitsExhausted",
           "pipeline", "replay_pipeline", "resolve_interval"]
