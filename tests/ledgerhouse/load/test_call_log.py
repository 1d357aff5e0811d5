"""The call log and the attempts' records: what a fetch writes down survives how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.errors import Fatal, Retriable
from extract.fetch.call_log import call_log
from extract.fetch.client import Answer, Client
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.operate.run_log import attempts
from ledgerhouse.operate.run_log.attempts import attempt
from ledgerhouse.warehouse import schema

ROOT = Path(__file__).parents[3]
RUN = {"dag_id": "sync", "run_id": "R", "task_id": "fetch_debank", "map_index": 2, "try_number": 1}
SECRET = "a-very-secret-key"

# Logs calls until it is killed, the last line cut in the middle as a kill would.
WRITER = """
import sys
from pathlib import Path
from extract.fetch.call_log import call_log
with call_log(sys.argv[1], {"dag_id": "sync", "run_id": "R", "task_id": "fetch_debank",
                            "map_index": 2, "try_number": 1}) as record:
    for n in range(int(sys.argv[2])):
        record({"call_id": f"c{n}", "called_at": f"2026-01-31T06:00:0{n}+00:00",
                "source": "debank", "account": "0x1", "endpoint": "/v1", "status": 200,
                "duration_ms": 1, "units": 4})
    (file,) = (Path(sys.argv[1]) / "inbox").iterdir()
    with open(file, "a") as again:
        again.write(sys.argv[3])
    print("ready", flush=True)
    sys.stdin.readline()
"""


def call(number: int, **fields) -> dict:
    return {
        "call_id": f"c{number}",
        "called_at": f"2026-01-31T06:00:{number:02}+00:00",
        "source": "debank",
        "account": "0x1",
        "endpoint": "/v1",
        "status": 200,
        "duration_ms": 5,
        "units": 4,
    } | fields


def known(con) -> list[str]:
    return sorted(c for (c,) in con.execute("SELECT call_id FROM ops.api_calls").fetchall())


@pytest.mark.parametrize("rest", ["", '{"dag_id": "sync", "call_id": "half', "{"])
def test_the_log_of_a_killed_fetch_is_taken_up_to_its_last_whole_line(con, tmp_path, rest):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), "3", rest],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout.readline() == "ready\n"
        waiting = list((tmp_path / "inbox").iterdir())
        assert load_calls(con, tmp_path) == 0, "its writer lives"
        assert list((tmp_path / "inbox").iterdir()) == waiting and known(con) == []
        os.kill(writer.pid, signal.SIGKILL)
    assert load_calls(con, tmp_path) == 3
    assert known(con) == ["c0", "c1", "c2"]
    assert con.execute(
        "SELECT DISTINCT run_id, map_index, try_number FROM ops.api_calls"
    ).fetchall() == [("R", 2, 1)]
    assert list((tmp_path / "inbox").iterdir()) == []


def test_a_log_without_a_whole_line_is_put_away_too(con, tmp_path):
    with call_log(tmp_path, RUN):
        pass
    assert load_calls(con, tmp_path) == 0
    assert list((tmp_path / "inbox").iterdir()) == []


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True), min_size=1, max_size=6
    ),
    st.randoms(),
)
def test_every_call_is_loaded_once_whatever_is_loaded_when(tmp_path_factory, logs, rng):
    """Also where a load died between its commit and putting the files away."""
    import duckdb

    root = tmp_path_factory.mktemp("calls")
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        schema.create_all(con)
        for number, numbers in enumerate(logs):
            with call_log(root, RUN) as record:
                for n in numbers:
                    record(call(number * 100 + n, called_at="2026-01-31T06:00:00+00:00"))
            if rng.random() < 0.5:
                load_calls(con, root)
                if rng.random() < 0.5:
                    for file in root.glob("2*/*"):
                        file.rename(root / "inbox" / file.name)
        load_calls(con, root)
        wanted = {f"c{number * 100 + n}" for number, numbers in enumerate(logs) for n in numbers}
        assert known(con) == sorted(wanted)


def test_times_are_utc_and_an_unanswered_call_is_kept(con, tmp_path):
    with call_log(tmp_path, RUN) as record:
        record(call(1, called_at="2026-01-31T08:00:00.5+02:00", status=None, error="timed out"))
    load_calls(con, tmp_path)
    assert con.execute(
        "SELECT called_at::VARCHAR, status, error FROM ops.api_calls"
    ).fetchall() == [("2026-01-31 06:00:00.5", None, "timed out")]


@pytest.mark.parametrize("error", [Fatal, Retriable])
def test_no_secret_gets_into_the_log_or_the_error(tmp_path, error):
    def send() -> Answer:
        raise error(f"GET https://api/?key={SECRET}: refused {SECRET}")

    with (
        call_log(tmp_path, RUN) as record,
        pytest.raises(error) as raised,
        attempt(tmp_path / "attempts", RUN),
    ):
        Client(
            "debank",
            "0x1",
            rates={},
            units={},
            record=record,
            secrets=(SECRET,),
            tries=2,
            sleep=lambda s: None,
        ).call("/v1", send)
    texts = [f.read_text() for f in tmp_path.rglob("*.json*")]
    assert len(texts) == 3 and all("***" in t for t in texts if "refused" in t)
    assert SECRET not in str(raised.value) + "".join(texts)


# --- attempts ---------------------------------------------------------------------------------


def test_an_attempt_leaves_a_start_at_once_and_then_its_end(tmp_path):
    with attempt(tmp_path, RUN, source="debank", account="0x1") as outcome:
        (only,) = [json.loads(f.read_text()) for f in tmp_path.glob("*.json")]
        assert only["state"] == "running" and only["source"] == "debank"
        outcome["rows"] = 3
    files, found = attempts.read(tmp_path)
    (record,) = found.values()
    assert len(files) == 2 and list(found) == [tuple(RUN.values())]
    assert (record["state"], record["rows"]) == ("success", 3)
    assert record["started"] <= record["ended"]


@pytest.mark.parametrize("error", [ValueError("no\n  such day"), KeyboardInterrupt("stop")])
def test_an_attempt_that_fails_keeps_what_it_did_and_says_why(tmp_path, error):
    with pytest.raises(type(error)), attempt(tmp_path, RUN) as outcome:
        outcome["calls"] = 7
        raise error
    (record,) = attempts.read(tmp_path)[1].values()
    assert (record["state"], record["calls"]) == ("failed", 7)
    assert record["error"] == " ".join(str(error).split())


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(4)))
def test_records_may_be_read_in_any_order(tmp_path_factory, order):
    root = tmp_path_factory.mktemp("attempts")
    for number in (1, 2):
        with attempt(root, RUN | {"try_number": number}) as outcome:
            outcome["rows"] = number
    for position, file in zip(order, sorted(root.glob("*.json"))):
        file.rename(root / f"{position}.json")
    found = attempts.read(root)[1]
    assert {key[-1]: (f["state"], f["rows"]) for key, f in found.items()} == {
        1: ("success", 1),
        2: ("success", 2),
    }
