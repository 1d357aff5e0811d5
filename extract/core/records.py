"""Records of landed pages, as the mappings of a source read them in DuckDB: without rounding."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal

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
