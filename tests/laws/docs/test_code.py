"""Blocks of code are whole, and figures add up."""

from __future__ import annotations

import ast
import importlib
import re

import duckdb

from ledgerhouse.config import AccountsFile
from tests.laws.docs.pages import ROOT, blocks, by_hand


@by_hand
def test_blocks_of_python_and_toml_are_whole(page, tmp_path):
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page.name}: {node.module}.{alias.name}"
    for number, text in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(
            text
            if "[[account]]" in text
            else text + '\n[[account]]\nsource="coinbase"\naccount="a"\nconnection="d"\n'
        )
        read = AccountsFile.read(file)
        assert read.accounts() and isinstance(read.limits(), list)


def test_the_walk_of_a_new_source_is_made_of_what_there_is():
    """Names, arguments and fields of the blocks are those of coinbase/, and it compiles."""
    folder = ROOT / "extract/sources/coinbase"
    modules = [
        importlib.import_module(f"extract.sources.coinbase.{path.stem}".removesuffix(".__init__"))
        for path in sorted(folder.glob("*.py"))
    ]
    known = {name: value for module in modules for name, value in vars(module).items()}
    there = set(known) | set(dir(__builtins__)) | {"__builtins__"}
    source = "\n".join(path.read_text() for path in folder.glob("*.py"))
    spoken = {n.attr for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute)}
    there |= {n.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)}
    found = blocks(ROOT / "docs/adding-a-source.md", "python")
    # Without the tests of the source, and the exchange that is facts alone.
    found = [text for text in found if "extract.testing" not in text and "GATE" not in text]
    assert len(found) == 5
    whole = ast.parse("\n".join(found))
    names = {n.id for n in ast.walk(whole) if isinstance(n, ast.Name)}
    stored = {
        n.id for n in ast.walk(whole) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    arguments = {
        a.arg
        for n in ast.walk(whole)
        if isinstance(n, ast.arguments)
        for a in (*n.args, *n.kwonlyargs, *filter(None, (n.kwarg,)))
    }
    builtin = set(dir(importlib.import_module("builtins")))
    assert names - stored - arguments - builtin - {"ccxt"} <= there
    assert {n.attr for n in ast.walk(whole) if isinstance(n, ast.Attribute)} <= spoken
    assert {n.name for n in ast.walk(whole) if isinstance(n, ast.FunctionDef)} <= there
    namespace: dict = dict(known)
    exec("\n".join(found), namespace)  # the SOURCE at the end is a Source, or this raises
    assert namespace["SOURCE"].name == "coinbase" and "trade_id" in namespace["TRADES"]
    with duckdb.connect() as con:
        con.execute(
            "CREATE TABLE pages (page_id INT, source VARCHAR, account VARCHAR, "
            "endpoint VARCHAR, params JSON, body VARCHAR, received_at TIMESTAMP, "
            "as_of TIMESTAMP)"
        )
        con.execute(
            "INSERT INTO pages VALUES (1, 's', 'a', ?, '{}', ?, now()::TIMESTAMP, NULL)",
            [
                known["FILLS"],
                '{"fills": [{"trade_id": "t", "price": "0.10", "side": "BUY",'
                ' "trade_time": "2026-01-31T06:00:00Z"}]}',
            ],
        )
        for name, records in namespace["SOURCE"].records.items():
            con.execute(f"CREATE VIEW records_{name} AS {records.select()}")
        row = con.execute(namespace["TRADES"]).fetchone()
    assert "0.10" in row and "buy" in row, "the mapping that is shown reads a page"


def test_the_exchange_that_is_shown_is_the_one_in_use():
    """Every fact of the block, kinds apart, is that of the file."""
    from dataclasses import fields

    from extract.ledger import Exchange
    from extract.sources.gate import GATE

    (text,) = [b for b in blocks(ROOT / "docs/adding-a-source.md", "python") if "GATE" in b]
    namespace: dict = {}
    exec(text, namespace)
    shown: Exchange = namespace["GATE"]
    assert namespace["SOURCE"].name == "gate"
    for name in ("name", "title", "documentation", "host", "ccxt", "rates"):
        assert getattr(shown, name) == getattr(GATE, name), name
    for one, other in zip((*shown.ledgers, *shown.balances), (*GATE.ledgers, *GATE.balances)):
        for fact in fields(one):
            if fact.name != "kinds":
                assert getattr(one, fact.name) == getattr(other, fact.name), fact.name
    assert shown.ledgers[0].kinds.items() <= GATE.ledgers[0].kinds.items()


def test_the_figures_for_analysts_are_those_that_the_code_gives():
    """The block's sums are consistent: in - out = net, as printed."""
    text = (ROOT / "docs/analysts.md").read_text()
    from decimal import Decimal

    rows = re.findall(r"^\d{4}-\d\d +(\S+) +(\S+) +(\S+)$", text, re.M)
    assert len(rows) == 3
    for inflow, outflow, net in rows:
        assert Decimal(inflow) - Decimal(outflow) == Decimal(net)
