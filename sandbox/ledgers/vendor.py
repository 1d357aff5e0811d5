"""The Vendor of a ledger exchange: one account, "main", opened by a key, a secret and sometimes more."""

from __future__ import annotations

from sandbox.ledgers.api import LedgerApi
from sandbox.ledgers.history import LedgerHistory
from sandbox.vendor import Pages, Vendor


def ledger_vendor(
    api: type[LedgerApi],
    history: type[LedgerHistory],
    pages: Pages,
    *,
    key: str,
    secret: str,
    passphrase: str = "",
) -> Vendor:
    """A Vendor by the name of its history's shape; `passphrase` where the exchange wants one."""
    name = history.shape.vendor
    extra = {"extra": {"password": passphrase}} if passphrase else {}
    return Vendor(
        name,
        api=api,
        history=history,
        error=api.error,
        accounts=({"account": history.shape.account, "connection": f"{name}_main"},),
        connection=lambda url: {"host": url, "login": key, "password": secret, **extra},
        pages=pages,
        in_demo=False,
    )
