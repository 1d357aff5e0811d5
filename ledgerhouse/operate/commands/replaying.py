"""`airflow warehouse replay`: the warehouse again from its landing, without a call paid.

What `make replay` does: replay, transform, check, publish. Each step waits for its turn at the
warehouse, so it may run beside the stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from extract.core.interval import iso
from ledgerhouse.operate.commands import CommandFailed
from ledgerhouse.operate.commands.progress import Steps
from ledgerhouse.operate.commands.tables import Answer
from ledgerhouse.process import quiet

if TYPE_CHECKING:
    from ledgerhouse.check.checkpoints import CheckResult


def replay(args: Any) -> int:
    state_in_reach()
    return anew(args.output, "airflow warehouse replay")


def anew(output: str, owner: str) -> int:
    """0 when the books are published again; 1 when the landing or the checks forbid it.

    `owner` waits for the warehouse, and has it. Raises CommandFailed where there is no landing to
    be replayed.
    """
    with quiet(
        "sqlmesh", "great_expectations", "extract", "ledgerhouse"
    ):  # the steps tell it shorter
        return _anew(output, owner)


def _anew(output: str, owner: str) -> int:
    from extract.sources import all_sources
    from ledgerhouse.config import var_dir, warehouse_path
    from ledgerhouse.load.replay import ReplayFailed
    from ledgerhouse.load.replay import replay as rebuild
    from ledgerhouse.publish.gate import NotChecked, check_and_publish
    from ledgerhouse.transform.touched_days import transform

    steps, run_id = Steps(), f"replay__{iso(datetime.now(UTC))}"
    try:
        with steps.step("replay the landing") as note:
            done = rebuild(
                warehouse_path(), var_dir() / "landing", all_sources(), owner=owner, tell=note
            )
    except ReplayFailed as error:
        raise CommandFailed(str(error)) from None
    answer = Answer(
        output,
        run_id=run_id,
        loads=done.loads,
        rows=done.loaded.rows,
        differences=done.differences,
        published=False,
        critical=[],
    )
    differing = ", ".join(f"{t} {count:,} rows" for t, count in done.differences.items())
    answer.say(
        f"{done.loads} loads, {done.loaded.rows:,} rows: "
        + (f"not as it was: {differing}" if differing else "row for row as it was")
    )
    with steps.step("transform every day"):
        built = transform(owner=owner)
    answer.document["days"] = len({day for _, day, _ in built.marks})
    critical: Sequence[CheckResult] = ()
    if built.marks:
        with steps.step("check and publish"):
            try:
                check_and_publish(built, run_id=run_id, owner=owner)
            except NotChecked as error:
                critical = error.failed
        answer.document |= {"published": not critical, "critical": list(map(str, critical))}
        for one in critical:
            answer.say(f"✗ {one}", style="bold red")
        answer.say(
            "✗ nothing is published: the books are as they were"
            if critical
            else "✓ the books are published again"
        )
    else:
        answer.say("✓ the landing holds no rows: nothing to check")
    answer.end()
    return 1 if critical else 0


def state_in_reach() -> None:
    """CommandFailed where the models' state is not: another one would build them all anew."""
    from ledgerhouse.config import state_uri, var_dir

    uri = state_uri()
    if not uri:
        if (var_dir() / "postgres").exists():
            raise CommandFailed(
                "the state of this warehouse's models is in its stack's PostgreSQL, and "
                'LEDGERHOUSE_STATE_URI does not say where: make airflow ARGS="warehouse replay" '
                "beside a running stack, make replay without one"
            )
        return
    import psycopg2

    try:
        psycopg2.connect(uri, connect_timeout=5).close()
    except psycopg2.OperationalError:
        raise CommandFailed(
            "the PostgreSQL of LEDGERHOUSE_STATE_URI does not answer: start the "
            "stack (make up), or use make replay, which starts what it needs"
        ) from None
