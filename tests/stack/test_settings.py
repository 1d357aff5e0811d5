"""The launcher's settings: .env, ports, secrets, pools."""

from __future__ import annotations

import json

import pytest

from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.airflow.context import WAREHOUSE_POOL
from ledgerhouse.operate.airflow.init import pools
from sandbox import accounts
from sandbox.vendors import in_demo
from stack import settings
from stack.airflow import environment


def example(environ=None):
    return settings.read_env(environ or {}, settings.PROJECT / ".env.example")


def test_the_example_opens_the_sandbox_with_its_own_keys():
    values = example()
    url = f"http://127.0.0.1:{values['SANDBOX_PORT']}"
    names = [name for name in values if name.startswith("AIRFLOW_CONN_")]
    written = {name: json.loads(values[name]) for name in names}
    made = accounts.connections(in_demo(), url)
    assert (
        written
        and written.items()
        <= {f"AIRFLOW_CONN_{name.upper()}": fields for name, fields in made.items()}.items()
    )


def test_every_variable_of_the_example_has_a_comment():
    lines = (settings.PROJECT / ".env.example").read_text().splitlines()
    for before, line in zip(lines, lines[1:], strict=False):
        if line and not line.startswith("#"):
            assert before.startswith("#"), f"say above {line.split('=')[0]} what it is for"


def test_the_environment_wins_also_inside_other_variables():
    values = example({"SANDBOX_PORT": "4711"})
    assert values["SANDBOX_PORT"] == "4711"
    assert "127.0.0.1:4711/debank" in values["AIRFLOW_CONN_DEBANK"]


def test_defaults_in_variables_are_filled_in(tmp_path):
    file = tmp_path / ".env"
    file.write_text('A=${NOWHERE:-one}\nB=${A}/two\nC=\'{"k": "a\\nb"}\'\n')
    assert settings.read_env({}, file) == {"A": "one", "B": "one/two", "C": '{"k": "a\\nb"}'}


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o644, True)])
def test_an_env_file_that_others_can_read_is_named(tmp_path, monkeypatch, mode, warned):
    monkeypatch.setattr(settings, "PROJECT", tmp_path)
    assert settings.readable_by_others() == ""
    (tmp_path / ".env").write_text("KEY=secret")
    (tmp_path / ".env").chmod(mode)
    assert ("chmod 600 .env" in settings.readable_by_others()) == warned


@pytest.mark.parametrize("text", ["http", "0", "70000", "-1"])
def test_a_port_that_is_none_is_named(text):
    with pytest.raises(settings.SettingsError, match="SANDBOX_PORT"):
        settings.sandbox_port({"SANDBOX_PORT": text})


@pytest.mark.parametrize("values", [{}, {"SANDBOX_PORT": ""}, {"SANDBOX_PORT": "  "}])
def test_without_a_port_there_is_no_sandbox(values):
    assert settings.sandbox_port(values) is None


def test_a_busy_port_is_not_taken():
    import socket

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert settings.free_port(port) != port


def test_a_pool_with_one_slot_for_the_warehouse_and_for_each_connection():
    used = {account.pool for account in AccountsFile.read().accounts()}
    assert set(pools()) == used | {WAREHOUSE_POOL}


def test_a_broken_accounts_file_is_named(tmp_path):
    file = tmp_path / "accounts.toml"
    file.write_text("[account]\nsource = 'debank'\n")
    with pytest.raises(ValueError, match="accounts.toml"):
        AccountsFile.read(file).connections()


def test_secrets_stay_the_same_and_are_for_us_only(tmp_path):
    ours = settings.Settings(tmp_path, {})
    assert ours.password == settings.Settings(tmp_path, {}).password
    assert (tmp_path / "secrets.json").stat().st_mode & 0o077 == 0


def test_outside_settings_do_not_lead_to_another_database(tmp_path):
    base = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite://", "AIRFLOW_HOME": "/elsewhere"}
    env = environment(settings.Settings(tmp_path, {}), base, 1234, tmp_path)
    assert env["AIRFLOW_HOME"] == str(tmp_path / "airflow")
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg2://")
