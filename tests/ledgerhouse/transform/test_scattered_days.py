"""Statements over days that lie apart, against the same statements run for each span by itself."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta

import duckdb
import pytest
from sqlglot import parse_one

from ledgerhouse.transform.scattered_days import bounded

DAY = timedelta(days=1)
START = date(2026, 1, 1)
MOMENT = "CAST('{first} 00:00:00' AS TIMESTAMP) AND CAST('{last} 23:59:59.999999' AS TIMESTAMP)"
QUERIES = {  # as SQLMesh renders them: of models, and of audits
    "a range of literals": """
        SELECT id, ts FROM legs AS l
        WHERE l.ts <= '{last} 23:59:59.999999' AND l.ts >= '{first} 00:00:00' AND NOT l.id IS NULL""",
    "an audit": f"""
        SELECT id FROM (SELECT * FROM legs AS "x" WHERE "ts" BETWEEN {MOMENT}) AS "_0"
        WHERE id % 2 = 0 AND TRUE""",
    "an audit by day": """
        SELECT day, count(*) FROM (SELECT *, ts::DATE AS day FROM legs) AS d
        WHERE day BETWEEN CAST('{first}' AS DATE) AND CAST('{last}' AS DATE) GROUP BY day""",
    "a key twice": f"""
        SELECT id, count(*) FROM (SELECT * FROM legs WHERE ts BETWEEN {MOMENT}) AS "_0"
        GROUP BY id, ts HAVING count(*) > 0""",
    "a day around, joined by day": """
        WITH o AS (SELECT id, CAST(l.ts AS DATE) AS day FROM legs AS l
                   WHERE l.ts <= '{last} 23:59:59.999999' AND l.ts >= '{first} 00:00:00')
        SELECT o.id, o.day, count(*) FROM o JOIN fills AS f
        ON f.ts >= o.day - INTERVAL '1' DAY AND f.ts < o.day + INTERVAL '2' DAY
        WHERE f.ts BETWEEN CAST('{first} 00:00:00' AS TIMESTAMP) - INTERVAL '1' DAY
        AND CAST('{last} 23:59:59.999999' AS TIMESTAMP) + INTERVAL '1' DAY GROUP BY o.id, o.day""",
    "in a part of an OR": f"""
        SELECT id, ts FROM legs AS l WHERE (l.ts BETWEEN {MOMENT} OR FALSE) AND l.id > 3""",
    "in a join's condition": f"""
        SELECT l.id, f.id FROM fills AS f JOIN legs AS l
        ON l.id = f.id AND (l.ts BETWEEN {MOMENT})""",
    "after a window": f"""
        SELECT id, ts, row_number() OVER (ORDER BY ts, id) AS n FROM legs QUALIFY ts BETWEEN {MOMENT}""",
    "kept by an outer join": f"""
        SELECT l.id, f.ts FROM legs AS l LEFT JOIN fills AS f ON l.id = f.id AND f.id < 9
        WHERE l.ts BETWEEN {MOMENT} AND (f.ts IS NULL OR f.id > 2)""",
    "two tables": f"""
        SELECT l.id FROM legs AS l, fills AS f WHERE l.id = f.id AND l.ts BETWEEN {MOMENT}
        AND CAST(f.ts AS DATE) = CAST(l.ts AS DATE) AND f.ts BETWEEN {MOMENT}""",
    "a union of both": f"""
        SELECT id FROM legs WHERE ts BETWEEN {MOMENT}
        UNION ALL SELECT id FROM fills WHERE ts BETWEEN {MOMENT}""",
}


def spans_of(rng) -> list[tuple[date, date]]:
    """Two to six spans of one to three days, neither touching nor overlapping."""
    found, day = [], START
    for _ in range(rng.randint(2, 6)):
        day += rng.randint(1, 5) * DAY
        found.append((day, day + rng.randint(1, 3) * DAY))
        day = found[-1][1]
    return found


@pytest.fixture
def tables():
    with duckdb.connect() as con:
        yield con


def fill(con, rng) -> None:
    for name in ("legs", "fills"):
        con.execute(f"CREATE OR REPLACE TABLE {name} (id INT, ts TIMESTAMP)")
        instants = [
            datetime(2025, 12, 30)
            + timedelta(
                microseconds=rng.choice(
                    [
                        rng.randrange(45 * 86_400_000_000),
                        rng.randrange(45) * 86_400_000_000,
                        rng.randrange(1, 45) * 86_400_000_000 - 1,
                    ]
                )
            )
            for _ in range(120)
        ]
        con.execute(
            f"INSERT INTO {name} VALUES "
            + ", ".join(f"({rng.randrange(40)}, '{ts}')" for ts in instants)
        )


def told(sql: str, first: date, after: date):
    return parse_one(sql.format(first=first, last=after - DAY), dialect="duckdb")


@pytest.mark.parametrize("query", QUERIES)
def test_together_is_one_by_one(tables, query):
    rng, met = random.Random(query), 0
    for _ in range(15):
        fill(tables, rng)
        spans = spans_of(rng)
        apart = [
            row
            for span in spans
            for row in tables.execute(told(QUERIES[query], *span).sql("duckdb")).fetchall()
        ]
        whole = told(QUERIES[query], spans[0][0], spans[-1][1])
        before = whole.sql("duckdb")
        for by_range in ({"legs", "fills"}, {"fills"}, ()):
            (statement,) = bounded(whole, spans, by_range)
            assert whole.sql("duckdb") == before, "what was given stays as it is"
            assert sorted(tables.execute(statement.sql("duckdb")).fetchall()) == sorted(apart)
        met += len(apart)
    assert met > 15, "the cases are not empty"


def test_a_delete_takes_the_days_and_leaves_what_lies_between(tables):
    rng = random.Random(3)
    for _ in range(40):
        fill(tables, rng)
        spans = spans_of(rng)
        inside = " OR ".join(f"(ts >= '{start}' AND ts < '{end}')" for start, end in spans)
        left = tables.execute(f"SELECT * FROM legs WHERE NOT ({inside}) ORDER BY ALL").fetchall()
        made = bounded(
            told(f"DELETE FROM legs WHERE ts BETWEEN {MOMENT}", spans[0][0], spans[-1][1]), spans
        )
        assert len(made) == len(spans)
        for each in made:
            tables.execute(each.sql("duckdb"))
        assert tables.execute("SELECT * FROM legs ORDER BY ALL").fetchall() == left != []


def test_what_names_no_day_stays_as_it_is():
    spans = [(START, START + DAY), (START + 9 * DAY, START + 10 * DAY)]
    for sql in ("DESCRIBE legs", "DELETE FROM legs WHERE id = 1", "SELECT '2026-01-05' AS day"):
        assert [e.sql("duckdb") for e in bounded(parse_one(sql, dialect="duckdb"), spans)] == [
            parse_one(sql, dialect="duckdb").sql("duckdb")
        ]


def test_a_day_outside_of_a_condition_is_refused():
    spans = [(START, START + DAY), (START + 9 * DAY, START + 10 * DAY)]
    with pytest.raises(ValueError, match="'2026-01-01' is outside of any condition"):
        bounded(told("SELECT '{first}' AS day FROM legs", START, START + 10 * DAY), spans)
