"""Errors carry their facts as fields, which callers read instead of its text."""

import pickle
import socket
from datetime import UTC, datetime

import pytest
import requests

from extract.core import errors
from extract.core.errors import BudgetReached, ExtractError, Fatal, RateLimited, Retriable
from extract.fetch.answer_head import failed
from extract.fetch.http import http_call


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ExtractError) and kind is not BudgetReached
    ],
)
def test_every_error_has_the_fields_of_all_whatever_it_was_made_with(kind):
    error = kind("gone")
    assert (str(error), error.status, error.sent, error.skew_s) == ("gone", None, True, 0.0)
    assert kind("gone", status=503).status == 503


def test_the_budget_is_an_error_like_the_others():
    error = BudgetReached(
        "spent", "debank", "units", "day", 10, 9, datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert (error.status, error.sent, error.partial) == (None, True, None)


@pytest.mark.parametrize(
    "status, kind", [(429, RateLimited), (500, Retriable), (408, Retriable), (401, Fatal)]
)
def test_a_refusal_says_its_status_and_keeps_it_between_processes(status, kind):
    error = pickle.loads(pickle.dumps(failed(status, "no", {"Retry-After": "4"})))
    assert type(error) is kind and error.status == status
    assert not isinstance(error, RateLimited) or error.wait_s == 4


def test_what_never_left_this_machine_is_not_called_sent():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Retriable, match="no answer") as raised:
        http_call(requests.Session(), f"http://127.0.0.1:{port}/", {}, lambda data: None)
    assert not raised.value.sent and raised.value.status is None
