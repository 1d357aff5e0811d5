"""Airflow: provider, hooks, operators, the steps of the DAGs and the REST client."""

from __future__ import annotations

from extract.fetch import encryption


def _encryption_key(text: str | None) -> str | None:
    from ledgerhouse.operate.airflow.encryption_key import resolve

    return resolve(text)


# Every process under Airflow imports this package: the key may be in a Connection, and is masked.
encryption.resolve = _encryption_key
