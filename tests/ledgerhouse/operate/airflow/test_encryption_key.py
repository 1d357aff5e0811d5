"""The encryption key under Airflow: of the environment, or of the Connection that it names."""

import base64
import os

import pytest

import ledgerhouse.operate.airflow  # noqa: F401  it is what makes the Connection known
from extract.fetch import client, encryption
from extract.fetch.encryption import EncryptionError, Key
from ledgerhouse.operate.airflow import encryption_key

TEXTS = [base64.b64encode(bytes([n]) * 32).decode() for n in (5, 6, 7)]


@pytest.fixture(autouse=True)
def masked(monkeypatch):
    """What was given to Airflow's log masker; no key is set."""
    import airflow.sdk.log

    found = []
    monkeypatch.setattr(airflow.sdk.log, "mask_secret", found.append)
    monkeypatch.setattr(encryption_key, "_masked", set())
    monkeypatch.setenv(encryption.KEY, "")
    monkeypatch.setenv(encryption.OLD_KEYS, "")
    return found


def test_the_key_of_a_connection_is_taken_once_and_masked(monkeypatch, masked):
    monkeypatch.setenv("AIRFLOW_CONN_BOOKS_KEY", f'{{"conn_type": "generic", "password": "{TEXTS[0]}"}}')  # fmt: skip
    assert encryption.current() is None, "no Connection is looked for that is not named"
    monkeypatch.setenv(encryption.CONNECTION, "books_key")
    assert encryption.current() == Key(bytes([5]) * 32) and TEXTS[0] in masked
    monkeypatch.delenv("AIRFLOW_CONN_BOOKS_KEY")
    assert os.environ[encryption.KEY] == TEXTS[0] and encryption.current(), "where SQLMesh looks"


def test_keys_of_the_environment_are_masked_too(monkeypatch, masked):
    monkeypatch.setenv(encryption.KEY, TEXTS[1])
    monkeypatch.setenv(encryption.OLD_KEYS, TEXTS[2])
    assert len(encryption.known()) == 2 and masked == TEXTS[1:]
    monkeypatch.setenv(encryption.CONNECTION, "nobody")
    assert encryption.current() == Key(bytes([6]) * 32), "the environment wins"


@pytest.mark.parametrize(
    "text, words",
    [(None, "finds none: set AIRFLOW_CONN_BOOKS_KEY"), ('{"conn_type": "generic"}', "no password")],
)
def test_a_connection_that_is_missing_or_empty_is_said(monkeypatch, text, words):
    monkeypatch.setenv(encryption.CONNECTION, "books_key")
    if text:
        monkeypatch.setenv("AIRFLOW_CONN_BOOKS_KEY", text)
    with pytest.raises(EncryptionError, match=words):
        encryption.current()


def test_a_fetch_without_the_key_is_refused_before_a_call_is_paid(monkeypatch, tmp_path):
    from ledgerhouse.operate.airflow.operators.fetch import FetchOperator
    from tests.ledgerhouse.operate.airflow.test_recorded import FETCH, context

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    encryption.note(tmp_path / "landing", Key(bytes(32)))
    sent = []
    monkeypatch.setattr(client.Client, "call", lambda *args, **options: sent.append(args))
    task = FetchOperator(task_id="t", **(FETCH | {"interval_end": "2026-01-03T00:00:00Z"}))
    with pytest.raises(EncryptionError, match="no key is set"):
        task.execute(context({}))
    assert sent == [] and not (tmp_path / "calls").exists()
