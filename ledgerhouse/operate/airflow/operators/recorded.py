"""The base of the operators: an attempt is recorded from its first line to its last."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator

from ledgerhouse.config import var_dir
from ledgerhouse.operate.airflow.context import attempt_key
from ledgerhouse.operate.run_log.attempts import attempt


class RecordedOperator(BaseOperator):
    """A task each attempt of which leaves a record of what it did, or of the error it ended with,
    whatever raised and where: the mirror and the alerts quote it.

    `work(context, outcome)` does it; what it puts into `outcome` (rows, calls, units, error_type,
    error_fields) goes into the record.
    """

    @abstractmethod
    def work(self, context: Any, outcome: dict[str, Any]) -> Any: ...

    def job(self) -> Mapping[str, Any]:
        """source, account, interval_start and interval_end, where the attempt is of one account."""
        return {}

    def execute(self, context: Any) -> Any:
        with attempt(var_dir() / "attempts", attempt_key(context), **self.job()) as outcome:
            return self.work(context, outcome)
