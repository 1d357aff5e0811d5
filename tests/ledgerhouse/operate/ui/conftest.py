"""The page as it is served: a real API server over books with a hole, and a browser that is logged in."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from ledgerhouse.check.data_docs import folder_of
from ledgerhouse.operate.ui.plugin import PREFIX
from ledgerhouse.publish.books import open_books
from ledgerhouse.publish.publish import publish
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import transform
from ledgerhouse.warehouse.connection import open_warehouse
from sandbox.server import serve
from stack.settings import free_port
from tests.helpers.books import Books, Hurried
from tests.ledgerhouse.operate.ui.scene import (
    ACCOUNTS,
    BROKEN,
    HEALED,
    HOLE,
    NOW,
    RUN,
    SECRET,
    START,
    SYMBOL,
    WHOLE,
)

START_LIMIT_S = 180.0


@pytest.fixture(scope="module")
def kept(server):
    """The var folder with the books published, the sandbox's truth, and the calls that were made.

    Made while the server is starting.
    """
    var = server.var
    with serve(seed=5, now=NOW, start=START, scale=0.3) as url:
        url.app.lift_limits()
        books = Books(url, var / "landing", path=str(var / FILE), clock=Hurried())
        for account in ACCOUNTS:
            if account.account == BROKEN:
                books.sync(START, HOLE[0], accounts=[account])
                books.sync(HOLE[1], NOW, accounts=[account], snapshot=True)
            else:
                books.sync(START, NOW, accounts=[account], snapshot=True)
        truth = url.world.balances(NOW, NOW, ["coinbase", "debank"])
    spoil(books.con, truth)
    books.con.close()
    transform(var / FILE, owner="test")
    with open_warehouse(var / FILE, owner="test") as con:
        for call in books.calls:
            con.execute(
                "INSERT INTO ops.api_calls BY NAME SELECT ? AS call_id, ?::TIMESTAMPTZ::"
                "TIMESTAMP AS called_at, ? AS source, ? AS account, ? AS endpoint, "
                "0 AS duration_ms, ?::INTEGER AS units",
                [
                    call["call_id"],
                    str(call["called_at"]),
                    call["source"],
                    call["account"],
                    call["endpoint"],
                    call["units"],
                ],
            )
        publish(con, var / "published", [], run_id=RUN)
    docs = var / "data_docs" / "runs" / folder_of(RUN)
    docs.mkdir(parents=True)
    (docs / "raw.balances.html").write_text("<h1>what was checked</h1>")
    (var / "data_docs" / "index.html").write_text("<h1>all checks</h1>")
    (var / "data_docs" / "way_out.txt").symlink_to(var / "secret.txt")
    (var / "secret.txt").write_text(SECRET)
    return SimpleNamespace(var=var, truth=truth, calls=books.calls)


def spoil(con, truth) -> None:
    """What a bad day leaves: failed runs, a balance that is off, a symbol that is markup."""
    for account, start, end, error in (
        (BROKEN, HOLE[0], "2024-11-21T00:00:00Z", "Unreachable: 500 six times"),
        (HEALED, "2024-12-05T00:00:00Z", "2024-12-05T06:00:00Z", "KeyRejected: 401"),
    ):
        for attempt, state in ((1, "up_for_retry"), (2, "failed")):
            con.execute(
                "INSERT INTO ops.sync_runs BY NAME SELECT 'sync' AS dag_id, ? AS run_id, "
                "'fetch_debank' AS task_id, 0 AS map_index, ? AS try_number, 'debank' AS source, "
                "? AS account, ?::TIMESTAMP AS interval_start, ?::TIMESTAMP AS interval_end, "
                "? AS state, ?::TIMESTAMP AS ended, ? AS error, now()::TIMESTAMP AS mirrored_at",
                [
                    f"run of {account}",
                    attempt,
                    account,
                    start[:19],
                    end[:19],
                    state,
                    end[:19],
                    error,
                ],
            )
    con.execute(
        "UPDATE raw.balances SET amount = amount - 1 WHERE source = 'coinbase' AND token = 'ETH'"
    )
    (held,) = [r["token"] for r in truth if r["account"] == WHOLE and ":0x" in r["token"]][:1]
    con.execute(
        "UPDATE raw.onchain_tokens SET symbol = ? WHERE chain || ':' || token = ?", [SYMBOL, held]
    )
    assert con.execute(
        "SELECT count(*) FROM raw.onchain_tokens WHERE symbol = ?", [SYMBOL]
    ).fetchone() == (1,)
    for name, success, severity in (("keys_unique", True, "critical"), ("fits", False, "warning")):
        con.execute(
            "INSERT INTO ops.checkpoints VALUES (?, 'raw.balances', ?, ?, ?, '10 rows', "
            "NULL, NULL, '2024-12-20 12:01', NULL)",
            [RUN, name, severity, success],
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real API server that is being started on a free port, over a var folder without books."""
    home, port = tmp_path_factory.mktemp("airflow"), free_port()
    (home / "passwords.json").write_text(json.dumps({"admin": "secret"}))
    url, var = f"http://127.0.0.1:{port}", home / "var"
    var.mkdir()
    env = os.environ | {
        "AIRFLOW_HOME": str(home),
        "LEDGERHOUSE_VAR": str(var),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": "k" * 32,
        "AIRFLOW__API_AUTH__JWT_SECRET": "j" * 64,
    }
    airflow = f"{shlex.quote(sys.executable)} -m airflow"
    command = f"{airflow} db migrate && exec {airflow} api-server --host 127.0.0.1 --port {port}"
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, shell=True, env=env, cwd=home, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield SimpleNamespace(
                url=url, port=port, var=var, process=process, log=home / "server.log"
            )
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture(scope="module")
def airflow(server, kept):
    """The server, once it answers and has books: {url, port, token, var}; admin, `secret`."""
    server.token = login(server.url, server.process, server.log)
    return server


def login(url: str, server, log: Path) -> str:
    """A token, as soon as the server gives one."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            answer = requests.post(
                f"{url}/auth/token", timeout=10, json={"username": "admin", "password": "secret"}
            )
            return answer.json()["access_token"]
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"no API server within {START_LIMIT_S} s: {log.read_text()[-2000:]}")


@pytest.fixture
def ask(airflow):
    """ask("overview", year=2024): the JSON of an API route; every amount in it is text."""

    def ask(path: str, **params):
        answer = requests.get(
            f"{airflow.url}{PREFIX}/api/{path}",
            params=params,
            timeout=30,
            headers={"Authorization": f"Bearer {airflow.token}"},
        )
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text, parse_float=refuse_float)

    return ask


def refuse_float(text: str):
    raise AssertionError(f"{text} is a JSON number with a point: amounts travel as text")


@pytest.fixture
def books(kept):
    with open_books(kept.var / "published") as con:
        yield con


# In a browser
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None) or next(
        (
            p
            for p in ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
            if Path(p).exists()
        ),
        None,
    )
    if not path:
        pytest.skip(f"no browser here ({', '.join(names)}): .ci/run installs Debian's chromium")
    return path


@pytest.fixture(scope="module")
def browser(airflow):
    """A logged-in page, and what went wrong in it: console errors, exceptions, other hosts."""
    from playwright.sync_api import sync_playwright

    wrong: list[str] = []
    with sync_playwright() as driver:
        chrome = driver.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        window = chrome.new_context(viewport={"width": 1440, "height": 1000})
        page = window.new_page()
        page.goto(airflow.url)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", "secret")
        page.click("button[type=submit]")
        page.get_by_role("link", name="Books").wait_for()
        page.wait_for_load_state("networkidle")
        window.on(
            "console",
            lambda m: (
                wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None
            ),
        )
        window.on("weberror", lambda e: wrong.append(f"exception: {e.error}"))
        window.on(
            "request",
            lambda r: (
                None
                if r.url.startswith((airflow.url, "data:", "blob:"))
                else wrong.append(f"asked {r.url}")
            ),
        )
        yield SimpleNamespace(page=page, wrong=wrong)
        chrome.close()
