"""The page in Airflow's UI: its figures against the sandbox's truth, its login, and in a browser.

One set of books is made: four accounts of the sandbox, with a hole in one's history, runs that
failed, a balance that is off, and a token whose maker chose markup as its symbol. A real Airflow
API server (SQLite, no scheduler) serves them with the plugin as it is installed.
"""

from __future__ import annotations

import ast
import contextlib
import http.client
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
import requests

from ledgerhouse.check.agreement import AGREED
from ledgerhouse.check.data_docs import folder_of
from ledgerhouse.operate.commands.tables import digits
from ledgerhouse.operate.ui import calendar, figures
from ledgerhouse.operate.ui.plugin import PREFIX, LedgerhousePlugin
from ledgerhouse.publish.books import has, open_books
from ledgerhouse.publish.publish import TABLES, publish
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import transform
from ledgerhouse.warehouse.connection import open_warehouse
from ledgerhouse.warehouse.schema import create_all
from sandbox.server import serve
from stack import commands
from stack.settings import SettingsError, free_port
from tests.helpers.books import Books, Hurried, of

pytestmark = pytest.mark.slow

START, NOW = "2024-11-01T00:00:00Z", "2024-12-20T12:00:00Z"
HOLE = ("2024-11-20T00:00:00Z", "2024-11-24T06:00:00Z")
ACCOUNTS = of("coinbase") + of("debank")
COINBASE, WHOLE, BROKEN, HEALED = (a.account for a in ACCOUNTS)
SYMBOL = '<img src=x onerror="window.pwned=1">'
RUN = "scheduled__2024-12-20T12:00:00+00:00"
SECRET = "what only the warehouse's folder holds"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
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
        truth = url.world.balances(at=NOW, now=NOW)
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


# Who may see it


def routes() -> list[str]:
    from ledgerhouse.operate.ui.app import make_app

    return [route.path for route in make_app().routes]


def test_every_route_wants_a_login(airflow):
    known = routes()
    assert {"/", "/static/{path:path}", "/docs/{path:path}", "/api/overview"} <= set(known)
    files = {
        "/static/{path:path}": ["page.js", "vendor/chart.umd.min.js"],
        "/docs/{path:path}": ["index.html", f"runs/{folder_of(RUN)}/raw.balances.html"],
    }
    good = {"/api/balances": "?source=coinbase&account=main&token=ETH"}
    for route in known:
        for name in files.get(route, [""]):
            path = PREFIX + route.replace("{path:path}", name) + good.get(route, "")
            asked = {
                caller: requests.get(airflow.url + path, headers=headers, timeout=30)
                for caller, headers in {
                    "nobody": {},
                    "a stranger": {"Authorization": "Bearer nonsense"},
                    "the admin": {"Authorization": f"Bearer {airflow.token}"},
                }.items()
            }
            assert asked["nobody"].status_code == 401, f"{path} without a token"
            assert asked["a stranger"].status_code in (401, 403), f"{path} with a wrong token"
            assert asked["the admin"].status_code == 200, f"{path}: {asked['the admin'].text}"
            assert "default-src 'none'" in asked["the admin"].headers["Content-Security-Policy"]
            kept = asked["the admin"].headers["Cache-Control"]
            assert kept == ("no-store" if route.startswith("/api/") else "no-cache"), path


def test_no_route_is_mounted_or_documented_beside_the_guarded_ones():
    """A mount (StaticFiles, say) and FastAPI's own pages would not ask for the login."""
    from ledgerhouse.operate.ui.app import make_app

    app = make_app()
    assert app.openapi_url is None
    for route in app.routes:
        assert type(route).__name__ == "APIRoute" and route.dependant.dependencies, route.path
        assert route.methods == {"GET"}, f"{route.path}: the page only reads"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "../../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "..%5csecret.txt",
        "runs/../../secret.txt",
        "runs/..%2f..%2fsecret.txt",
        "./../secret.txt",
        "//secret.txt",
        "{var}/secret.txt",
        "%2f{var}/secret.txt",
        "way_out.txt",
        "..%252fsecret.txt",
        "../warehouse.duckdb",
        "secret.txt%00.html",
    ],
)
@pytest.mark.parametrize("room", ["docs", "static"])
def test_no_path_leaves_its_folder(airflow, room, path):
    line = http.client.HTTPConnection("127.0.0.1", airflow.port, timeout=30)
    with contextlib.closing(line):
        line.request(
            "GET",
            f"{PREFIX}/{room}/{path.format(var=airflow.var)}",
            headers={"Authorization": f"Bearer {airflow.token}"},
        )
        answer = line.getresponse()
        body = answer.read().decode(errors="replace")
    # A path that the server itself resolves to one outside /ledgerhouse is Airflow's own page.
    assert SECRET not in body
    assert answer.status in (400, 404, 405) or "<title>Airflow</title>" in body


# What it says


def test_balances_are_the_sandboxs_truth(ask, kept):
    rows = ask("reconciliation", limit=200)
    assert rows["total"] == len(rows["rows"]) == sum(rows["statuses"].values()) > 20
    truth = {(r["account"], r["token"]): Decimal(r["amount"]) for r in kept.truth}
    by_key = {(r["account"], r["token"]): r for r in rows["rows"]}
    whole = {key for key in truth if key[0] != BROKEN}
    assert whole <= set(by_key)
    for key in whole:
        assert Decimal(by_key[key]["computed"]) == truth[key], key
        odd = key == (COINBASE, "ETH")
        assert (by_key[key]["status"] == "off") == odd, "less than computed is no opening"
        assert odd or by_key[key]["status"] in AGREED
    assert {r["status"] for r in rows["rows"] if r["account"] == BROKEN} == {"awaiting_coverage"}
    first = rows["rows"][0]
    assert (first["token"], first["difference"]) == ("ETH", "-1"), "what is open comes first"
    assert [r["symbol"] for r in rows["rows"]].count(SYMBOL) >= 1, "a symbol is shown as it is"
    for key in random.Random(7).sample(sorted(whole), 6):
        answer = ask("balances", source=by_key[key]["source"], account=key[0], token=key[1])
        assert Decimal(answer["points"][-1][1]) == truth[key]
        assert answer["reported"]["balance"] == by_key[key]["reported"]


def test_the_head_says_what_the_parts_say(ask, kept, books):
    head, cover = ask("overview"), ask("coverage", year=2024)
    rows = ask("reconciliation", limit=200)
    assert head["published"]["run"] == RUN
    assert (head["off"], head["balances"]) == (1, rows["total"])
    assert head["statuses"] == rows["statuses"]
    assert head["agreed"] == sum(rows["statuses"].get(s, 0) for s in AGREED)
    assert head["gaps"] == cover["gaps_total"] == len(cover["gaps"]) == 1
    ((unread,),) = books.execute("SELECT count(DISTINCT part) FROM ops.unread_parts").fetchall()
    assert head["unread"] == unread
    (gap,) = cover["gaps"]
    assert (gap["account"], gap["start"], gap["end"]) == (BROKEN, *HOLE)
    assert gap["failed_run"] == f"run of {BROKEN}"
    assert (head["through"], head["newest"]) == (HOLE[0], NOW), "to the first gap, and the newest"
    assert len(head["accounts"]) == len(ACCOUNTS)
    assert (
        head["pending"]
        == books.execute(
            "SELECT count(*) FROM raw.exchanges_ledger WHERE status LIKE 'pending' OR "
            "status LIKE 'waiting%'"
        ).fetchone()[0]
    )
    (check,) = head["checkpoints"]
    assert (check["passed"], check["warning"], check["critical"]) == (1, 1, 0)
    assert check["failed"] == ["fits: 10 rows"] and folder_of(RUN) in check["docs"]


def test_spending_is_the_calls_that_were_made(ask, kept):
    calls = {
        s: (len(c), sum(call["units"] for call in c))
        for s, c in {
            source: [c for c in kept.calls if c["source"] == source]
            for source in {account.source for account in ACCOUNTS}
        }.items()
    }
    spent = {
        s["source"]: tuple(sum(day[i] for day in s["days"]) for i in (1, 2))
        for s in ask("spending", days=7)["sources"]
    }
    assert spent == calls and calls["debank"][1] > 0


def test_a_search_finds_what_it_says_and_pages_add_up(ask):
    everything = ask("reconciliation", limit=200)["rows"]
    for word in ("eth", SYMBOL, BROKEN[:9].upper(), "'; DROP TABLE x; --", "%", "_"):
        rows = ask("reconciliation", search=word, limit=200)["rows"]
        wanted = [
            r
            for r in everything
            if word.lower()
            in " ".join([r["symbol"], r["token"], r["source"], r["account"]]).lower()
        ]
        assert [r for r in rows if r in wanted] == wanted, word
    paged = [
        row
        for offset in range(0, len(everything), 7)
        for row in ask("reconciliation", limit=7, offset=offset)["rows"]
    ]
    assert paged == everything
    only = ask("reconciliation", status="awaiting_coverage", limit=200)["rows"]
    assert only == [r for r in everything if r["account"] == BROKEN]


def test_a_long_line_is_thinned_to_days_that_are_true(books, monkeypatch):
    account, token = WHOLE, "eth:eth"
    daily = dict(
        books.execute(
            "SELECT date::VARCHAR, balance::VARCHAR FROM curated.daily_balances WHERE account = ? "
            "AND token = ?",
            [account, token],
        ).fetchall()
    )
    full = figures.balances(books, "debank", account, token)["points"]
    assert full[0][0] == min(daily) and full[-1][0] == max(daily)
    held = None  # the line holds a value until its next point: every day is shown
    steps = dict(full)
    for day in sorted(daily):
        held = steps.get(day, held)
        assert Decimal(held) == Decimal(daily[day]), day
    for most in (1, 2, 5):
        monkeypatch.setattr(figures, "MOST_POINTS", most)
        answer = figures.balances(books, "debank", account, token)
        assert len(answer["points"]) <= most < len(full) and answer["every"] > 1
        assert answer["points"][-1] == full[-1]
        assert all(Decimal(daily[day]) == Decimal(text) for day, text in answer["points"])


# Coverage, day by day, against a count of hours


def random_history(con, rng, accounts, first: datetime, days: int) -> tuple[dict, list]:
    """Random readings and failed fetches, whole hours: (account, dataset) → hours, failures."""
    read = {(a, d): set() for a in accounts for d in ("onchain_transactions", "onchain_transfers")}
    for (account, dataset), hours in read.items():
        at = rng.randrange(0, 40)
        while at < days * 24:
            end = min(at + rng.choice((1, 6, 24, 31, 96)), days * 24)
            hours.update(range(at, end))
            con.execute(
                "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
                "reason, run_id, batch_id, recorded_at) "
                "VALUES ('debank', ?, ?, ?, ?, ?, 'short page', "
                "'r', 'b', ?)",
                [account, dataset, first + at * HOUR, first + end * HOUR, first, first],
            )
            at = end + rng.choice((0, 0, 0, 6, 30))
    failures = []
    for number in range(rng.randrange(4)):
        account, start = rng.choice(accounts), rng.randrange(0, days * 24 - 6)
        end = start + rng.choice((1, 6, 50))
        tries = rng.randrange(1, 4)
        healed = rng.random() < 0.4  # its last attempt succeeded
        for attempt in range(1, tries + 1):
            state = "success" if healed and attempt == tries else "failed"
            con.execute(
                "INSERT INTO ops.sync_runs BY NAME SELECT 'sync' AS dag_id, ? AS run_id, "
                "'fetch_debank' AS task_id, 0 AS map_index, ? AS try_number, 'debank' AS source, "
                "? AS account, ? AS interval_start, ? AS interval_end, ? AS state, ? AS ended, "
                "now()::TIMESTAMP AS mirrored_at",
                [
                    f"run {number}",
                    attempt,
                    account,
                    first + start * HOUR,
                    first + end * HOUR,
                    state,
                    first + end * HOUR,
                ],
            )
        if not healed:
            failures.append((account, set(range(start, end))))
    return read, failures


@pytest.mark.parametrize("seed", range(12))
def test_the_calendar_is_a_count_of_hours(seed):
    rng, first, days = random.Random(seed), datetime(2024, 2, 20), 20
    accounts = ["a", "b"]
    with duckdb.connect() as con:
        create_all(con)
        read, failures = random_history(con, rng, accounts, first, days)
        answer = calendar.coverage(con, 2024)
    by_day = {
        (a["account"], day): (state, share, answer["notes"][note])
        for a in answer["accounts"]
        for day, state, share, note in a["days"]
    }
    gaps = set()
    for account in accounts:
        mine = [hours for (a, _), hours in read.items() if a == account]
        for number in range(-2, days + 4):
            span = set(range(number * 24, number * 24 + 24))
            whole = min(len(span & hours) for hours in mine)
            hole = any(span & (set(range(min(h), max(h))) - h) for h in mine)
            failed = any(a == account and span & hours for a, hours in failures)
            wanted = (
                "covered"
                if whole == 24
                else "failed"
                if failed
                else "gap"
                if hole
                else "partly"
                if whole
                else "none"
            )
            state, share, note = by_day.get(
                (account, str((first + number * DAY).date())), ("none", 0, {})
            )
            assert (state, share) == (wanted, whole * 1000 // 24), (account, number)
            assert ("failed" in note) == failed, "a failure is shown, also of a day read since"
        for hours in mine:
            missing = sorted(set(range(min(hours), max(hours))) - hours)
            starts = [h for h in missing if h - 1 not in missing]
            ends = [h + 1 for h in missing if h + 1 not in missing]
            gaps |= {(account, first + s * HOUR, first + e * HOUR) for s, e in zip(starts, ends)}
    assert {
        (
            g["account"],
            datetime.fromisoformat(g["start"][:-1]),
            datetime.fromisoformat(g["end"][:-1]),
        )
        for g in answer["gaps"]
    } == gaps
    assert answer["gaps_total"] == len(gaps)


# Books that are there in part, or not at all


@pytest.fixture
def con():
    """Books by hand: the ops tables that other versions may or may not publish."""
    with duckdb.connect() as con:
        con.execute("ATTACH ':memory:' AS books; USE books")
        create_all(con)
        yield con


def test_budgets_and_the_full_refresh_are_shown_where_the_books_have_them(con):
    today = date(2026, 3, 10)
    if not has(con, "ops.budgets"):
        con.execute(
            "CREATE TABLE ops.budgets (source VARCHAR, measure VARCHAR, period VARCHAR, "
            "allowed BIGINT)"
        )
    con.execute("DROP VIEW IF EXISTS ops.spending")
    con.execute(
        "CREATE TABLE ops.spending (source VARCHAR, day DATE, calls BIGINT, "
        "units BIGINT, full_refresh_calls BIGINT, full_refresh_units BIGINT)"
    )
    con.execute(
        "INSERT INTO ops.spending VALUES ('debank', '2026-03-09', 4, 80, 300, 6000), "
        "('debank', '2026-03-01', 9, 900, NULL, NULL), "
        "('debank', '2026-02-28', 5, 50, 1, 1)"
    )
    con.execute(
        "INSERT INTO ops.budgets (source, measure, period, allowed) VALUES "
        "('debank', 'units', 'month', 5000), ('debank', 'units', 'day', 100)"
    )
    (month,) = figures._month(con, today)
    assert (month["calls"], month["units"], month["allowed"]["units"]) == (13, 980, 5000)
    assert (month["ours"]["units"], month["full"]["units"]) == (80, 6000), "like with like"
    con.execute(
        "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
        "reason, run_id, batch_id, recorded_at) "
        "VALUES ('debank', 'a', 'onchain_transactions', "
        "'2026-01-01', '2026-03-10', now(), 'short page', 'r', 'b', now())"
    )
    (source,) = figures.spending(con, 12, today)["sources"]
    assert source["days"] == [["2026-02-28", 5, 50], ["2026-03-01", 9, 900], ["2026-03-09", 4, 80]]
    assert source["budget"] == {
        "units": {"day": 100, "month": 5000},
        "calls": {"day": None, "month": None},
    }


def test_open_incidents_are_shown_and_resolved_ones_not(con):
    con.execute("DROP TABLE IF EXISTS ops.incidents")
    assert figures._incidents(con) == {"open": [], "total": 0}
    con.execute(
        "CREATE TABLE ops.incidents (incident_id VARCHAR, kind VARCHAR, source VARCHAR, "
        "account VARCHAR, subject VARCHAR, severity VARCHAR, text VARCHAR, "
        "opened_at TIMESTAMP, resolved_at TIMESTAMP)"
    )
    con.execute(
        "INSERT INTO ops.incidents SELECT i::VARCHAR, 'stale', 'debank', 'a', '', "
        "'warning', 'no word', TIMESTAMP '2026-01-01' + INTERVAL 1 HOUR * i, "
        "CASE WHEN i % 3 = 0 THEN now()::TIMESTAMP END FROM range(90) t(i)"
    )
    incidents = figures._incidents(con)
    assert incidents["total"] == 60 and len(incidents["open"]) == figures.MOST_INCIDENTS
    assert incidents["open"][0]["incident_id"] == "89"


def test_a_run_that_was_not_published_is_shown_until_newer_books_are(tmp_path):
    run = tmp_path / "runs" / "r-1"
    run.mkdir(parents=True)
    numbers = {
        "run_id": "r",
        "checked_at": "2026-01-02T00:00:00+00:00",
        "failed": ["keys: 3 rows"],
        "tables": {"raw.a": {"critical": 0}, "raw.b": {"critical": 2}},
    }
    (run / "run.json").write_text(json.dumps(numbers))
    answer = figures.refused(tmp_path, datetime(2026, 1, 1))
    assert (answer["run"], answer["docs"]) == ("r", "runs/r-1/raw.b.html")
    assert figures.refused(tmp_path, None) == answer, "before the first books too"
    assert figures.refused(tmp_path, datetime(2026, 1, 3)) is None
    (run / "run.json").write_text(json.dumps(numbers | {"tables": {"raw.a": {"critical": 0}}}))
    assert figures.refused(tmp_path, None) is None


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0E-18",
        "-0.000000000000000000",
        "1.50",
        "1E+3",
        "100",
        "-12.500000000000000000",
        "0.000000000000000001",
        "1e22",
    ],
)
def test_plain_text_is_the_same_amount(text):
    plain = digits(Decimal(text))
    assert Decimal(plain) == Decimal(text) and "e" not in plain.lower()
    assert not ("." in plain and plain.endswith("0")) and plain != "-0"


def test_tasks_and_the_scheduler_load_the_plugin_without_its_app():
    waiting, met = ["ledgerhouse.operate.ui.plugin"], set()
    while waiting:
        path = Path(__file__).parents[4] / (waiting.pop().replace(".", "/") + ".py")
        for node in ast.parse(path.read_text()).body:
            names = (
                [node.module]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            waiting += [
                name
                for name in names
                if name.startswith(("extract.", "ledgerhouse.")) and name not in met
            ]
            met.update(names)
    met = {name for name in met if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name for name in met if not name.startswith("ledgerhouse.operate.ui.")} == {
        "airflow.plugins_manager"
    }
    assert "ledgerhouse.operate.ui.app" not in met
    (page,) = LedgerhousePlugin.react_apps
    assert (page["destination"], page["url_route"]) == ("nav", "ledgerhouse")


def test_every_vendored_file_has_its_version_and_its_licence_beside_it():
    from ledgerhouse.operate.ui.app import STATIC

    folder = STATIC / "vendor"
    table = (folder / "README.md").read_text()
    rows = re.findall(r"^\| (\S+\.js) \| (\S+) (\S+) \| .* \| (.*) \|$", table, re.M)
    licences = [name for *_, names in rows for name in names.split(", ")]
    assert {p.name for p in folder.iterdir()} == {name for name, *_ in rows} | {*licences} | {
        "README.md"
    }
    for name, package, version, _ in rows:
        head = (folder / name).read_text()[:200]
        assert package in head.lower() and f"v{version}\n" in head, name
    for name in licences:
        assert "Permission is hereby granted" in (folder / name).read_text(), name


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


@pytest.mark.browser
def test_what_people_see(browser, ask, airflow):
    page, cover = browser.page, ask("coverage")
    page.get_by_role("link", name="Books").click()
    page.wait_for_selector(".lh-ledger tbody tr")
    assert page.url.endswith("/plugin/ledgerhouse")
    # The head.
    tiles = dict(
        zip(
            page.locator(".lh-tile dt").all_inner_texts(),
            page.locator(".lh-tile dd").all_inner_texts(),
        )
    )
    head = ask("overview")
    assert tiles["balances that agree"] == f"{head['agreed']} of {head['balances']}"
    assert (tiles["gaps"], tiles["covered through"]) == ("1", "2024-11-20 00:00")
    silence = page.locator(".lh-banner.bad").first.inner_text()
    assert "No sync has come: read through " in silence and "12 hours are allowed" in silence
    # The heat map: a cell a day and account, each in its state.
    page.wait_for_selector(".lh-day")
    first, last = (date.fromisoformat(cover[name]) for name in ("first", "last"))
    states = Counter(state for a in cover["accounts"] for _, state, _, _ in a["days"])
    for state in ("covered", "partly", "gap", "failed"):
        assert page.locator(f"rect.lh-day.{state}").count() == states[state] > 0, state
    assert page.locator("rect.lh-day").count() == ((last - first).days + 1) * len(ACCOUNTS)
    assert page.locator("rect.lh-day.healed").get_attribute("data-date") == "2024-12-05"
    page.hover("rect.lh-day.failed")
    assert "Unreachable: 500 six times" in page.locator(".lh-tip").inner_text()
    assert "3" in page.locator(".lh-gaps tbody tr").inner_text()
    # The table: what is off first, symbols as text, whatever they are.
    rows = ask("reconciliation", limit=25)["rows"]
    assert page.locator(".lh-ledger tbody tr").count() == len(rows) == 25
    lines = page.locator(".lh-ledger tbody tr")
    assert [c.strip() for c in lines.first.locator("td").all_inner_texts()][3:] == [
        rows[0]["reported"],
        rows[0]["computed"],
        "-1",
    ]
    page.fill("input[type=search]", SYMBOL)
    page.wait_for_function("document.querySelectorAll('.lh-ledger tbody tr').length < 10")
    assert SYMBOL[:18] in lines.first.inner_text()
    lines.first.click()
    wanted = ask("reconciliation", search=SYMBOL)["rows"][0]
    page.wait_for_function(
        "text => document.querySelector('.lh-amount')?.textContent === text", arg=wanted["computed"]
    )
    assert page.evaluate("window.pwned") is None and page.locator("img[src=x]").count() == 0
    assert page.locator(".lh-chart canvas").count() == 2
    # Data Docs, in a page of their own.
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="raw.balances").click()
    opened.value.wait_for_selector("text=what was checked")
    # The page alone, under a policy that allows no inline script and no other host; in the dark.
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.goto(f"{airflow.url}{PREFIX}/")
    page.wait_for_selector(".dark .lh-ledger tbody tr")
    page.wait_for_selector(".lh-chart canvas")
    assert browser.wrong == []


@pytest.mark.browser
def test_books_of_an_older_version_are_named_as_such(browser, airflow, monkeypatch):
    published = airflow.var / "published"
    published.rename(airflow.var / "hidden")
    try:
        monkeypatch.setattr(
            "ledgerhouse.publish.publish.TABLES",
            [table for table in TABLES if table.name not in ("ops.gaps", "ops.spending")],
        )
        with open_warehouse(airflow.var / FILE, owner="test") as con:
            publish(con, published, [], run_id=RUN)
        browser.page.goto(f"{airflow.url}{PREFIX}/")
        notice = browser.page.locator(".lh-empty")
        notice.wait_for()
        assert "older version" in notice.inner_text() and "sync" in notice.inner_text()
        shutil.rmtree(published)
    finally:
        (airflow.var / "hidden").rename(published)
        browser.wrong.clear()  # the browser notes that an answer was 503


@pytest.mark.browser
def test_without_books_the_page_says_what_to_do(browser, airflow):
    published = airflow.var / "published"
    published.rename(airflow.var / "hidden")
    try:
        browser.page.goto(airflow.url)
        browser.page.get_by_role("link", name="Books").click()
        notice = browser.page.locator(".lh-empty")
        notice.wait_for()
        assert "No books yet" in notice.inner_text() and "history" in notice.inner_text()
        assert browser.wrong == []
    finally:
        (airflow.var / "hidden").rename(published)


def test_looking_without_a_demo_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    with pytest.raises(SettingsError, match="make demo makes them"):
        commands.ui()
