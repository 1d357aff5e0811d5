"""Redaction of secrets from a text, in every spelling in which a library may have written them.

An error text may hold a key as it is, as repr, JSON or a URL writes it, or one line of a PEM
file: each is replaced by ***.
"""

from __future__ import annotations

import json
from functools import lru_cache
from urllib.parse import quote, quote_plus

LINE = 12  # characters: a shorter line of a longer secret is no secret by itself


def redact(text: str, secrets: tuple[str, ...]) -> str:
    """`text` without the secrets, on whatever line and however escaped; do it before any cut."""
    for shape in _shapes(tuple(filter(None, secrets))):
        text = text.replace(shape, "***")
    return text


@lru_cache(maxsize=64)
def _shapes(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Every spelling of the secrets and of their long lines, the longest first."""
    spellings: set[str] = set()
    for secret in secrets:
        spelt = secret.replace("\\n", "\n")
        lines = [line.strip() for line in spelt.splitlines()]
        parts = [line for line in lines if len(line) >= LINE and "-----" not in line]
        for part in {
            secret,
            secret.strip(),
            spelt,
            "".join(lines),
            " ".join(spelt.split()),
            *parts,
        }:
            spellings |= {
                part,
                repr(part)[1:-1],
                json.dumps(part)[1:-1],
                json.dumps(part, ensure_ascii=False)[1:-1],
                part.replace("\n", "\\n"),
                quote(part),
                quote(part, safe=""),
                quote_plus(part),
                ascii(part)[1:-1],
            }
    return tuple(sorted(spellings - {""}, key=len, reverse=True))
