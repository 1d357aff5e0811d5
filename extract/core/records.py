"""Records of landed pages, as the mappings of a source read them in DuckDB: without rounding."""

from __future__ import annotations

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
    """The moment of a record, as the SQL of `extract.sources._sql.time` reads it; None for the rest."""
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


@dataclass(frozen=True)
class Records:
    """The list of records in the pages of some endpoints, and what is read of each record.

    `list_at` is the key of the list in the body, None where the body is the list. `fields` is a
    record's structure as DuckDB's from_json wants it: every leaf VARCHAR, so that what is read is
    the text of the API response (a JSON number read as a double has lost digits).
    """

    endpoints: tuple[str, ...]
    list_at: str | None
    fields: str

    def select(self) -> str:
        """A SELECT over `pages`: page_id, source, account, params, as_of, item, row, payload.

        `row` is the record's fields as a STRUCT, NULL for what is no object; `payload` its
        untouched text; `item` counts from 1 within the page.
        """
        named = ", ".join(f"'{endpoint}'" for endpoint in self.endpoints)
        rows, texts, key = f"[{self.fields}]", '["JSON"]', ""
        if self.list_at:
            rows, texts, key = (
                f'{{"{self.list_at}": {rows}}}',
                f'{{"{self.list_at}": {texts}}}',
                f".{self.list_at}",
            )
        return f"""
        SELECT page_id, source, account, params, as_of, generate_subscripts(texts, 1) AS item,
               unnest(rows) AS row, unnest(texts)::VARCHAR AS payload
        FROM (SELECT page_id, source, account, params, as_of,
                     from_json(body, '{rows}'){key} AS rows,
                     from_json(body, '{texts}'){key} AS texts
              FROM pages WHERE endpoint IN ({named}))"""


def units_text(hex_units: str, decimals: str) -> str:
    """Exact decimal text of a hex count of base units: ("0x5f5e100", "8") → "1.00000000"."""
    return format(Decimal(int(hex_units, 16)).scaleb(-int(decimals), _EXACT), "f")


_EXACT = Context(prec=200)
