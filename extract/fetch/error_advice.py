"""Advice on a failed call: what it means to the person who holds the key, and what to do.

The Test button and a failed task give the same.
"""

from __future__ import annotations

from extract.core.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    ExtractError,
    Fatal,
    RateLimited,
    Unforeseen,
    UnitsExhausted,
)
from extract.core.source import Source

NOT_HERE = (404, 405, 410)  # of an API's root endpoints: another API, or none at all


def advice(error: ExtractError, source: Source, host: str, where: str) -> str:
    """The meaning of an error, then the error's own text; `where` names the Connection.

    The text of the error is taken as it is: the client has redacted the secrets.
    """
    meaning = _meaning(error, source, host, where)
    return f"{meaning} — {error}" if meaning else str(error)


def _meaning(error: ExtractError, source: Source, host: str, where: str) -> str:
    form, status = source.form, error.status
    title = form.title or source.name
    if isinstance(error, UnitsExhausted):
        return f"{title} accepts the key, and its prepaid units are used up"
    if isinstance(error, DeadlineExceeded):
        return (
            f"{host} answers too slowly: try again later; where this machine's network is the "
            f"slow part, set deadline_s in the extra of {where}"
        )
    if isinstance(error, (BodyTooLarge, Unforeseen)):
        return ""  # the error's own text says what to do
    if status == 401:
        if error.skew_s:
            return (
                f"{title} refuses the key, maybe for this machine's clock: it is "
                f"{abs(error.skew_s):.0f} s {'behind' if error.skew_s > 0 else 'ahead of'} the "
                "vendor's, and "
                "signatures are good for two minutes. Set the clock (NTP) first, then "
                f"check the {form.password} in {where}"
            )
        asked = f"{form.login} and {form.password}" if form.login else form.password
        return (
            f"{title} refuses the key: it is wrong, or was revoked or has expired. Check "
            f"the {asked} in {where}; where they are right, make a new key at {title}"
        )
    if status == 403:
        return (
            f"{title} knows the key and does not permit this call: the key lacks the "
            "permission to read (view), or is bound to other IP addresses. Change it at "
            f"{title}"
        )
    if isinstance(error, RateLimited):
        return f"{title} is called too often with this key; try again in a minute"
    if status is not None and status >= 500:
        return f"{title} has trouble of its own; try again later"
    if status is not None and (status < 400 or status in NOT_HERE):
        return (
            f"what answers at {host} is not the API of {title}, or not all of it: write "
            f"{form.host or 'its address'} as the host in {where}"
        )
    if status is None and not isinstance(error, Fatal):
        return (
            f"no answer from {host}: check the host in {where} ({title} is at "
            f"{form.host or source.documentation}), and this machine's network, proxy and "
            "firewall"
        )
    return ""
