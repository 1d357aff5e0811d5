"""The plan of a backfill: whether it can be run, its intervals, and what they would cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from extract.core.interval import UTC, Interval, iso, utc
from ledgerhouse.operate.airflow.api import AirflowApi, AirflowApiError
from ledgerhouse.operate.airflow.context import TAG
from ledgerhouse.operate.commands import CommandFailed
from ledgerhouse.operate.commands.spending import summed
from ledgerhouse.operate.commands.tables import rows
from ledgerhouse.plan.estimate import Cost, Known, simulate, total
from ledgerhouse.warehouse.spending_views import CALLED

BACKFILLED = "sync"  # the id of our DAG that is backfilled, unless it was given another
LEFT = {"day": "left_today", "month": "left_month"}
WAIT_S = 5.0  # for the warehouse, where nothing is published yet


@dataclass(frozen=True)
class Plan:
    """A backfill to be created: the DAG as Airflow has it, and the runs, in order."""

    dag: dict[str, Any]
    request: dict[str, Any]  # the body of Airflow's backfill
    runs: list[datetime]  # their logical dates
    intervals: list[Interval]  # theirs, likewise
    known: int  # runs that exist already and are not run again
    costs: list[dict[str, Cost]] | None = None  # by run; None: no estimate for this DAG
    by_history: dict[str, Cost] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def span(self) -> Interval:
        return Interval(min(i.start for i in self.intervals), max(i.end for i in self.intervals))


def dates(args: Any, now: datetime) -> tuple[datetime, datetime]:
    """Both ends of the range; one alone stands for both, as in Airflow 2."""
    if not args.start_date and not args.end_date:
        raise CommandFailed(
            "give a range: -s 2024-01-01 -e 2024-06-30 (--start-date, --end-date)", 2
        )
    start, end = utc(args.start_date or args.end_date), utc(args.end_date or args.start_date)
    if end < start:
        raise CommandFailed(f"the end {iso(end)} is before the start {iso(start)}", 2)
    for name, moment in (("start", start), ("end", end)):
        if moment > now:
            raise CommandFailed(
                f"the {name} {iso(moment)} is in the future (it is {iso(now)}): "
                "only what has happened can be fetched",
                2,
            )
    return start, end


def params(text: str | None) -> dict[str, Any]:
    """--conf, parsed."""
    try:
        conf = json.loads(text or "{}")
    except ValueError as error:
        raise CommandFailed(
            f"--conf is no JSON ({error}): write it like '{{\"refetch\": true}}'", 2
        ) from None
    if not isinstance(conf, dict):
        raise CommandFailed(f"--conf is {text}; it must be a JSON object of params", 2)
    if {"interval_start", "interval_end"} & set(conf):
        raise CommandFailed(
            "--conf with interval_start or interval_end would give every run the "
            "same interval; leave them out, or use --history",
            2,
        )
    return conf


def dag_of(airflow: AirflowApi, dag_id: str) -> dict[str, Any]:
    """The DAG, when it can be backfilled now. CommandFailed saying why not."""
    try:
        dag = airflow.call("GET", f"/dags/{dag_id}/details")
    except AirflowApiError as error:
        if error.status != 404:
            raise CommandFailed(f"{dag_id}: {error}") from None
        known = ", ".join(sorted(d["dag_id"] for d in airflow.all("/dags", "dags")))
        raise CommandFailed(
            f"Airflow knows no DAG {dag_id!r}; it knows: {known or 'none yet'}", 2
        ) from None
    ours = is_ours(dag)
    if (ours and not fetches_its_interval(dag)) or not dag["timetable_periodic"]:
        instead = (
            f"for a range, airflow dags backfill … {BACKFILLED}; in few calls, with --history"
            if ours
            else "trigger it instead"
        )
        raise CommandFailed(
            f"{dag_id} cannot be backfilled: its runs are not those of an interval "
            f"each ({instead})",
            2,
        )
    if dag["is_paused"]:
        raise CommandFailed(
            f"{dag_id} is paused, so its runs would never start: airflow dags unpause {dag_id}"
        )
    return dag


def is_ours(dag: dict[str, Any]) -> bool:
    return any(tag["name"] == TAG for tag in dag["tags"])


def fetches_its_interval(dag: dict[str, Any]) -> bool:
    """Whether a run of the DAG fetches its own interval and no more, as those of `sync` do; a
    refresh chooses what it reads."""
    return is_ours(dag) and dag["timetable_periodic"] and "refetch" in (dag["params"] or {})


def plan_backfill(airflow: AirflowApi, args: Any, now: datetime) -> Plan:
    """The backfill that the arguments ask for, checked against Airflow and the books."""
    (start, end), conf = dates(args, now), params(args.conf)
    dag = dag_of(airflow, args.dag_id)
    begins = dag["start_date"] and utc(dag["start_date"])
    if begins and start < begins:
        where = " (SYNC_START_DATE in .env, which follows START_TS)" * fetches_its_interval(dag)
        raise CommandFailed(
            f"{args.dag_id} begins at {iso(begins)}{where}: Airflow gives runs "
            f"before that no task. Set it back, or begin with -s {begins:%Y-%m-%d}",
            2,
        )
    if not airflow.scheduler_is_alive():
        raise CommandFailed(f"no scheduler is alive at {airflow.url}: nothing would run")
    behaviour = (
        "completed" if args.reset_dagruns else "failed" if args.rerun_failed_tasks else "none"
    )
    request = {
        "dag_id": args.dag_id,
        "from_date": iso(start),
        "to_date": iso(end),
        "run_backwards": args.run_backwards,
        "dag_run_conf": conf,
        "reprocess_behavior": behaviour,
        "max_active_runs": args.max_active_runs or dag["max_active_runs"] or 1,
    }
    try:
        wanted_runs = airflow.call("POST", "/backfills/dry_run", request)["backfills"]
        every_run = (
            wanted_runs
            if args.reset_dagruns
            else airflow.call(
                "POST", "/backfills/dry_run", request | {"reprocess_behavior": "completed"}
            )["backfills"]
        )
    except AirflowApiError as error:
        raise CommandFailed(
            f"Airflow creates no such backfill of {args.dag_id}: {error}", 2
        ) from None
    runs = [utc(run["logical_date"]) for run in wanted_runs]
    all_runs = [utc(run["logical_date"]) for run in every_run]
    if not all_runs:
        raise CommandFailed(
            f"no interval of {args.dag_id} ({dag['timetable_summary']}) that is "
            f"over begins from {iso(start)} to {iso(end)}",
            2,
        )
    # What history would have to fetch is the whole range, whatever runs there were.
    wanted = all_runs if args.history else runs
    plan = Plan(dag, request, runs, intervals(dag, wanted), len(all_runs) - len(runs))
    if end == end.replace(hour=0, minute=0, second=0) and len(all_runs) > 1:
        last = max(i.end for i in intervals(dag, all_runs))
        if last.date() == end.date():
            whole_day = end + timedelta(days=1) - (last - end)
            plan.remarks.append(
                f"The last run ends at {iso(last)}: -e {end:%Y-%m-%d} is the midnight that day "
                f"begins with. For all of it: -e {whole_day:%Y-%m-%dT%H:%M}"
            )
    return (
        _estimated(plan, now, refetch=bool(conf.get("refetch")))
        if fetches_its_interval(dag) and plan.intervals
        else plan
    )


def intervals(dag: dict[str, Any], starts: Sequence[datetime]) -> list[Interval]:
    """The data interval of each logical date, by the DAG's cron expression."""
    from zoneinfo import ZoneInfo

    from croniter import croniter

    zone = ZoneInfo(dag["timezone"] or "UTC")
    try:
        return [
            Interval(
                start, croniter(dag["timetable_summary"], start.astimezone(zone)).get_next(datetime)
            )
            for start in starts
        ]
    except Exception:  # a schedule of another kind: from one start to the next
        ordered = sorted(starts)
        step = min((b - a for a, b in zip(ordered, ordered[1:])), default=timedelta(days=1))
        return [Interval(start, start + step) for start in starts]


def _estimated(plan: Plan, now: datetime, refetch: bool) -> Plan:
    from dataclasses import replace

    from extract.sources import all_sources
    from ledgerhouse.config import AccountsFile

    file = AccountsFile.read()
    sources, mine = all_sources(), file.accounts()
    known, since, spent = _known(sources, mine, now)
    how: dict[str, Any] = {"refetch": refetch, "prices": prices(sources, mine)}
    costs = simulate(known, sources, mine, plan.intervals, now, **how)
    whole = simulate(known, sources, mine, [plan.span], now, **how)[0]
    over = over_budget(file.limits(), total(costs), spent, now.date())
    remarks = [
        *plan.remarks,
        *over,
        f"Estimated {since}: what is covered costs nothing, rows elsewhere are assumed as "
        "dense as where the account is covered.",
    ]
    if guessed := sorted(
        {account for source, account in known.guessed if any(source in cost for cost in costs)}
    ):
        remarks.append(
            f"Never read so far: {', '.join(guessed)}. Their calls are a lower bound, "
            "or a guess from the source's other accounts."
        )
    return replace(plan, costs=costs, by_history=whole, remarks=remarks)


def over_budget(
    limits, whole: Mapping[str, Cost], spent: Sequence[Mapping[str, Any]], today: date
) -> list[str]:
    """Which limits (ledgerhouse.plan.budget) the cost would pass, in sentences; `spent` as CALLED has it."""
    remarks = []
    for limit in limits:
        need = getattr(whole.get(limit.source, Cost()), limit.measure)
        left = summed(
            [r for r in spent if r["source"] == limit.source],
            limit.measure,
            today,
            {limit.period: limit.allowed},
        )[LEFT[limit.period]]
        if need > left:
            remarks.append(
                f"Over budget: about {need:,} {limit.measure} of {limit.source} are needed, "
                f"and {max(left, 0):,} of {limit.allowed:,} are left this {limit.period}. "
                "A fetch stops before it passes the limit; what it has read whole stays."
            )
    return remarks


def _known(sources, mine, now: datetime) -> tuple[Known, str, list[dict[str, Any]]]:
    """What the books know, else the warehouse, else nothing; which of them, in words; and what was
    spent a day (CALLED)."""
    from ledgerhouse.config import warehouse_path
    from ledgerhouse.publish.books import open_books
    from ledgerhouse.warehouse.connection import WarehouseBusy, open_warehouse

    try:
        with open_books() as con:
            ((at,),) = con.execute("SELECT published_at FROM main.published").fetchall()
            return (
                Known.read(con, sources, mine, now),
                f"from the books published at {iso(at)}",
                rows(con, CALLED),
            )
    except FileNotFoundError:
        pass
    nothing = Known.read(None, sources, mine, now)
    if not warehouse_path().exists():
        return nothing, "before anything was read", []
    try:
        with open_warehouse(
            owner="airflow dags backfill --dry-run", wait_s=WAIT_S, read_only=True
        ) as con:
            return Known.read(con, sources, mine, now), "from the warehouse", rows(con, CALLED)
    except WarehouseBusy as error:
        return nothing, f"without the warehouse ({error})", []


def prices(sources, mine) -> dict[str, dict[str, int]]:
    """Units by source and endpoint: the sources' own, or what a Connection's extra says."""
    from airflow.models.connection import Connection

    by_source: dict[str, dict[str, int]] = {}
    for account in mine:
        own = by_source.setdefault(account.source, dict(sources[account.source].units))
        try:
            own |= Connection.get_connection_from_secrets(account.connection).extra_dejson.get(
                "units", {}
            )
        except Exception:  # no such Connection here: the run will say so
            continue
    return by_source


def now() -> datetime:
    return datetime.now(UTC)
