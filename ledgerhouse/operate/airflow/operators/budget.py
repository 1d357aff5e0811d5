"""The budget inside tasks: the ledger of a source, and what a plan's jobs will cost.

Heavy imports happen inside the functions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from extract.core.errors import Fatal
from extract.core.source import Job, Source
from ledgerhouse.config import Account, AccountsFile, var_dir

if TYPE_CHECKING:
    import duckdb

    from ledgerhouse.plan.budget import Ledger
    from ledgerhouse.plan.estimate import Cost


def ledger(source: str) -> Ledger | None:
    """The ledger of a source that has a limit, else None; AirflowFailException for a wrong one.

    Of a file that is new it counts the call logs first, where no plan has counted before.
    """
    from extract.fetch.call_log import logged
    from ledgerhouse.plan.budget import from_logs, open_ledgers

    count = from_logs(lambda first: logged(var_dir() / "calls", first))
    try:
        limits = AccountsFile.read(what="budget").limits()
        for opened in open_ledgers(var_dir(), limits, [source], count):
            if not opened.is_counted:
                opened.recount(count)
            return opened
    except ValueError as error:
        raise AirflowFailException(str(error)) from None
    return None


def estimate(
    log: logging.Logger | Any,
    con: duckdb.DuckDBPyConnection,
    file: AccountsFile,
    sources: Mapping[str, Source],
    accounts: Sequence[Account],
    jobs: Sequence[Job],
    now: datetime,
) -> dict[tuple[str, str], Cost]:
    """What the jobs of one connection's accounts will cost, by source and account.

    Before that the ledgers are counted again and ops.budgets is brought up to date; what is
    allowed no more is logged as a warning.
    """
    from extract.fetch.call_log import logged
    from ledgerhouse.plan import spending
    from ledgerhouse.plan.budget import from_logs, from_warehouse, open_ledgers
    from ledgerhouse.plan.estimate import Cost, Known, priced

    try:
        allowed = file.limits()
    except ValueError as error:
        raise AirflowFailException(str(error)) from None
    spending.record(con, sources.values(), [limit.as_row() for limit in allowed])
    ledgers = {
        opened.source: opened
        for opened in open_ledgers(
            var_dir(),
            allowed,
            {a.source for a in accounts},
            from_logs(lambda first: logged(var_dir() / "calls", first)),
        )
    }
    for opened in ledgers.values():
        opened.recount(from_warehouse(con, lambda: logged(var_dir() / "calls")))
    if not jobs:
        return {}
    costs = priced(
        Known.read(con, sources, accounts, now),
        sources,
        jobs,
        now,
        prices=_prices(sources, {(job.source, job.connection) for job in jobs}),
    )
    for source in sorted({source for source, _ in costs}):
        cost = sum((c for (name, _), c in costs.items() if name == source), Cost())
        log.info(
            "%s: %d fetches, about %s calls and %s units",
            source,
            len([job for job in jobs if job.source == source]),
            f"{cost.calls:,}",
            f"{cost.units:,}",
        )
        left = ledgers[source].remaining() if source in ledgers else {}
        for (measure, period), rest in left.items():
            if getattr(cost, measure) > rest:
                log.warning(
                    "%s: about %s %s are needed, and the budget has %s left of this %s: the "
                    "run will stop there, keep what it has, and fail; the next goes on",
                    source,
                    f"{getattr(cost, measure):,}",
                    measure,
                    f"{max(rest, 0):,}",
                    period,
                )
    return costs


def _prices(
    sources: Mapping[str, Source], wanted: set[tuple[str, str]]
) -> dict[str, dict[str, int]]:
    """Units by source and endpoint, as the Connection has them; where it cannot be opened, as
    assumed: the fetch will say why."""
    from ledgerhouse.operate.airflow.hooks import SourceHook

    prices = {}
    for name, connection in sorted(wanted):
        try:
            prices[name] = SourceHook(connection).open(sources[name])[1]
        except Fatal:
            continue
    return prices
