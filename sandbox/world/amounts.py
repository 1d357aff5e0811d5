"""Amounts as whole base units (int), and their text and the vendor's floats, made only here."""

from __future__ import annotations

from decimal import Context, Decimal
from math import nextafter

_WIDE = Context(prec=120)


def decimal_text(units: int, decimals: int) -> str:
    """Exact plain decimal with all its digits: (1500000, 6) is 1.500000."""
    sign, digits = "-" if units < 0 else "", str(abs(units)).rjust(decimals + 1, "0")
    return sign + (f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits)


def short_text(units: int, decimals: int) -> str:
    """The same without trailing zeros: 1.5."""
    text = decimal_text(units, decimals)
    return text.rstrip("0").rstrip(".") if "." in text else text


def float_text(units: int, decimals: int) -> str:
    """The JSON number DeBank sends: the shortest repr of the nearest float."""
    return repr(float(Decimal(f"{units}E-{decimals}")))


def told_units(text: str, decimals: int) -> int:
    """The base units nearest to what a JSON number says."""
    return int(Decimal(text).scaleb(decimals, _WIDE).to_integral_value())


def noisy_text(units: int, decimals: int) -> str:
    """The float one step below, as arithmetic leaves it: 16180 becomes 16179.999999999998."""
    return repr(nextafter(float(Decimal(f"{units}E-{decimals}")), 0.0))


def rounded_text(units: int) -> str:
    """An integer as a JavaScript number prints it: digits below 1e21, an exponent from there."""
    rounded = float(units)
    return (
        repr(rounded) if rounded >= 1e21 else format(Decimal(repr(rounded)), "f").removesuffix(".0")
    )


def keep_digits(units: int, digits: int) -> int:
    """`units` cut (towards zero) to its leading digits, so that a float can hold it exactly.

    15 digits survive text -> double -> shortest text; amounts use fewer.
    """
    extra = len(str(units)) - digits
    return units if extra <= 0 else units // 10**extra * 10**extra
