"""`airflow warehouse explain`: the rows behind a number."""

from __future__ import annotations

import json
import random
import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerhouse.operate.commands.explain import explained
from ledgerhouse.operate.commands.tables import cell, digits
from ledgerhouse.publish.books import open_books
from tests.ledgerhouse.operate.commands.scene import BROKEN, DAY, WHOLE

pytestmark = pytest.mark.slow


def test_every_balance_is_explained_by_its_rows_to_the_last_digit(kept):
    rng = random.Random(3)
    with open_books(kept.var / "published") as con:
        moved = con.execute(
            "SELECT source, account, token, date FROM curated.daily_flows "
            "WHERE legs > 0 ORDER BY ALL"
        ).fetchall()
        still = con.execute(
            "SELECT source, account, token, date FROM curated.daily_balances ORDER BY ALL"
        ).fetchall()
        brought = kinds = 0
        for source, account, token, day in rng.sample(moved, 40) + rng.sample(still, 10):
            explanation = explained(con, source, account, token, day)
            (closing, legs) = con.execute(
                "SELECT (SELECT balance FROM curated.daily_balances WHERE (source, account, token, "
                "date) = ($1, $2, $3, $4)), (SELECT count(*) FROM curated.tx_unified WHERE (source,"
                " account, token, ts::DATE) = ($1, $2, $3, $4))",
                [source, account, token, day],
            ).fetchone()
            assert explanation["adds_up"] and len(explanation["legs"]) == legs, (
                account,
                token,
                day,
            )
            assert Decimal(explanation["closing"]) == closing
            for leg in explanation["legs"]:
                assert leg["batch_id"] and leg["file"] and leg["run_id"] == "test"
                assert leg["counts"] != bool(leg["why_not"])
                brought, kinds = brought + 1, kinds + (leg["leg"] == "gas")
        assert brought > 40 and kinds, "gas legs come from the transaction's own row"


def test_explained_balances_are_the_sandboxs_truth(kept):
    with open_books(kept.var / "published") as con:
        seen = 0
        for at, truth in kept.truth.items():
            day = (at - DAY).date()
            for row in truth:
                if row["account"] == BROKEN.account:
                    continue
                explanation = explained(con, row["vendor"], row["account"], row["token"], day)
                if explanation["closing"] is None:  # not met yet
                    assert Decimal(row["amount"]) == 0 == len(explanation["legs"]), row
                elif explanation["is_exact"]:
                    assert Decimal(explanation["closing"]) == Decimal(row["amount"]), row
                    seen += Decimal(row["amount"]) != 0
        assert seen > 20


def test_a_balance_that_its_rows_do_not_make_is_reported(kept):
    with open_books(kept.var / "published") as con:
        source, account, token, day = con.execute(
            "SELECT source, account, token, date FROM curated.daily_flows WHERE legs > 1 "
            "ORDER BY ALL LIMIT 1"
        ).fetchone()
        con.execute("USE memory; CREATE SCHEMA curated; CREATE SCHEMA raw; CREATE SCHEMA ops")
        for schema, view in con.execute(
            "SELECT schema_name, view_name FROM duckdb_views() WHERE "
            "database_name = 'books' AND schema_name <> 'main'"
        ).fetchall():
            con.execute(f"CREATE TABLE {schema}.{view} AS FROM books.{schema}.{view}")
        assert explained(con, source, account, token, day)["adds_up"]
        con.execute(
            "UPDATE curated.daily_balances SET balance = balance + 1e-18::DECIMAL(38,18) "
            "WHERE (source, account, token, date) = (?, ?, ?, ?)",
            [source, account, token, day],
        )
        explanation = explained(con, source, account, token, day)
        assert not explanation["adds_up"]
        assert Decimal(explanation["closing"]) - Decimal(explanation["sum"]) == Decimal("1e-18")


def test_explain_as_typed(airflow, kept):
    code, out, _ = airflow("warehouse", "explain", "main", "usd", "2024-11-22", "-o", "json")
    explanation = json.loads(out, parse_float=lambda text: pytest.fail(f"{text} is a float"))
    (shot,) = explanation["snapshots"]
    assert code == 0 and explanation["token"] == "USD"
    assert shot["difference"] == "0" and shot["computed"] == shot["reported"]
    code, out, _ = airflow("warehouse", "explain", "MAIN", "USD", "2024-11-22")
    assert code == 0 and f"= {explanation['closing']}, to the last digit" in out
    assert all(
        leg["txid"] in "".join(out.split()) or leg["txid"][:20] in out
        for leg in explanation["legs"]
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ("nobody", "USD", "2024-11-20"),
            "no account 'nobody'; they hold: coinbase main, debank 0x",
        ),
        (("0x", "USD", "2024-11-20"), "may be debank 0x"),
        (("main", "ETHH", "2024-11-20"), r"never held 'ETHH'; it holds, or held: .*ETH"),
        ((WHOLE.account[:6], "ETH", "2024-11-20"), "name one: .*eth:eth"),
        (("main", "USD", "1999-01-01"), "from 2024-11-01, its first movement, to 2024-1"),
        (("main", "USD", "yesterday"), "'yesterday' is no day"),
    ],
)
def test_what_the_books_lack_is_answered_with_what_is_near(airflow, argv, said):
    code, out, err = airflow("warehouse", "explain", *argv)
    assert (code, out) == (2, "")
    assert re.search(said, err) and "Traceback" not in err


@given(
    st.decimals(
        allow_nan=False,
        allow_infinity=False,
        places=18,
        min_value=Decimal("-1e20"),
        max_value=Decimal("1e20"),
    )
)
@settings(max_examples=60)
def test_no_digit_of_an_amount_is_lost(amount):
    text = digits(amount)
    assert Decimal(text) == amount and "E" not in text and text == digits(Decimal(text))
    assert text in cell(amount)
