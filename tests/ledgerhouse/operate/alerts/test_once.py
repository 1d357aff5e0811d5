"""Whatever happens, an incident is sent once, and once more when it is over."""

from __future__ import annotations

from datetime import timedelta

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledgerhouse.operate.alerts import incidents
from ledgerhouse.operate.alerts.conditions import KINDS, Incident
from ledgerhouse.warehouse import schema
from tests.ledgerhouse.operate.alerts.scene import NOW

KEYS = [
    ("stale_coverage", "debank", "0xa", ""),
    ("budget", "debank", "", "units a day"),
    ("balance_off", "debank", "0xa", "eth"),
    ("balance_off", "debank", "0xa", "pol"),
]
STATE = st.fixed_dictionaries(
    {key: st.sampled_from([True, True, False, False, None]) for key in KEYS}
)  # None: nobody can tell
STEP = st.tuples(
    STATE,
    st.sets(st.sampled_from(["balance_off"])),
    st.sets(st.sampled_from(["a", "b"])),
    st.sampled_from(["", "", "before", "after"]),
)


@pytest.fixture(scope="module")
def con():
    con = duckdb.connect()
    schema.create_all(con)
    yield con
    con.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEP, max_size=9))
def test_any_sequence_of_states_is_sent_once_each_to_each_channel(con, steps):
    """A step: what is wrong, kinds that cannot be checked, channels that are down, and a kill
    before the delivery or between it and its mark."""
    con.execute("DELETE FROM ops.incidents; DELETE FROM ops.notices")
    truth = dict.fromkeys(KEYS, False)
    wanted: list[tuple] = []
    got: dict[str, list[tuple]] = {"a": [], "b": []}
    ids: dict[str, set] = {"a": set(), "b": set()}

    def run(number: int, state, blind=(), down=(), kill="") -> None:
        now = NOW + timedelta(hours=number)
        judged = {
            kind: [
                Incident(*key, f"text {number}", value is True)
                for key, value in state.items()
                if key[0] == kind and value is not False
            ]
            for kind in KINDS
            if kind not in blind
        }
        incidents.reconcile(con, judged, got, run_id=f"r{number}", now=now)
        if kill == "before":
            return
        tried = {name: incidents.waiting(con, name) for name in got}
        for name, notices in tried.items():
            if name not in down:
                fresh = [n for n in notices if n.as_dict()["id"] not in ids[name]]
                assert kills or fresh == list(notices), "sent twice without any kill"
                ids[name] |= {n.as_dict()["id"] for n in fresh}
                got[name] += [(n.event, n.kind, n.source, n.account, n.subject) for n in fresh]
        if kill != "after":
            incidents.note_sent(con, tried, set(got) - set(down), now)

    kills = False
    for number, (state, blind, down, kill) in enumerate(steps):
        for key, value in state.items():
            if key[0] not in blind and value is not None and value != truth[key]:
                truth[key] = value
                wanted.append(("opened" if value else "resolved", *key))
        kills = kills or kill == "after"
        run(number, state, blind, down, kill)
    run(len(steps), truth)  # in the end nobody is down
    for name in got:
        for key in KEYS:
            assert [notice for notice in got[name] if notice[1:] == key] == [
                notice for notice in wanted if notice[1:] == key
            ]
    assert con.execute(
        "SELECT count(*) FROM ops.incidents WHERE resolved_at IS NULL"
    ).fetchone() == (sum(truth.values()),)


def test_a_channel_that_is_added_gets_what_is_open_and_of_nothing_else_that_it_is_over(con):
    con.execute("DELETE FROM ops.incidents; DELETE FROM ops.notices")
    first, second = Incident(*KEYS[0], "x"), Incident(*KEYS[1], "y")
    for names, judged in (
        (["log"], [first, second]),
        (["log", "new"], [first]),
        (["log", "new"], []),
    ):
        incidents.reconcile(
            con,
            {kind: [i for i in judged if i.kind == kind] for kind in KINDS},
            names,
            run_id="r",
            now=NOW,
        )
    assert [(n.event, n.kind) for n in incidents.waiting(con, "new")] == [
        ("opened", "stale_coverage"),
        ("resolved", "stale_coverage"),
    ]
    assert len(incidents.waiting(con, "log")) == 4
