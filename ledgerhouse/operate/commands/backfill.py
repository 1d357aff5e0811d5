"""`airflow dags backfill`: a native backfill of Airflow 3, made and followed as Airflow 2 did.

The backfill lives in Airflow: ending this command ends the following, not the backfill.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from extract.core.interval import Interval, iso, utc
from ledgerhouse.operate.airflow.api import (
    FINAL,
    AirflowApi,
    AirflowApiError,
    AirflowUnreachable,
)
from ledgerhouse.operate.commands import CommandFailed
from ledgerhouse.operate.commands.follow import (
    backfill_runs,
    change,
    follow,
    follow_history,
    runs_between,
)
from ledgerhouse.operate.commands.plan import (
    Plan,
    dates,
    fetches_its_interval,
    now,
    params,
    plan_backfill,
)
from ledgerhouse.operate.commands.tables import Answer
from ledgerhouse.plan.estimate import Cost, total

POLL_S = 1.0
CLOSING_S = 90.0  # Airflow closes a backfill up to half a minute after its last run
DEAREST = 0.5  # a history that takes less than half the calls is worth saying
SHOWN = 12  # intervals printed at either end of a long list
HOW = (
    'Start it (make up), and give this command its settings: make airflow ARGS="…" or, in '
    "make shell, airflow …"
)


def connect() -> AirflowApi:
    """The running Airflow, as the Connection `airflow_api` has it."""
    return AirflowApi.for_command()


def backfill(args: Any) -> int:
    """Create, follow, plan or cancel a backfill; the exit code."""
    if not (args.follow or args.cancel):
        dates(args, now())  # before anything is asked of Airflow
        params(args.conf)
    try:
        return _backfill(connect(), args)
    except AirflowUnreachable as error:
        raise CommandFailed(f"{error}. {HOW}") from None
    except AirflowApiError as error:
        raise CommandFailed(str(error)) from None


def _backfill(airflow: AirflowApi, args: Any) -> int:
    if args.follow or args.cancel:
        under_way = active_backfill(airflow, args.dag_id)
        return cancel(airflow, under_way) if args.cancel else _resume(airflow, args, under_way)
    plan = plan_backfill(airflow, args, now())
    if args.dry_run:
        return show_plan(plan, args)
    if args.history:
        return _history(airflow, args, plan)
    if not plan.runs:
        return _nothing(airflow, plan)
    _confirm(args, plan)
    created = _create(airflow, plan)
    print(
        f"Backfill {created['id']} of {args.dag_id}: {len(plan.runs)} runs over {plan.span}"
        + (f"; {plan.known} more intervals have their run already" if plan.known else "")
    )
    return follow(airflow, args, created, dict(zip(plan.runs, plan.intervals, strict=True)))


def show_plan(plan: Plan, args: Any) -> int:
    """The dry run: every interval, the calls and units it would take, and all of them."""
    answer = Answer(
        args.output,
        dag_id=plan.dag["dag_id"],
        runs=len(plan.runs),
        runs_there_already=plan.known,
        remarks=plan.remarks,
    )
    rows = [
        {"start": interval.start, "end": interval.end, **_cells(cost)}
        for interval, cost in zip(
            plan.intervals, plan.costs or [None] * len(plan.intervals), strict=True
        )
    ]
    shown, left = rows, len(rows) - 2 * SHOWN
    if args.output == "table" and left > 1:
        shown = [*rows[:SHOWN], {"start": f"… {left} more …"}, *rows[-SHOWN:]]
    columns = {"start": "from", "end": "to"}
    if plan.costs is not None:
        columns |= {"calls": "calls", "units": "units", "sources": "of"}
    answer.table(
        "intervals",
        f"{len(rows)} runs of {plan.dag['dag_id']} would be made"
        + (f"; {plan.known} intervals have their run already" if plan.known else ""),
        shown,
        columns,
    )
    if plan.costs is not None:
        whole = total(plan.costs)
        answer.document |= {
            "total": {s: vars(c) for s, c in sorted(whole.items())},
            "history_total": {s: vars(c) for s, c in sorted(plan.by_history.items())},
        }
        answer.say(f"In all: {_spelled(whole)}.")
        if advice := _advice(plan):
            answer.say(advice)
    for remark in plan.remarks:
        answer.say(remark, style="dim")
    answer.end()
    return 0


def _cells(cost: Mapping[str, Cost] | None) -> dict[str, Any]:
    if cost is None:
        return {}
    return {
        "calls": sum(c.calls for c in cost.values()),
        "units": sum(c.units for c in cost.values()),
        "sources": ", ".join(sorted(cost)),
    }


def _spelled(cost: Mapping[str, Cost]) -> str:
    calls, units = (sum(getattr(c, n) for c in cost.values()) for n in ("calls", "units"))
    if not calls:
        return "0 calls and 0 units: all of it is covered"
    parts = ", ".join(
        f"{source} {c.calls:,} calls" + (f" and {c.units:,} units" if c.units else "")
        for source, c in sorted(cost.items())
    )
    return f"about {calls:,} calls and {units:,} units ({parts})"


def _advice(plan: Plan) -> str:
    """That history would be cheaper, where it is."""
    ours, theirs = (
        sum(c.calls for c in cost.values()) for cost in (total(plan.costs or []), plan.by_history)
    )
    if ours and theirs < DEAREST * ours:
        return (
            f"One run of the DAG history would fetch the same for {_spelled(plan.by_history)}: "
            "add --history."
        )
    return ""


def _confirm(args: Any, plan: Plan) -> None:
    """Ask before a reset, and before what --history would do for much less; -y answers."""
    advice = _advice(plan)
    if plan.costs is not None and not args.yes:
        print(f"To be fetched: {_spelled(total(plan.costs))}. {advice}")
    if args.yes or not (args.reset_dagruns or advice):
        return
    if not sys.stdin.isatty():
        if args.reset_dagruns:
            raise CommandFailed("--reset-dagruns runs again what has succeeded: say so with -y", 2)
        return
    if input(f"Start {len(plan.runs)} runs? [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandFailed("nothing was started")


def _nothing(airflow: AirflowApi, plan: Plan) -> int:
    """Every interval has its run: how they ended."""
    first, last = utc(plan.request["from_date"]), utc(plan.request["to_date"])
    ended = Counter(run["state"] for run in runs_between(airflow, plan.dag["dag_id"], first, last))
    print(
        f"Nothing to do: all {plan.known} intervals have their run ("
        + ", ".join(f"{count} {state}" for state, count in sorted(ended.items()))
        + "). --rerun-failed-tasks runs the failed ones again, --reset-dagruns all."
    )
    return 1 if ended["failed"] else 0


def _create(airflow: AirflowApi, plan: Plan) -> dict[str, Any]:
    """Airflow's backfill; waits for the one before to be closed, when all its runs have ended."""
    dag_id, deadline, announced = plan.dag["dag_id"], time.monotonic() + CLOSING_S, False
    while True:
        try:
            return airflow.call("POST", "/backfills", plan.request)
        except AirflowApiError as error:
            if error.status != 409:
                raise CommandFailed(
                    f"Airflow creates no such backfill of {dag_id}: {error}"
                ) from None
        other = active_backfill(airflow, dag_id)
        open_runs = [r for r in backfill_runs(airflow, other) if r["state"] not in FINAL]
        if open_runs or time.monotonic() > deadline:
            raise CommandFailed(
                f"backfill {other['id']} of {dag_id} is under way, from {other['from_date']} to "
                f"{other['to_date']}, and there is one at a time: wait for it (airflow dags "
                f"backfill --follow {dag_id}), or end it (--cancel)"
            )
        if not announced:
            print(f"Waiting for Airflow to close backfill {other['id']}, which has ended …")
            announced = True
        time.sleep(POLL_S)


def active_backfill(airflow: AirflowApi, dag_id: str) -> dict[str, Any]:
    """The backfill of the DAG that Airflow has not closed; CommandFailed where there is none."""
    try:
        open_ones = [
            b
            for b in airflow.call("GET", "/backfills", dag_id=dag_id, order_by="-id", limit=100)[
                "backfills"
            ]
            if not b["completed_at"]
        ]
    except AirflowApiError as error:
        raise CommandFailed(f"{dag_id}: {error}") from None
    if not open_ones:
        raise CommandFailed(f"no backfill of {dag_id} is under way")
    return open_ones[0]


def cancel(airflow: AirflowApi, created: Mapping[str, Any]) -> int:
    """End a backfill: what runs may end, what waits is marked failed by Airflow."""
    waiting = sum(r["state"] == "queued" for r in backfill_runs(airflow, created))
    change(airflow, created, "cancel")
    print(
        f"Backfill {created['id']} of {created['dag_id']} is cancelled: {waiting} runs that had not "
        "started never will; one that is running may end"
    )
    return 0


def _resume(airflow: AirflowApi, args: Any, created: Mapping[str, Any]) -> int:
    runs = {utc(r["logical_date"]): r for r in backfill_runs(airflow, created)}
    return follow(
        airflow,
        args,
        created,
        {
            date: Interval(r["data_interval_start"], r["data_interval_end"])
            for date, r in runs.items()
        },
    )


def _history(airflow: AirflowApi, args: Any, plan: Plan) -> int:
    """The same range by one run of the DAG history, which cuts it into months."""
    if not fetches_its_interval(plan.dag):
        raise CommandFailed("--history fetches what sync would: it goes with sync only", 2)
    history, span = "history", plan.span
    if airflow.call("GET", f"/dags/{history}")["is_paused"]:
        raise CommandFailed(
            f"{history} is paused, so its run would never start: airflow dags unpause {history}"
        )
    conf = params(args.conf) | {"interval_start": iso(span.start), "interval_end": iso(span.end)}
    run = airflow.call("POST", f"/dags/{history}/dagRuns", {"logical_date": None, "conf": conf})[
        "dag_run_id"
    ]
    print(f"{history} over {span}: {_spelled(plan.by_history)}; run {run}")
    return follow_history(airflow, history, run, span)
