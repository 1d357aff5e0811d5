"""Bad days, live, in one stack: a host that drips, an endless body, a hung child, a stopped
scheduler. Each ends in an alert within its deadline, and the next sync is green.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from ledgerhouse.operate.airflow.api import FINAL
from sandbox.debank.keys import DEBANK_KEY
from stack.live import running
from tests.extract.fetch.test_session import HEAD, dripping, peer
from tests.helpers.books import ACCOUNTS
from tests.helpers.receiver import receiver
from tests.live.test_deadlines import DAGS, wait

pytestmark = [pytest.mark.live, pytest.mark.timeout(1800)]

MARGIN_S = 60  # in which the command must start, where all is well
DEADLINE_S, RUN_S = 2, 500  # of an answer, and more than a run takes on two busy cores
COINBASE = next(a for a in ACCOUNTS if a.source == "coinbase")
DRIPS, ENDLESS = [a.account for a in ACCOUNTS if a.source == "debank"][:2]
OURS = (
    DAGS
    + """
from ledgerhouse.airflow import sync_dag

sync_dag(schedule=None)
"""
)


def block(source: str, account: str, connection: str) -> str:
    return f'[[account]]\nsource = "{source}"\naccount = "{account}"\nconnection = "{connection}"\n'


def endless(connection) -> None:
    connection.sendall(HEAD + b"Content-Type: application/json\r\n\r\n[0")
    while True:
        connection.sendall(b",0" * (1 << 14))


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stack.live.HEALTH_S", 1.0)
        patch.setattr("stack.live.SETTLE_S", 45.0)
        return play(tmp_path_factory.mktemp("bad_days"))


def play(root: Path) -> SimpleNamespace:
    seen = SimpleNamespace(notes=[])
    (root / "dags").mkdir()
    (root / "dags" / "ours.py").write_text(OURS)
    accounts = root / "accounts.toml"
    accounts.write_text(
        block("coinbase", COINBASE.account, COINBASE.connection)
        + block("debank", DRIPS, "dripping")
        + block("debank", ENDLESS, "endless")
    )
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    with receiver() as web, peer(dripping(HEAD + b"Content-Length: 9999\r\n\r\n[", b" ")) as drips:
        with peer(endless) as endlessly:
            env = {
                "LEDGERHOUSE_DAGS": str(root / "dags"),
                "LEDGERHOUSE_ACCOUNTS": str(accounts),
                "RETRY_DELAY_S": "1",
                "SANDBOX_MESS": "no",
                "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "12",
                "AIRFLOW_CONN_ALERTS_WEBHOOK": json.dumps({"conn_type": "http", "host": web.url}),
                "AIRFLOW_CONN_ALERTS_HEARTBEAT": json.dumps(
                    {"conn_type": "http", "host": f"{web.url}/alive"}
                ),
            }
            start = now - timedelta(days=5)
            with running(root / "var", now=now, start=start, scale=0.05, env=env) as stack:
                live_through(
                    stack, seen, web, {"dripping": drips.url, "endless": endlessly.url}, now
                )
    return seen


def live_through(stack, seen, web, hosts: dict[str, str], now: datetime) -> None:
    rest = stack.rest
    rest.wait_for_dags("sync", "hung")
    rest.unpause("sync")

    def connect(name: str, host: str, method: str = "PATCH") -> None:
        extra = json.dumps({"deadline_s": DEADLINE_S, "max_body_mb": 1})
        body = {"connection_id": name, "conn_type": "debank", "host": host, "extra": extra}
        path = "/connections" + (f"/{name}" if method == "PATCH" else "")
        rest.call(method, path, body | {"password": DEBANK_KEY})

    def sync(end: datetime) -> SimpleNamespace:
        began = time.monotonic()
        run = rest.trigger("sync", interval=(end - timedelta(hours=1), end))
        wait(lambda: rest.run("sync", run)["state"] in FINAL, RUN_S)
        wait(lambda: alerted(rest, run), 60)
        return SimpleNamespace(
            id=run,
            seconds=time.monotonic() - began,
            state=rest.run("sync", run)["state"],
            tasks={t["task_id"]: t["state"] for t in rest.task_instances("sync", run)},
        )

    # The hosts of two Connections are hostile, each in its way.
    for name, host in hosts.items():
        connect(name, host, "POST")
    seen.hostile = sync(now - timedelta(hours=2))
    seen.sent_hostile, web.asked[:] = web.took(), []
    for name in hosts:
        connect(name, f"{stack.sandbox_url}/debank")
    seen.healed = sync(now - timedelta(hours=1))
    seen.sent_healed, web.asked[:] = web.took(), []
    seen.pings = len(web.got)

    # A child hangs with the warehouse in its hands.
    began, run = time.monotonic(), rest.trigger("hung")
    wait(lambda: web.asked)
    seen.late_s, seen.late = time.monotonic() - began, web.took()
    wait(lambda: rest.run("hung", run)["state"] in FINAL)
    seen.hung = rest.run("hung", run)["state"]

    # The scheduler stands still, and something else looks at it.
    (scheduler,) = [s for s in stack.processes.services if s.name == "scheduler"]
    for process in psutil.Process(scheduler.guard.pid).children():
        process.suspend()
    read_through = now - timedelta(hours=1)
    age = datetime.now(UTC) - read_through + timedelta(seconds=MARGIN_S)
    hours = Decimal(int(age.total_seconds())) / 3600
    seen.limited = {**stack.env, "LEDGERHOUSE_ACCOUNTS": str(monitor(stack, hours))}
    seen.before = health(seen.limited)
    began = time.monotonic()
    wait(lambda: health(seen.limited).returncode, 2 * MARGIN_S)
    seen.noticed_s, seen.stopped = time.monotonic() - began, health(seen.limited)

    def again() -> bool:
        stack.watch(seen.notes.append)
        return any("scheduler is started again" in note for note in seen.notes)

    wait(again, 180)
    wait(lambda: stack.watch(seen.notes.append) or rest.healthy(), 90)
    seen.pings_before = len(web.got)
    seen.last = sync(now)
    seen.after, seen.pings_after = health(seen.limited), len(web.got)


def alerted(rest, run: str) -> bool:
    tasks = {t["task_id"]: t["state"] for t in rest.task_instances("sync", run)}
    return tasks.get("alert") in FINAL


def monitor(stack, hours: Decimal) -> Path:
    """The accounts file of a watcher, who allows this many hours."""
    file = stack.settings.var / "monitor.toml"
    file.write_text(f"[alerts]\nstale_after_hours = {hours:.6f}\n")
    return file


def health(env: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "airflow", "warehouse", "health"],
        env=env,
        text=True,
        capture_output=True,
        timeout=120,
    )


def incidents(bodies: list[dict]) -> dict[tuple, dict]:
    every = [incident for body in bodies for incident in body["incidents"]]
    return {(i["event"], i["kind"], i["account"]): i for i in every}


def test_a_host_that_drips_and_one_without_an_end_are_each_one_alert_and_the_others_arrive(story):
    run, sent = story.hostile, incidents(story.sent_hostile)
    assert run.state == "failed" and run.seconds < RUN_S
    for name, account, said in (
        ("dripping", DRIPS, f"not whole within {DEADLINE_S} s"),
        ("endless", ENDLESS, "larger than 1 MB"),
    ):
        incident = sent["opened", "failed_source", account]
        assert said in incident["text"] and f"task probe_{name}" in incident["text"]
        assert f"the Airflow Connection '{name}'" in incident["text"]
        assert (run.tasks[f"probe_{name}"], run.tasks[f"fetch_{name}"]) == (
            "failed",
            "upstream_failed",
        )
    fetched = f"fetch_{COINBASE.connection}"
    assert {run.tasks[name] for name in (fetched, "load", "transform", "check", "publish")} == {
        "success"
    }, "what another host does keeps no other source from its books"
    assert ("opened", "failed_source", COINBASE.account) not in sent


def test_the_next_sync_is_green_and_says_that_it_is_over(story):
    assert story.healed.state == "success", story.healed.tasks
    sent = incidents(story.sent_healed)
    assert {("resolved", "failed_source", account) for account in (DRIPS, ENDLESS)} <= set(sent)
    assert story.pings >= 1, "and the watcher heard that syncs come"


def test_a_hung_child_ends_in_an_alert_within_its_deadline_and_is_stopped(story):
    (late,) = [i for i in incidents(story.late).values() if i["kind"] == "late_run"]
    assert late["subject"].startswith("hung ") and "held by task hung.hang" in late["text"]
    assert story.late_s < 60 and story.hung == "failed"


def test_a_stopped_scheduler_is_noticed_from_outside_and_the_next_sync_is_green(story):
    assert story.before.returncode == 0, story.before.stdout + story.before.stderr
    assert story.stopped.returncode == 1 and "no sync has come for" in story.stopped.stdout
    assert story.noticed_s < 2 * MARGIN_S, "its limit, and what a command takes to start"
    assert story.last.state == "success", story.last.tasks
    assert story.after.returncode == 0, story.after.stdout
    assert story.pings_after == story.pings_before + 1
