"""A file that cannot be read is put aside with the reason, is seen, and stops nothing else."""

import json
from datetime import UTC, datetime

import pytest

from extract.core.interval import Interval
from extract.core.quarantine import quarantined
from extract.fetch import landing
from extract.fetch.call_log import call_log, logged
from ledgerhouse.check import data_docs
from ledgerhouse.config import Account, Rules
from ledgerhouse.load import unit_balances
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.load.loader import LoadFailed, load
from ledgerhouse.load.quarantined import record_quarantined
from ledgerhouse.operate.alerts.conditions import present_incidents
from ledgerhouse.operate.run_log import attempts
from ledgerhouse.plan import coverage
from stack.settings import Settings
from tests.ledgerhouse.load.test_damage import MONTHS, SOURCES, land

DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "foreign": lambda data: b"PK\x03\x04 not ours at all",
    "a bit": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
}
ACCOUNT = Account("coinbase", "main", "coinbase")


def harm(file, kind):
    file.write_bytes(DAMAGE[kind](file.read_bytes()))


def reasons(root):
    return {file.name: reason for file, reason, _ in quarantined(root)}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("named", ["by digest", "as 0.1 did"])
def test_a_damaged_file_in_the_inbox_stops_no_other_and_is_fetched_again(
    con, tmp_path, kind, named
):
    root = tmp_path / "landing"
    files = [land(root, month) for month in MONTHS[:3]]
    if named == "as 0.1 did":
        files = [f.rename(f.with_name(f.name[:-42] + f.name[-22:])) for f in files]
        assert all(landing.inspect(file) for file in files)
    harm(files[1], kind)
    loaded = load(con, root, SOURCES)
    assert loaded.files == 2 and loaded.new == 40
    assert list(reasons(root)) == [files[1].name] and not list(landing.waiting(root))
    assert coverage.covered(con, "coinbase", "main", "exchanges_ledger") == [MONTHS[0], MONTHS[2]]
    whole = Interval(MONTHS[0].start, MONTHS[2].end)
    asked = coverage.jobs(con, SOURCES, [ACCOUNT], whole, snapshot=False)
    assert any(not MONTHS[1].minus([job.interval]) for job in asked), "it is asked for again"
    # It is seen: a table, an incident, until the file is removed.
    assert record_quarantined(con, tmp_path) == 1
    ((source, account, start),) = con.execute(
        "SELECT source, account, start_ts FROM ops.quarantined_files"
    ).fetchall()
    assert (source, account, start) == ("coinbase", "main", MONTHS[1].start.replace(tzinfo=None))
    now = datetime(2025, 6, 1, tzinfo=UTC)
    (incident,) = present_incidents(con, [ACCOUNT], Rules(), now)["damaged_file"]
    assert files[1].name in incident.text and incident.account == "main"
    for file in (root / "quarantine").iterdir():
        file.unlink()
    assert record_quarantined(con, tmp_path) == 0
    assert present_incidents(con, [ACCOUNT], Rules(), now)["damaged_file"] == []


def test_a_name_that_is_none_of_ours_and_a_source_that_is_gone(con, tmp_path):
    root = tmp_path / "landing"
    good, strange = land(root, MONTHS[0]), land(root, MONTHS[1])
    strange.rename(root / "inbox" / "notes.jsonl.zst")
    other = land(root, MONTHS[2])
    other = other.rename(other.with_name(other.name.replace("coinbase", "gone_exchange")))
    with pytest.raises(LoadFailed, match=f"{other.name}.*no source 'gone_exchange'.*waits"):
        load(con, root, SOURCES)
    assert con.execute("SELECT file FROM ops.landed_files").fetchall() == [(good.name,)]
    assert list(reasons(root)) == ["notes.jsonl.zst"]
    assert list(landing.waiting(root)) == [other], "it is whole: install its source, and it loads"


@pytest.mark.parametrize("harmed", ["lost", "damaged"])
def test_the_order_of_loads_is_written_again_from_the_warehouse(con, tmp_path, harmed):
    root, file = tmp_path / "landing", tmp_path / "landing" / "loads.jsonl"
    for month in MONTHS[:3]:
        land(root, month)
        load(con, root, SOURCES)
    before = file.read_bytes()
    if harmed == "lost":
        file.unlink()
    else:
        file.write_bytes(before.replace(b'"sequence":2', b'"sequence":3'))
        assert len(landing.loads(root)) == 2, "what was changed is not believed"
    load(con, root, SOURCES)
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_bookkeeping_blocks_no_task(con, tmp_path, kind):
    """Attempts, unit readings and calls: the damaged is put aside, the others are read."""
    key = dict(zip(attempts.KEY, ("sync", "R", "load", -1, 1)))
    with attempts.attempt(tmp_path / "attempts", key):
        pass
    harm(sorted((tmp_path / "attempts").iterdir())[0], kind)
    files, known = attempts.read(tmp_path / "attempts")
    assert len(files) == len(known) == 1 and len(reasons(tmp_path / "attempts")) == 1

    for moment in ("before", "after"):
        unit_balances.note(
            tmp_path / "account_units",
            source="debank",
            connection="debank",
            run_id="R",
            moment=moment,
            balance=7,
            accounts=["0x1"],
        )
    harm(sorted((tmp_path / "account_units").iterdir())[0], kind)
    unit_balances.load_unit_balances(con, tmp_path / "account_units", "R")
    assert len(con.execute("FROM ops.account_units").fetchall()) == 1
    assert len(reasons(tmp_path / "account_units")) == 1

    call = {"called_at": "2026-01-31T06:00:00+00:00", "source": "debank", "account": "0x1",
            "endpoint": "/v1", "status": 200, "duration_ms": 1, "units": 4}  # fmt: skip
    for log in ("a", "b"):
        with call_log(tmp_path / "calls", {}) as record:
            for number in range(3):
                record({"call_id": f"{log}{number}", **call})
    harm(sorted((tmp_path / "calls" / "inbox").iterdir())[0], kind)
    seen = len(list(logged(tmp_path / "calls")))
    assert load_calls(con, tmp_path / "calls") == seen
    assert seen == {"empty": 3, "cut": 4, "foreign": 3, "a bit": 5}[kind]
    # An empty log is that of a task that asked nothing; half a line is a kill's.
    assert len(reasons(tmp_path / "calls")) == (kind in ("a bit", "foreign"))

    assert record_quarantined(con, tmp_path) == 2 + (kind in ("a bit", "foreign"))


def test_a_damaged_run_of_the_data_docs_leaves_the_index(tmp_path):
    month = MONTHS[0]
    for run in ("first-run", "second-run"):
        data_docs.write(tmp_path, run, month, [], keep=5)
    (tmp_path / "runs" / data_docs.folder_of("first-run") / "run.json").write_bytes(b"")
    data_docs.write(tmp_path, "three", month, [], keep=5)
    text = (tmp_path / "index.html").read_text()
    assert "first-run" not in text and "second-run" in text
    assert list(reasons(tmp_path)) == [data_docs.folder_of("first-run")]


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_secrets_are_put_aside_and_made_anew_aloud(tmp_path, capsys, kind):
    settings = Settings(tmp_path, {})
    old = settings.secret("admin")
    assert settings.secret("admin") == old
    harm(tmp_path / "secrets.json", kind)
    new = settings.secret("admin")
    assert new != old and settings.secret("admin") == new
    assert "from a backup" in capsys.readouterr().err
    assert (tmp_path / "quarantine" / "secrets.json").stat().st_mode & 0o077 == 0
    (tmp_path / "secrets.json").write_text(json.dumps({"admin": "of 0.1"}))
    assert settings.secret("admin") == "of 0.1", "without a sum, as older versions wrote it"
