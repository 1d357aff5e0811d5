"""Runs under a budget, and what they spent."""

from datetime import datetime

from extract.core.interval import utc
from tests.helpers.books import ACCOUNTS

START, NOW = "2024-11-01T00:00:00Z", "2024-12-20T00:00:00Z"
WALLETS = [a for a in ACCOUNTS if a.source == "debank"]
HISTORY, TOKENS = "/v1/user/all_history_list", "/v1/user/all_token_list"


def lifted(url):
    """The sandbox without limits of its own, for clients that do not wait."""
    url.app.lift_limits()
    return url


def spent(url) -> tuple[int, int]:
    """(calls, units) of DeBank by the sandbox's own count."""
    return url.app.stats()["total"]["debank"], url.app.apis["debank"].units_spent


class Days:
    """A clock that stands still, until it is moved on."""

    def __init__(self, text="2026-01-30T22:00:00Z"):
        self.now = utc(text)

    def __call__(self) -> datetime:
        return self.now


def assert_onchain(books, url):
    """Every transaction and leg that the world has, and none else."""
    truth = {r["tx_id"] for r in url.world.transactions(NOW) if START <= r["time"] < NOW}
    found = books.column(
        f"SELECT tx_id FROM raw.onchain_transactions WHERE vanished_at IS NULL AND ts >= '{START}'"
    )
    assert len(found) >= len(truth) and set(found) == truth
    assert len([r for r in url.world.transfers(NOW) if START <= r["time"] < NOW]) == len(
        books.column("SELECT 1 FROM raw.onchain_transfers WHERE vanished_at IS NULL")
    )
