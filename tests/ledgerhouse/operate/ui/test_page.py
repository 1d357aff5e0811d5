"""The page in Airflow's UI: its figures against the sandbox's truth, its login, and in a browser.

One file, because all of it needs the one API server that takes longest to start."""

from __future__ import annotations

import contextlib
import http.client
import random
import shutil
from collections import Counter
from datetime import date
from decimal import Decimal

import pytest
import requests

from ledgerhouse.check.agreement import AGREED
from ledgerhouse.check.data_docs import folder_of
from ledgerhouse.operate.ui import figures
from ledgerhouse.operate.ui.plugin import PREFIX
from ledgerhouse.publish.publish import TABLES, publish
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.warehouse.connection import open_warehouse
from tests.ledgerhouse.operate.ui.scene import (
    ACCOUNTS,
    BROKEN,
    COINBASE,
    HOLE,
    NOW,
    RUN,
    SECRET,
    SYMBOL,
    WHOLE,
)

pytestmark = pytest.mark.slow


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
