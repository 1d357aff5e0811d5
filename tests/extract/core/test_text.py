from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.text import HIDDEN, visible
from ledgerhouse.operate.commands.tables import as_text, cell

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


@settings(deadline=None)
@given(st.text())
def test_nothing_that_is_obeyed_is_left_and_nothing_else_is_changed(text):
    shown = visible(text)
    assert not any(unicodedata.category(c) in HIDDEN for c in shown)
    assert len(shown) >= len(text)
    if not any(unicodedata.category(c) in HIDDEN for c in text):
        assert shown == text


def test_a_symbol_cannot_write_to_the_terminal():
    for symbol in (ESCAPE, "a\r\nBcc: everybody@example.org", "\u202eTNECREP", "\ud800"):
        for shown in (cell(symbol), cell([symbol]), as_text([{"symbol": symbol}], {"symbol": "s"})):
            assert "\x1b" not in shown and "\r" not in shown and "\u202e" not in shown
            shown.encode()
    assert visible("two\nlines\x1b", keep="\n") == "two\nlines\\x1b"
