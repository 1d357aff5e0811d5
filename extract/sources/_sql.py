"""SQL that reads the records of landed pages: what the sources' mappings have in common."""

from __future__ import annotations


def records(endpoints: str | tuple[str, ...], list_at: str | None, fields: str) -> str:
    """A SELECT of the records of pages: page_id, source, account, params, as_of, item, row, payload.

    `list_at` is the key of the list in the body, None where the body is the list. `fields` is a
    record's structure as from_json wants it: every leaf VARCHAR, so that what is read is the
    wire's text. `row` is NULL for what is no object; `item` counts from 1 within the page.
    """
    named = ", ".join(f"'{e}'" for e in ([endpoints] if isinstance(endpoints, str) else endpoints))
    rows, texts = f"[{fields}]", '["JSON"]'
    if list_at:
        rows, texts = f'{{"{list_at}": {rows}}}', f'{{"{list_at}": {texts}}}'
    of = f".{list_at}" if list_at else ""
    return f"""
    SELECT page_id, source, account, params, as_of, generate_subscripts(texts, 1) AS item,
           unnest(rows) AS row, unnest(texts)::VARCHAR AS payload
    FROM (SELECT page_id, source, account, params, as_of,
                 from_json(body, '{rows}'){of} AS rows, from_json(body, '{texts}'){of} AS texts
          FROM pages WHERE endpoint IN ({named}))"""


def decimal(text: str) -> str:
    """SQL of an amount's text as DECIMAL(38,18), NULL where it does not fit or is no number.

    DuckDB reads text into a decimal of 38 digits at 4.7 us a value, into one of 18 at 0.04 us. So
    plain notation is read as one of those, or as two on either side of the point; the result is
    the same.
    """
    small = f"TRY_CAST({text} AS DECIMAL(18,9))::DECIMAL(38,18)"
    whole = f"TRY_CAST(split_part(ltrim({text}, '-'), '.', 1) AS DECIMAL(18,0))::DECIMAL(38,18)"
    part = f"TRY_CAST('0.' || split_part({text}, '.', 2) AS DECIMAL(18,18))"
    return (
        f"CASE WHEN {_plain(text, 9)} THEN {small} WHEN {_plain(text, 18)} "
        f"THEN CASE WHEN starts_with({text}, '-') THEN -({whole} + {part}) "
        f"ELSE {whole} + {part} END ELSE TRY_CAST({text} AS DECIMAL(38,18)) END"
    )


def _plain(text: str, digits: int) -> str:
    """Whether it is plain notation with at most so many digits on either side of the point."""
    return f"regexp_full_match({text}, '-?[0-9]{{1,{digits}}}(\\.[0-9]{{1,{digits}}})?')"
