"""Records of landed pages, as the mappings of a source read them in DuckDB: without rounding."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal

# What Python's parser takes in a JSON string and DuckDB's refuses, or no column can hold: halves of
# surrogate pairs, and NULs. Both read U+FFFD there; whole pairs and escaped backslashes stay.
_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(\\u0000|\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
NEEDS_REPAIR = r"\\u(0000|[dD][89a-fA-F])"  # where there is none of it, a body stays as it is

# The times that vendors send, in every form that is read. The offset is applied; a fraction is cut
# to microseconds; no zone means UTC.
TIME = (
    r"[12][0-9]{3}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]"
    r"(:[0-5][0-9](\.[0-9]+)?)?(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)?"
)
_TIME = re.compile(TIME)


def repaired(body: str) -> str:
    """JSON text that every parser reads alike: see _ESCAPES."""
    return _ESCAPES.sub(lambda match: "\\ufffd" if match[1] else match[0], body)


def time_of(text: object) -> datetime | None:
    """The moment of a record, as the SQL of `extract.core.sql.time` reads it; None for the rest."""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        return None
    if text[16:17] != ":":
        text = f"{text[:16]}:00{text[16:]}"
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:  # the 30th of February
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


# A bare JSON number would pass through a double in any JSON parser, 17 digits at best. So
# numbers are quoted first (ccxt does the same). `"key": 1.50` cannot occur inside a JSON
# string: its quotes would be escaped, which the first class excludes.
QUOTED_BODY = r"""regexp_replace(body,
    '([^\\]"\s*:\s*)(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)', '\1"\2"', 'g')"""


# Numbers of a list have no key before them, and what looks like one may stand inside a string; so
# strings are matched first, and left alone.
_LISTED_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?')


def quote_numbers(body: str) -> str:
    """JSON text whose every number is a string of the same digits, in lists too."""
    return _LISTED_NUMBER.sub(
        lambda match: match[0] if match[0].startswith('"') else f'"{match[0]}"', body
    )


@dataclass(frozen=True)
class Records:
    """The records in the pages of some endpoints, and what is read of each record.

    `list_at` is where the list is in the body: a key, or keys and places (from 0) joined by dots;
    None where the body is the list. `fields` is a record's structure as DuckDB's from_json wants it: every leaf
    VARCHAR, so that what is read is the text of the API response (a JSON number read as a double
    has lost digits). `shape` is what lies at `list_at`: a "list"; a "map" of records by their id,
    which becomes the field `_key`; or "arrays", a list of lists whose fields are known by place
    (`fields` is then '["VARCHAR"]', and `row` a list of texts). `inner`: what is listed holds the
    records, in a list in this field.
    """

    endpoints: tuple[str, ...]
    list_at: str | None
    fields: str
    shape: str = "list"
    inner: str = ""

    def select(self) -> str:
        """A SELECT over `pages`: page_id, source, account, params, as_of, item, row, payload.

        `row` is the record's fields as a STRUCT, NULL for what is no object; `payload` its
        untouched text; `item` counts from 1 within the page.
        """
        named = ", ".join(f"'{endpoint}'" for endpoint in self.endpoints)
        rows, texts, key, body = f"[{self.fields}]", '["JSON"]', "", "body"
        if self.shape == "map":
            rows = f'"MAP(VARCHAR, {_struct(json.loads(self.fields))})"'
            texts = '"MAP(VARCHAR, JSON)"'
        elif self.shape == "arrays":
            body = "quote_numbers(body::VARCHAR)::JSON"
        elif self.inner:
            rows, texts = f'[{{"{self.inner}": {rows}}}]', f'[{{"{self.inner}": {texts}}}]'
        for name in reversed((self.list_at or "").split(".") if self.list_at else []):
            if name.isdigit():  # the one of a list that has the records
                rows, texts, key = f"[{rows}]", f"[{texts}]", f"[{int(name) + 1}]{key}"
            else:
                rows, texts, key = (
                    f'{{"{name}": {rows}}}',
                    f'{{"{name}": {texts}}}',
                    f".{name}{key}",
                )
        row, text = "unnest(rows)", "unnest(texts)::VARCHAR"
        if self.shape == "map":
            row = "unnest([struct_insert(r.value, _key := r.key) FOR r IN map_entries(rows)])"
            text, count = "unnest(map_values(texts))::VARCHAR", "map_keys(texts)"
        else:
            count = "texts"
        found = "flatten([r.{inner} FOR r IN from_json({body}, '{of}'){key}])" if self.inner else ""
        found = found or "from_json({body}, '{of}'){key}"
        parsed = [found.format(inner=self.inner, body=body, of=of, key=key) for of in (rows, texts)]
        return f"""
        SELECT page_id, source, account, params, as_of, generate_subscripts({count}, 1) AS item,
               {row} AS row, {text} AS payload
        FROM (SELECT page_id, source, account, params, as_of,
                     {parsed[0]} AS rows, {parsed[1]} AS texts
              FROM pages WHERE endpoint IN ({named}))"""


def _struct(fields: object) -> str:
    """The SQL type of a structure of from_json."""
    if isinstance(fields, str):
        return fields
    if isinstance(fields, list):
        return f"{_struct(fields[0])}[]"
    assert isinstance(fields, dict)
    members = [f'\\"{name}\\" {_struct(kind)}' for name, kind in fields.items()]
    return f"STRUCT({', '.join(members)})"


def units_text(hex_units: str, decimals: str) -> str:
    """Exact decimal text of a hex count of base units: ("0x5f5e100", "8") → "1.00000000"."""
    return format(Decimal(int(hex_units, 16)).scaleb(-int(decimals), _EXACT), "f")


_EXACT = Context(prec=200)
