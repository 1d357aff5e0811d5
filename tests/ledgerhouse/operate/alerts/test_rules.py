"""[alerts] of accounts.toml."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from ledgerhouse.config import AccountsFile, Rules


def test_the_rules_are_read_and_wrong_ones_named(tmp_path):
    file = tmp_path / "accounts.toml"
    file.write_text(
        '[alerts]\nstale_after_hours = 1.5\nbudget_at = 0.55\nslack = "ops"\n'
        'email_to = "a@x.example"\nemail_from = "b@x.example"\n'
    )
    rules = AccountsFile.read(file, "alerts").rules()
    assert rules.stale_after == timedelta(minutes=90) and rules.budget_at == Decimal("0.55")
    assert dict(rules.ways) == {"slack": "ops", "smtp": "alerts_smtp", "webhook": "alerts_webhook"}
    assert (rules.named, rules.email_to, rules.email_from) == (
        ("slack",),
        ("a@x.example",),
        "b@x.example",
    )
    file.write_text("")
    assert AccountsFile.read(file, "alerts").rules() == Rules()


@pytest.mark.parametrize(
    "line, said",
    [
        ("stale_after_hours = 0", "is 0; write hours"),
        ("stale_after_hours = true", "write hours"),
        ("budget_at = 80", "a share of the budget, such as 0.8"),
        ("budget_at = nan", "a share"),
        ('slack = "no id"', "the id of an Airflow Connection"),
        ("webhook = 7", "the id of"),
        ('email_to = ["nobody"]', "an address, or"),
        ("email_from = 1", "an address"),
        ("stale = 1", "unknown 'stale'; there are stale_after_hours, budget_at, slack"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path, line, said):
    file = tmp_path / "rules.toml"
    file.write_text(f"[alerts]\n{line}\n")
    with pytest.raises(ValueError, match=said) as error:
        AccountsFile.read(file, "alerts").rules()
    assert f"{file}, [alerts]: " in str(error.value)


def test_alerts_go_on_where_a_rule_is_wrong(alert, webhook, logged):
    alert(rules="[alerts]\nbudget_at = 80\n")
    assert "budget_at is 80; write a share" in logged() and len(webhook.took()) == 1


def test_a_connection_that_is_named_and_missing_is_reported(alert, logged):
    alert(rules='[alerts]\nslack = "ops_chat"\n')
    assert "names ops_chat for alerts by slack, and Airflow has no such Connection" in logged()
    assert "alerts_smtp" not in logged(), "those that nobody named need not be there"
