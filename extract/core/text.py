"""Text of others (a token's name, a vendor's message, an exception) where people read it."""

from __future__ import annotations

import unicodedata

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, marks of direction, halves, breaks of lines


def visible(text: str, keep: str = "") -> str:
    """`text` with what a terminal or a mail would obey written out, such as \\x1b; `keep` stays.

    Anybody may mint a token whose symbol moves the cursor, turns the direction of what follows or
    begins another header.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in HIDDEN and character not in keep
        else character
        for character in text
    )
