"""`airflow warehouse replay`: build the warehouse again from its landing, without an API call.

As `make replay`: replay, transform, check, publish. Each step waits for its turn at the
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
    from ledgerhouse.publish.gate import HeldAccount


def replay(args: Any) -> int:
    require_models_state()
    return replay_and_publish(args.output, "airflow warehouse replay", accept_less=args.accept_less)


def replay_and_publish(output: str, owner: str, *, accept_less: bool = False) -> int:
    """Exit code: 0 when the books are published again, 1 when the checks forbid it, or hold back
    an account.

    `owner` waits for the warehouse, and holds it; `accept_less`: see ledgerhouse.load.replay.
    Raises CommandFailed where the landing cannot be replayed.
    """
    with quiet(
        "sqlmesh", "great_expectations", "extract", "ledgerhouse"
    ):  # the steps say it in fewer words
        return _replay_and_publish(output, owner, accept_less)


def _replay_and_publish(output: str, owner: str, accept_less: bool) -> int:
    from extract.sources import all_sources
    from ledgerhouse.config import var_dir, warehouse_path
    from ledgerhouse.load.replay import ReplayFailed
    from ledgerhouse.load.replay import replay as rebuild
    from ledgerhouse.publish.gate import NotChecked, check_and_publish
    from ledgerhouse.transform.touched_days import Superseded, transform

    steps, run_id = Steps(stderr=True), f"replay__{iso(datetime.now(UTC))}"
    try:
        with steps.step("replay the landing") as step:
            done = rebuild(
                warehouse_path(),
                var_dir() / "landing",
                all_sources(),
                accept_less=accept_less,
                owner=owner,
                tell=step.note,
            )
    except ReplayFailed as error:
        raise CommandFailed(str(error)) from None
    answer = Answer(
        output,
        run_id=run_id,
        loads=done.loads,
        rows=done.loaded.rows,
        differences=done.differences,
        less=done.less,
        damage=list(done.damage),
        not_carried=list(done.not_carried),
        kept=done.kept,
        published=False,
        critical=[],
    )
    differing = ", ".join(f"{t} {count:,} rows" for t, count in done.differences.items())
    answer.say(
        f"{done.loads} loads, {done.loaded.rows:,} rows: "
        + (f"not as it was: {differing}" if differing else "row for row as it was")
    )
    for name, why in done.less.items():
        answer.say(f"✗ without {name}: {why}", style="bold red")
    for words in done.damage:
        answer.say(f"✗ could not be read of the old warehouse: {words}", style="bold red")
    if done.not_carried:
        answer.say(
            f"✗ only the old warehouse had these, and they begin empty: {', '.join(done.not_carried)}",
            style="bold red",
        )
    if done.kept:
        answer.say(f"The old warehouse is kept: {done.kept}. Remove it when you need it no more")
    with steps.step("transform every day"):
        built = transform(owner=owner)
    answer.document["days"] = len({day for _, day, _ in built.marks})
    critical: Sequence[CheckResult] = ()
    held: Sequence[HeldAccount] = ()
    refused = ""
    if built.marks:
        with steps.step("check and publish"):
            try:
                held = check_and_publish(built, run_id=run_id, owner=owner).held
            except NotChecked as error:
                critical, refused = error.failed, str(error)
            except Superseded as error:
                refused = f"nothing is published yet: {error}"
            except ValueError as error:  # of accounts.toml, whose [checks] say what is published
                refused = f"nothing is published: {error}"
        answer.document |= {"published": not refused, "critical": list(map(str, critical))}
        answer.document["held"] = list(map(str, held))
        for one in held:
            answer.say(f"✗ its last good days stay in the books: {one}", style="bold red")
        for result in critical:
            answer.say(f"✗ {result}", style="bold red")
        answer.say(
            f"✗ {refused}; the books are as they were"
            if refused
            else "✓ the books are published again"
        )
    else:
        answer.say("✓ the landing holds no rows: nothing to check")
    answer.end()
    return 1 if refused or held else 0


def require_models_state() -> None:
    """Raise CommandFailed where the models' state cannot be reached: a second one would build all."""
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
