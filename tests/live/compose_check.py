"""docker-compose.yaml's topology as processes, end to end:  make compose-check

    python tests/live/compose_check.py [--days 60] [--workers 2] [--keep]

PostgreSQL, Redis, init, API server, scheduler, dag-processor, Celery workers and the sandbox are
started with exactly the commands and the environment that the file gives their containers, the
secrets included; started by root, as a user who may write to the volume only (nobody, where that
user can read this Python). Only hosts, ports and folders are ours, and the sandbox's clock stands
still. Then a `history` and a `sync` go through Celery, and the warehouse must equal the sandbox's
truth. Every healthcheck of the file must pass while its service runs; those of the worker, the
scheduler, the sandbox, the API server and Redis must fail once it has ended. PostgreSQL is set up
here as its image does it; Redis is given a port and a folder, the second worker a name of its own.
Not proven here: the image's build, and what Docker itself does (networks, volumes, users, limits).
It needs PostgreSQL's and Redis' programs (apt-get install postgresql redis-server).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from base64 import urlsafe_b64encode
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import duckdb  # noqa: E402
import psycopg2  # noqa: E402
import requests  # noqa: E402

from extract.core.interval import iso  # noqa: E402
from ledgerhouse.operate.airflow.api import AirflowApi  # noqa: E402
from ledgerhouse.operate.commands.progress import Steps  # noqa: E402
from sandbox.world.world import World  # noqa: E402
from stack.follow import follow  # noqa: E402
from stack.processes import POSTGRES, Processes, supervised  # noqa: E402
from stack.settings import USER, free_port, read_env  # noqa: E402
from tests.helpers.books import assert_truth  # noqa: E402
from tests.live.composition import EXAMPLE, Local, filled  # noqa: E402

SIX_HOURS = timedelta(hours=6)
SEED = 7
LIMIT_S = 300.0
NOBODY = "nobody"
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "ADMIN_PASSWORD", "API_SECRET_KEY", "JWT_SECRET")
CLOCK = '"$(date --utc +%Y-%m-%dT%H:%M:%SZ)" --tick'  # of the sandbox's command


class Unproven(RuntimeError):
    """What was to be proven does not hold, or a program is missing; the message says which."""


def program(name: str) -> Path:
    """A program of PostgreSQL or Redis, where Debian keeps PostgreSQL's, else on the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    path = debian[0] if debian else shutil.which(name)
    if not path:
        raise Unproven(f"there is no {name} here: apt-get install postgresql redis-server")
    return Path(path)


def open_to(user: str) -> bool:
    """Whether `user` can run this Python and read the project: not where they lie in /root."""
    try:
        return not subprocess.run(
            [sys.executable, "-c", "import stack.settings, warnings"],
            user=user,
            group="nogroup",
            extra_groups=[],
            cwd="/",
            env={"PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        ).returncode
    except PermissionError:
        return False


def write_dotenv(folder: Path, **more: str) -> Path:
    """A .env as its comments tell to make it: the example, then the secrets, then `more`."""
    file = folder / ".env"
    own = {name: secrets.token_hex(32) for name in SECRETS}
    own["FERNET_KEY"] = urlsafe_b64encode(secrets.token_bytes(32)).decode()
    lines = [f"{name}={value}" for name, value in (own | more).items()]
    file.write_text(EXAMPLE.read_text() + "\n" + "\n".join(lines) + "\n")
    file.chmod(0o600)
    return file


class Compose:
    """The services of the file as processes in `root`; `values` are those of its .env."""

    def __init__(self, processes: Processes, now: datetime, start: datetime, workers: int):
        self.processes, self.root = processes, processes.var
        root, self.now, self.number = self.root, now, workers
        # no scheduled run of its own: the sync DAG starts now, by the real clock
        self.dotenv = write_dotenv(
            root,
            START_TS=iso(start),
            WORKERS=str(workers),
            SANDBOX_SEED=str(SEED),
            SANDBOX_MESS="no",
            SYNC_START_DATE=iso(datetime.now(UTC).replace(microsecond=0)),
        )
        self.values = read_env({}, self.dotenv)
        self.services = filled(self.values)["services"]
        self.ports = {
            name: free_port()
            for name in ("postgres", "redis", "api-server", "scheduler", "sandbox")
        }
        self.var = root / "books"
        self.user = NOBODY if os.getuid() == 0 and open_to(NOBODY) else None
        for folder in (self.var, root / "homes", root / "redis"):
            folder.mkdir()
            self.give(folder)
        root.chmod(0o711)
        self.local = Local(self.services, self.ports, self.var, self.dotenv, Path(sys.executable))
        self.rest = AirflowApi(
            f"http://127.0.0.1:{self.ports['api-server']}", USER, self.values["ADMIN_PASSWORD"]
        )

    def give(self, path: Path) -> None:
        """Let the services' user write there."""
        if self.user:
            shutil.chown(path, self.user)

    def environment(self, service: str, number: int = 1) -> dict[str, str]:
        env = self.local.environment(service, number)
        self.give(Path(env["HOME"]))
        return env

    def as_user(self) -> dict:
        """Arguments of subprocess.run with which it runs as the services do."""
        who = {"user": self.user, "group": "nogroup", "extra_groups": []} if self.user else {}
        return {"cwd": self.var, **who}

    def start(self, service: str, number: int = 1, *more: str, drain_s: float = 10.0) -> None:
        name = service if number == 1 else f"{service}-{number}"
        command = self.local.command(self.services[service]["command"])
        if service == "sandbox":
            before = command[-1]
            command[-1] = before.replace(CLOCK, iso(self.now))
            assert command[-1] != before, "the sandbox's clock is not where this script stops it"
        self.processes.start(
            name,
            [*command, *more],
            self.environment(service, number),
            user=self.user,
            drain_s=drain_s,
        )

    def start_postgres(self) -> None:
        """As the image does: the user, the database and the password of its environment."""
        env = {name: str(value) for name, value in self.services["postgres"]["environment"].items()}
        data, user = self.root / "postgres", "postgres" if os.getuid() == 0 else None
        data.mkdir()
        password = self.root / "pgpass"
        password.write_text(env["POSTGRES_PASSWORD"])
        for path in (data, password):
            if user:
                shutil.chown(path, user)
        subprocess.run(
            [
                program("initdb"),
                "-D",
                data,
                "-U",
                env["POSTGRES_USER"],
                "--auth=scram-sha-256",
                f"--pwfile={password}",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            user=user,
            group=user,
            extra_groups=[] if user else None,
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
        )
        password.unlink()
        port = self.ports["postgres"]
        self.processes.start(
            POSTGRES,
            [
                str(program("postgres")),
                "-D",
                str(data),
                "-p",
                str(port),
                "-k",
                "",
                "-c",
                "listen_addresses=127.0.0.1",
            ],
            {"PATH": os.defpath},
            user=user,
            stop=signal.SIGINT,
            drain_s=15.0,
        )
        self.processes.wait("PostgreSQL", lambda: self.healthy("postgres"), LIMIT_S)
        con = psycopg2.connect(
            host="127.0.0.1",
            port=port,
            user=env["POSTGRES_USER"],
            password=env["POSTGRES_PASSWORD"],
            dbname="postgres",
        )
        con.autocommit = True
        con.cursor().execute(f"CREATE DATABASE {env['POSTGRES_DB']}")
        con.close()

    def start_redis(self) -> None:
        """The file's own command, on a port and a folder of ours."""
        program("redis-server")
        command = self.local.command(self.services["redis"]["command"])
        command[-1] += f" --port {self.ports['redis']} --bind 127.0.0.1 --dir {self.root}/redis"
        self.processes.start("redis", command, self.environment("redis"), user=self.user)
        self.processes.wait("Redis", lambda: self.healthy("redis"), LIMIT_S)

    def run_init(self) -> str:
        """The one-shot service, to its end; what it printed."""
        done = subprocess.run(
            self.local.command(self.services["init"]["command"]),
            text=True,
            timeout=LIMIT_S,
            env=self.environment("init"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self.as_user(),
        )
        (self.root / "logs" / "init.log").write_text(done.stdout)
        if done.returncode:
            raise Unproven(f"init ended with {done.returncode}:\n{done.stdout[-3000:]}")
        return done.stdout

    def healthy(self, service: str, *more: str) -> bool:
        """Whether the file's healthcheck of the service passes."""
        command = self.local.command([*self.services[service]["healthcheck"]["test"], *more])
        if service == "postgres":
            command = [str(program("pg_isready")), *command[1:], f"--port={self.ports[service]}"]
        if service == "redis":
            command[-1] = command[-1].replace("redis-cli", f"redis-cli -p {self.ports[service]}")
        return not subprocess.run(
            command,
            env=self.environment(service),
            timeout=60,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self.as_user(),
        ).returncode

    def airflow(self, *arguments: str) -> str:
        """What `docker compose exec worker airflow ARGUMENTS` prints."""
        done = subprocess.run(
            self.local.command(["airflow", *arguments]),
            text=True,
            timeout=LIMIT_S,
            env=self.environment("worker"),
            capture_output=True,
            **self.as_user(),
        )
        if done.returncode:
            raise Unproven(
                f"airflow {' '.join(arguments)} ended with {done.returncode}: "
                f"{done.stdout[-1000:]}{done.stderr[-2000:]}"
            )
        return done.stdout

    def wait(self, *services: str) -> None:
        for service in services:
            self.processes.wait(service, lambda: self.healthy(service), LIMIT_S)

    def worker_name(self, number: int) -> str:
        return f"celery{number}@{os.uname().nodename}"


def check(root: Path, days: int, workers: int) -> int:
    screen = Steps()
    clock = datetime.now(UTC)
    until = clock.replace(hour=clock.hour // 6 * 6, minute=0, second=0, microsecond=0) - SIX_HOURS
    now, start = until + SIX_HOURS, (until - timedelta(days=days)).replace(hour=0)
    with ExitStack() as ending:
        processes = ending.enter_context(supervised(root, "tests/live/compose_check.py"))
        compose = Compose(processes, until, start, workers)
        ending.callback(compose.rest.close)
        with screen.step("PostgreSQL, Redis, the sandbox"):
            compose.start_postgres()
            compose.start_redis()
            compose.start("sandbox")
            compose.wait("sandbox")
        with screen.step("init, twice"):
            first, again = compose.run_init(), compose.run_init()
            if len(re.findall("stored", first)) != 3 or len(re.findall("kept", again)) != 2:
                raise Unproven(f"init did not do its work once:\n{first}\n{again}")
        with screen.step(f"API server, scheduler, dag-processor, {workers} workers"):
            for service in ("api-server", "scheduler"):
                compose.start(service)
            compose.wait("api-server")
            compose.start("dag-processor")
            compose.start("worker", drain_s=30.0)
            for number in range(2, workers + 1):
                compose.start(
                    "worker", number, "--celery-hostname", compose.worker_name(number), drain_s=30.0
                )
            compose.wait("scheduler", "dag-processor", "worker")
            for number in range(2, workers + 1):
                name = compose.worker_name(number)
                compose.processes.wait(name, lambda: compose.healthy("worker", name), LIMIT_S)
            compose.rest.wait_for_dags("history", "sync")
        stack = SimpleNamespace(
            rest=compose.rest,
            processes=compose.processes,
            settings=SimpleNamespace(airflow_home=compose.var / "airflow"),
        )
        done = play(screen, compose, stack, start, until, now)
        with screen.step("a healthcheck fails once its service has ended"):
            compose.rest.close()
            for service in ("worker", "scheduler", "sandbox", "api-server", "redis"):
                names = (
                    (service,)
                    if service != "worker"
                    else tuple(
                        s.name for s in compose.processes.services if s.name.startswith("worker")
                    )
                )
                compose.processes.stop(*names)
                if compose.healthy(service):
                    raise Unproven(f"the healthcheck of {service} passes with no {service}")
        logged = [
            path
            for path in root.rglob("*")
            if path.is_file()
            and path.suffix == ".log"
            and any(
                compose.values[name] in path.read_text(errors="replace")
                for name in (*SECRETS, "FERNET_KEY")
            )
        ]
        if logged:
            raise Unproven(f"a secret is in {', '.join(map(str, logged))}")
    screen.line(f"✓ {done}")
    screen.line(
        f"{sum(screen.timings.values()):.0f} s in all; what was not run: the image's "
        "build, and Docker itself"
        + ("" if compose.user or os.getuid() else "; nor as another user than root")
    )
    return 0


def play(
    screen: Steps, compose: Compose, stack, start: datetime, until: datetime, now: datetime
) -> str:
    """A history and a sync through Celery, compared with the truth; what there was, in words."""
    sandbox = f"http://127.0.0.1:{compose.ports['sandbox']}"
    hosts: Counter[str] = Counter()
    for dag, first, last in (("history", start, until), ("sync", until, now)):
        with screen.step(f"{dag} [{iso(first)}, {iso(last)})") as step:
            requests.post(
                f"{sandbox}/_control/clock", json={"now": iso(last)}, timeout=30
            ).raise_for_status()
            stack.rest.unpause(dag)
            params = {"interval_start": iso(first), "interval_end": iso(last)}
            run = (
                stack.rest.trigger(dag, params)
                if dag == "history"
                else stack.rest.trigger(dag, interval=(first, last))
            )
            follow(stack, dag, run, step.note)
            tasks = stack.rest.task_instances(dag, run)
            hosts.update(task["task_id"] for task in tasks if task["state"] == "success")
            if not any(
                "transform" in line
                for line in stack.rest.log(next(t for t in tasks if t["task_id"] == "transform"))
            ):
                raise Unproven("the API server shows no log of a task that a worker ran")
    with screen.step("the warehouse against the truth"):
        con = duckdb.connect(str(compose.var / "warehouse.duckdb"), read_only=True)
        con.execute("SET TimeZone = 'UTC'")
        assert_truth(SimpleNamespace(con=con), World(SEED, iso(start), mess=False), iso(now))
        rows = con.execute(
            "SELECT (SELECT count(*) FROM raw.exchanges_ledger), (SELECT count(*) "
            "FROM raw.onchain_transfers)"
        ).fetchone()
        counts = dict(
            con.execute(
                "SELECT status, count(*) FROM curated.reconciliation GROUP BY ALL"
            ).fetchall()
        )
        con.close()
        if set(counts) - {"exact", "within_tolerance", "explained"}:
            raise Unproven(f"not every balance reconciles: {counts}")
        books = duckdb.connect(str(compose.var / "published" / "books.duckdb"), read_only=True)
        published = books.execute("SELECT count(*) FROM curated.daily_balances").fetchone()[0]
        books.close()
    with screen.step("airflow warehouse status, in a worker"):
        status = json.loads(compose.airflow("warehouse", "status", "--output", "json"))
        if not status:
            raise Unproven("airflow warehouse status knows nothing")
    took = celery_tasks(compose)
    if len(took) != compose.number or sum(took.values()) < sum(hosts.values()) - 2:
        raise Unproven(f"not every worker took tasks: {took}, of {sum(hosts.values())}")
    return (
        f"{sum(took.values())} tasks through Celery ({', '.join(map(str, took.values()))} by "
        f"worker); {rows[0]:,} ledger entries and {rows[1]:,} transfers equal the truth; "
        f"{sum(counts.values())} balances reconcile; {published:,} daily balances published"
    )


def celery_tasks(compose: Compose) -> dict[str, int]:
    """Log of a worker → how many tasks Celery gave it."""
    logs = sorted((compose.root / "logs").glob("worker*.log"))
    counts = {
        log.stem: len(re.findall(r"execute_workload\[[0-9a-f-]+\] received", log.read_text()))
        for log in logs
    }
    return {name: count for name, count in counts.items() if count}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=60, help="how long the history is")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep the folder, to look at the logs")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="compose-check-"))
    try:
        return check(root, args.days, args.workers)
    except Unproven as error:
        print(f"✗ {error}", file=sys.stderr)
        args.keep = True
        return 1
    except BaseException:
        args.keep = True
        raise
    finally:
        if args.keep:
            print(f"kept: {root}", file=sys.stderr)
        else:
            shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main())
