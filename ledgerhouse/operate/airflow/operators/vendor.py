"""The operators that ask a vendor a question of its own: whether its host can be asked at all
(probe), and what units are left after the fetches of a run.

A vendor may take its time, so neither holds the warehouse's slot. Heavy imports happen inside the
functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow.sdk.exceptions import AirflowFailException

from extract.core.errors import (
    DeadlineExceeded,
    ExtractError,
    Fatal,
    FetchStopped,
    NotJson,
    RateLimited,
    Unforeseen,
)
from extract.core.source import Source
from extract.fetch.client import TRIES, Client
from extract.fetch.error_advice import NOT_HERE
from extract.sources import get
from ledgerhouse.config import AccountsFile, var_dir
from ledgerhouse.operate.airflow.context import attempt_key
from ledgerhouse.operate.airflow.operators.budget import ledger
from ledgerhouse.operate.airflow.operators.recorded import RecordedOperator

if TYPE_CHECKING:
    from ledgerhouse.operate.airflow.hooks import SourceHook

Answered = TypeVar("Answered")


class ProbeOperator(RecordedOperator):
    """Ask the host of a connection once, before its fetches begin.

    By the call of the Connection's Test button, which costs no units. A host that is not there or
    is not the vendor's, and a key that is refused, are so one failed task, with what to do about
    the Connection, and no failed fetch for each interval. Trouble that need not concern the fetches
    (a 5xx, a limit, used-up units) is logged, no more. Asks nothing where nothing is to be fetched.

    Of a source that counts units the call says how many are left: noted as before the fetches.
    """

    def __init__(self, *, connection: str, source: str, plan: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.connection, self.source, self.plan = connection, source, plan

    def work(self, context: Any, outcome: dict[str, Any]) -> None:
        from ledgerhouse.operate.airflow.hooks import SourceHook

        jobs = context["ti"].xcom_pull(task_ids=self.plan) or []
        if not jobs:
            self.log.info("nothing is to be fetched, so nobody is asked")
            return
        listed, _ = AccountsFile.read().entries()
        others = [a.account for a in listed if a.connection == self.connection]
        accounts = list(dict.fromkeys([jobs[0]["account"], *others]))
        source, hook, key = get(self.source), SourceHook(self.connection), attempt_key(context)
        question = source.remaining_units or source.test_connection
        if question is None:
            return
        try:
            seen = ask(hook, source, accounts[0], question, key, outcome)
        except ExtractError as error:
            advice = hook.advice(error, source)
            if hook.where not in advice:
                advice += f" ({hook.where}, whose host is {hook.host})"
            text = f"{type(error).__name__}: {advice}"
            if not concerns_every_call(error):
                self.log.warning("%s. The fetches are begun all the same", text)
                return
            outcome["error_type"] = type(error).__name__
            if isinstance(error, Fatal):  # asking again would meet the same
                raise AirflowFailException(text) from None
            raise cast("Callable[[str], ExtractError]", type(error))(text) from None
        if source.remaining_units:
            _note(self.connection, source, accounts, "before", cast(int, seen), key)
            seen = f"{seen:,} units are left"
        self.log.info("%s, connection %s: %s", source.name, self.connection, seen)


class UnitsOperator(RecordedOperator):
    """Ask what units are left after the fetches, of each connection that was asked before them.

    A failure is logged, and fails nothing.
    """

    def work(self, context: Any, outcome: dict[str, Any]) -> None:
        from ledgerhouse.load.unit_balances import waiting
        from ledgerhouse.operate.airflow.hooks import SourceHook

        key = attempt_key(context)
        # Oldest first: what an attempt that was killed has read since is not read again.
        balances = {
            balance["connection"]: balance
            for _, balance in waiting(var_dir() / "account_units")
            if balance["run_id"] == key["run_id"]
        }
        for connection, balance in balances.items():
            source = get(balance["source"])
            if balance["moment"] != "before" or source.remaining_units is None:
                continue
            accounts = balance["accounts"]
            try:
                left = ask(
                    SourceHook(connection),
                    source,
                    accounts[0],
                    source.remaining_units,
                    key,
                    outcome,
                    tries=1,
                )
                _note(connection, source, accounts, "after", left, key)
            except Exception as error:
                reason = str(error) if isinstance(error, ExtractError) else type(error).__name__
                self.log.warning(
                    "the units left of connection %s could not be read: %s", connection, reason
                )
            else:
                self.log.info(
                    "%s, connection %s: %s units are left", source.name, connection, f"{left:,}"
                )


def ask(
    hook: SourceHook,
    source: Source,
    account: str,
    question: Callable[[Any, Any], Answered],
    key: dict[str, Any],
    outcome: dict[str, Any],
    tries: int = TRIES,
) -> Answered:
    """What `question(client, api)` says, by the Connection of `hook`; each call is logged for
    `account`, and the calls and units are added to `outcome`. `key` is the attempt's."""
    from extract.fetch.call_log import call_log

    with call_log(var_dir() / "calls", key) as record:
        api, units, secrets = hook.open(source)
        client = Client(
            source.name,
            account,
            rates=source.rates,
            units=units,
            record=record,
            secrets=secrets,
            tries=tries,
            budget=ledger(source.name),
        )
        try:
            return question(client, api)
        finally:
            outcome["calls"] = outcome.get("calls", 0) + client.calls
            outcome["units"] = outcome.get("units", 0) + client.units_spent


def concerns_every_call(error: ExtractError) -> bool:
    """Whether no call of this Connection can succeed: nobody answers, or not in time, or somebody
    else does, or the key or the Connection itself is wrong. An answer of the vendor that one call
    alone may have got, or that passes, says nothing of the others."""
    if isinstance(error, (FetchStopped, RateLimited, Unforeseen)):
        return False
    if isinstance(error, (Fatal, DeadlineExceeded, NotJson)):
        return True
    return error.status is None or error.status in NOT_HERE


def _note(
    connection: str,
    source: Source,
    accounts: list[str],
    moment: str,
    balance: int,
    key: dict[str, Any],
) -> None:
    from ledgerhouse.load.unit_balances import note

    note(
        var_dir() / "account_units",
        source=source.name,
        connection=connection,
        run_id=key["run_id"],
        moment=moment,
        balance=balance,
        accounts=accounts,
    )
