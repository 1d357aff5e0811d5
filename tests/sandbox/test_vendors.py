"""A vendor of the sandbox is one folder: what each promises, and that nothing else lists them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

import sandbox
from ledgerhouse.config import Account, AccountsFile
from sandbox import accounts
from sandbox.app import create_app
from sandbox.faults.faults import Faults
from sandbox.server import serve
from sandbox.vendors import all_vendors, in_demo
from sandbox.world.world import World
from tests.helpers.books import ACCOUNTS, ACCOUNTS_TOML, ROOT

NOW = "2025-01-20T00:00:00Z"
VENDORS = all_vendors()
LEDGER = {"vendor", "account", "wallet", "entry_id", "time", "type", "is_settled", "token", "amount", "fee"}  # fmt: skip

# A vendor as small as one can be: a deposit a day in one wallet, listed as a map by id.
TINY = """
from starlette.responses import JSONResponse
from starlette.routing import Route

from sandbox.faults.limits import Bucket, NoLimit
from sandbox.vendor import Api, History, Pages, Vendor
from sandbox.world.moments import DAY, NEVER, iso


class Deposit:
    may_vanish, gone_at = True, NEVER

    def __init__(self, number, at):
        self.id, self.at = f"d{number}", at

    def is_there(self, now):
        return self.at < now < self.gone_at

    def truth(self, now):
        return {"vendor": "tiny", "account": "main", "wallet": "", "entry_id": self.id,
                "time": iso(self.at), "type": "deposit", "is_settled": True, "token": "EUR",
                "amount": "1.50", "fee": "0"}


class TinyHistory(History):
    def __init__(self, plan, euros=0):
        self.start, self.deposits, self.euros = plan.start, [], euros

    def grow(self, until):
        while self.start + len(self.deposits) * DAY <= until:
            number = len(self.deposits)
            self.deposits.append(Deposit(number, self.start + number * DAY))

    def listed(self, now, since):
        return [one for one in self.deposits if one.is_there(now) and one.at >= since]

    def truths(self):
        return {"ledger": lambda now: [one.truth(now) for one in self.listed(now, 0)]}

    def balances(self, before, now):
        held = sum(one.at < before for one in self.listed(now, 0))
        return [{"vendor": "tiny", "account": "main", "token": "EUR", "amount": f"{held * 1.5:.2f}"}]

    def summary(self, now):
        return {"ledger": len(self.listed(now, 0))}


class TinyApi(Api):
    def __init__(self, world, clock, greeting="hello"):
        self.world, self.clock, self.greeting = world, clock, greeting
        self.hour = Bucket(1)

    def lift_limits(self):
        self.hour = NoLimit()

    def facts(self):
        return {"greeting": self.greeting}

    def routes(self):
        return [Route("/tiny/ledgers", self.ledgers)]

    async def ledgers(self, request):
        if not self.hour.allows():
            return error(429, "/ledgers")
        now = self.clock.now()
        rows = self.world.grown("tiny", now).listed(now, 0)
        return JSONResponse({"error": [], "result": {one.id: {"time": one.at} for one in rows}})


def error(status, path, message=None):
    return JSONResponse({"error": [message or f"E{status}"]}, 200)


VENDOR = Vendor(
    "tiny", api=TinyApi, history=TinyHistory, error=error,
    accounts=({"account": "main", "connection": "tiny"},),
    connection=lambda url: {"host": url, "password": "p"},
    pages=Pages(lambda answer: answer["result"], lambda row: row["time"], lambda *page: True),
    in_demo=False, api_options=("greeting",), history_options=("euros",),
)
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The made-up vendor in a folder of its own; forgotten again afterwards."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "__init__.py").write_text(TINY)
    monkeypatch.setattr(sandbox, "__path__", [*sandbox.__path__, str(tmp_path)])
    yield all_vendors()["tiny"]
    sys.modules.pop("sandbox.tiny", None)


# --- each that is found -----------------------------------------------------------------------


def test_the_folders_with_a_vendor_are_found():
    folders = {path.parent.name for path in (ROOT / "sandbox").glob("*/api.py")}
    folders -= {"ledgers"}  # what twins share
    assert folders == set(VENDORS) and len(folders) > 1


@pytest.mark.parametrize("name", VENDORS)
def test_each_opens_with_the_fields_of_a_connection(name):
    vendor = VENDORS[name]
    listed = [Account(**entry) for entry in accounts.entries([vendor])]
    assert listed and len(set(listed)) == len(listed)
    made = accounts.connections([vendor], "http://host:1")
    assert set(made) == {account.connection for account in listed}
    for fields in made.values():
        assert set(fields) <= {"conn_type", "host", "login", "password", "extra"}
        assert (fields["conn_type"], fields["host"]) == (name, f"http://host:1/{name}")
        assert fields["password"]


@pytest.mark.parametrize("name", VENDORS)
def test_each_has_its_own_error_answers_and_routes(name):
    world = World(5, scale=0.1, mess=False)
    app = create_app(world, NOW)
    for status in (401, 403, 429, 500):
        answer = VENDORS[name].error(status, "/anything", None)
        # Some say what is wrong with another status than the error's: 200, 400 or 500.
        assert answer.body and answer.status_code in (200, 400, 500, status)
    routes = app.apis[name].routes()
    assert routes and all(route.path.startswith(f"/{name}/") for route in routes)
    assert (app.apis[name].balance is not None) == VENDORS[name].sells_units


@pytest.mark.parametrize("name", VENDORS)
@pytest.mark.parametrize("mess", [False, True])
def test_the_truth_of_each_is_its_own_and_adds_up(name, mess):
    world = World(5, scale=0.3, mess=mess)
    accounts_of = {account["account"] for account in VENDORS[name].accounts}
    for what in world.histories[name].truths():
        for row in world.truth(what, NOW, [name]):
            assert row.get("vendor", name) == name and row["account"] in accounts_of
            assert what != "ledger" or row.keys() >= LEDGER
    rows = world.balances(NOW, NOW, [name])
    assert rows and {row["vendor"] for row in rows} == {name}
    for row in world.residuals(NOW, NOW, vendors=[name]):
        assert row["vendor"] == name and row["account"] in accounts_of
    assert world.summary(NOW)["seed"] == 5


@pytest.mark.parametrize("name", VENDORS)
def test_each_grows_to_the_same_whatever_was_asked_before(name):
    in_one, in_steps = World(9, scale=0.2), World(9, scale=0.2)
    for day in range(1, 20):
        in_steps.grown(name, f"2025-01-{day:02}T07:00:00Z")
    for what in in_one.histories[name].truths():
        assert in_one.truth(what, NOW, [name]) == in_steps.truth(what, NOW, [name])
    last = in_steps.truth(what, NOW, [name])
    assert in_steps.truth(what, None, [name])[: len(last)] != [], "all that was generated so far"


def test_truths_of_one_name_are_those_of_all_vendors():
    world = World(5, scale=0.1)
    for what in {what for history in world.histories.values() for what in history.truths()}:
        parts = [row for name in VENDORS for row in world.truth(what, NOW, [name])]
        assert world.truth(what, NOW) == parts
    assert world.ledger(NOW) == world.truth("ledger", NOW) != []


# --- a new one --------------------------------------------------------------------------------


def test_a_vendor_is_one_folder(tiny):
    with serve(seed=3, scale=0.05, now=NOW, greeting="hi", euros=5) as url:
        control = lambda path, **body: requests.post(f"{url}/_control/{path}", json=body, timeout=5)  # noqa: E731
        get = lambda path, **params: requests.get(f"{url}{path}", params, timeout=5).json()  # noqa: E731
        assert url.tiny == f"{url}/tiny" and url.world.histories["tiny"].euros == 5
        assert get("/_health")["greeting"] == "hi"

        served = get("/tiny/ledgers")["result"]
        assert len(served) == 80
        assert get("/tiny/ledgers") == {"error": ["E429"]}, "one call an hour"
        url.app.lift_limits()
        assert get("/tiny/ledgers")["result"] == served
        assert get("/_stats")["calls"]["tiny"] == {"/ledgers": {"200": 3}}

        truth = get("/_truth/tiny/ledger")
        assert [row["entry_id"] for row in truth] == list(served)
        assert [r for r in get("/_truth/ledger") if r["vendor"] == "tiny"] == truth
        assert get("/_truth/ledger", vendor="tiny") == truth
        balances = get("/_truth/balances", at="2024-11-11T00:00:00Z", vendor="tiny")
        assert [row["amount"] for row in balances] == ["15.00"]
        assert get("/_truth/residuals", vendor="tiny") == []

        assert control("fail", vendor="tiny", status=500, count=1).ok
        assert get("/tiny/ledgers") == {"error": ["E500"]}
        assert control("faults", profile="error_body", vendor="tiny", rate=1, count=1).ok
        assert get("/tiny/ledgers")["error"][0] in ("E429", "E500")
        control("faults", profile="reordered_rows", vendor="tiny", rate=1)
        mixed = get("/tiny/ledgers")["result"]
        assert mixed == served and list(mixed) != list(served)
        control("faults", profile="empty_with_cursor", vendor="tiny", rate=1)
        assert get("/tiny/ledgers")["result"] == {}
        for profile in ("duplicated_rows", "units_exhausted"):  # a map holds no row twice
            control("faults", profile=profile, vendor="tiny", rate=1)
            assert get("/tiny/ledgers")["result"] == served
        control("faults", profile="none")
        injected = {"error_body": 1, "reordered_rows": 1, "empty_with_cursor": 1}
        assert get("/_stats")["faults"]["tiny"] == injected

        gone = control("vanish", vendor="tiny", seed=1).json()
        assert gone in truth and gone not in get("/_truth/tiny/ledger")
        assert gone["entry_id"] not in get("/tiny/ledgers")["result"]
        assert control("fail", vendor="kraaken", status=500).json()["error"].endswith("or tiny")


def test_one_that_is_not_in_the_demo_is_not_listed_there(tiny):
    assert tiny not in in_demo() and "tiny" not in accounts.accounts_toml(in_demo())
    assert "tiny" not in World(3, scale=0.0).summary(NOW)
    assert "tiny" in Faults(3).stats()


def test_a_folder_and_its_vendor_have_one_name(tiny, tmp_path):
    (tmp_path / "tiny").rename(tmp_path / "small")
    sys.modules.pop("sandbox.tiny")
    with pytest.raises(ValueError, match="vendor in sandbox/small/ calls itself 'tiny'"):
        all_vendors()
    sys.modules.pop("sandbox.small")


def test_options_that_no_vendor_has_are_refused():
    with pytest.raises(TypeError, match="history has the options walets"):
        World(3, walets=3)
    with pytest.raises(TypeError, match="API has the options unit"):
        create_app(World(3, scale=0.0, mess=False), NOW, unit=3)


def test_nothing_else_names_a_vendor():
    """Outside its folder only the records of the exchange and of the chains say whose they are."""
    closed = re.compile(rf"""["']({"|".join(VENDORS)})["']""")
    for path in (ROOT / "sandbox").rglob("*.py"):
        room = path.relative_to(ROOT / "sandbox").parts[0]
        if room not in VENDORS and room != "world":
            code = re.sub(r'"""[\s\S]*?"""', "", path.read_text())
            assert not closed.search(code), path
    world = (ROOT / "sandbox/world/world.py").read_text()
    assert not closed.search(world)


# --- the accounts of the tests and of the demo ------------------------------------------------


def test_accounts_of_the_tests_are_the_sandboxs(tmp_path):
    """Whatever the user's own accounts.toml says."""
    (tmp_path / "accounts.toml").write_text("nonsense = [")
    code = (
        "import sys, pathlib, ledgerhouse.config as config\n"
        "config.project_dir = lambda: pathlib.Path(sys.argv[1])\n"
        "try: config.AccountsFile.read()\n"
        "except ValueError: print('nonsense')\n"
        "import tests.conftest\n"
        "print(config.AccountsFile.read().accounts() == tests.conftest.books.ACCOUNTS)\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("LEDGERHOUSE_")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    out = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert out.stdout.split() == ["nonsense", "True"], out.stderr
    file = tmp_path / "accounts.toml"
    file.write_text(ACCOUNTS_TOML)
    assert AccountsFile.read(file).accounts() == ACCOUNTS


def test_no_test_reads_the_users_accounts():
    reads = re.compile(r"""(ROOT|PROJECT|project_dir\(\)) / ["']accounts\.toml["']""")
    names = {  # as a name only
        "tests/ledgerhouse/test_config.py",
        "tests/live/test_compose.py",
        "tests/live/test_compose_runs.py",
    }
    for folder in ("tests", "stack"):
        for path in Path(ROOT / folder).rglob("*.py"):
            if path.relative_to(ROOT).as_posix() not in names:
                assert not reads.search(path.read_text()), path
