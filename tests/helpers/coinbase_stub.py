"""A Coinbase of a few dozen lines over HTTP: tests set its answers, every request is counted.

The sandbox is a whole world; this is for the answers that it does not give.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from extract.core.interval import Interval, utc
from extract.core.source import Fetched, Job
from extract.fetch.client import Client
from extract.sources import get
from extract.testing import _opened
from sandbox.coinbase import keys

COINBASE = get("coinbase")


class Vendor:
    """`accounts` and, by wallet, `transactions` as the API has them, newest first; `fills`;
    `products`; `status` {wallet: HTTP status, or a body}; `paging` is "both", "uri" or "null"."""

    def __init__(self, now="2026-03-10T12:30:00Z"):
        self.now, self.paging = now, "both"
        self.accounts: list[dict] = []
        self.transactions: dict[str, list[dict]] = {}
        self.fills: list[dict] = []
        self.products: list[dict] | None = []
        self.status: dict[str, object] = {}
        self.asked: list[str] = []  # "path" of every request
        self.lock = threading.Lock()
        self.delay_s, self.under_way, self.most_at_once = 0.0, 0, 0

    def wallet(self, wallet: str, currency: str, amount="0", updated="2026-01-01T00:00:00Z"):
        """A wallet's row; in place of the one that is there."""
        row = {
            "id": wallet,
            "balance": {"amount": amount, "currency": currency},
            "updated_at": updated,
        }
        self.accounts = [a for a in self.accounts if a["id"] != wallet] + [row]
        return row

    def entry(self, wallet: str, number: int, at: str, amount: object = "1", **more):
        """An entry of `wallet`, before those that it has."""
        currency = next(a for a in self.accounts if a["id"] == wallet)["balance"]["currency"]
        row = {
            "id": f"{wallet}-{number}",
            "type": "send",
            "status": "completed",
            "created_at": at,
            "amount": {"amount": amount, "currency": currency} if amount is not None else None,
        } | more
        self.transactions.setdefault(wallet, []).insert(0, row)
        return row

    def answer(self, path: str, query: dict[str, list[str]]):
        """(status, body) of a GET."""
        if path == "/v2/accounts":
            return 200, self._page(self.accounts, path, query)
        if path.startswith("/v2/accounts/"):
            wallet = path.split("/")[3]
            answer = self.status.get(wallet, 200)
            if isinstance(answer, str):
                return 200, answer
            if answer != 200:
                said = {401: "authentication_error", 500: "internal_server_error"}
                return answer, {
                    "errors": [{"id": said.get(answer, "not_found"), "message": "sick"}]
                }
            return 200, self._page(self.transactions.get(wallet, []), path, query)
        if path.endswith("/fills"):
            start, end = (utc(query[f"{n}_sequence_timestamp"][0]) for n in ("start", "end"))
            return 200, {
                "fills": [f for f in self.fills if start <= utc(f["sequence_timestamp"]) < end],
                "cursor": "",
            }
        if path.endswith("/products") and self.products is not None:
            named = query.get("product_ids", [])
            return 200, {"products": [p for p in self.products if p["product_id"] in named]}
        return 404, {"error": "NOT_FOUND", "message": "no such thing"}

    def _page(self, rows: list[dict], path: str, query: dict[str, list[str]]) -> dict:
        limit, after = int(query["limit"][0]), query.get("starting_after", [None])[0]
        first = next((n for n, row in enumerate(rows, 1) if after and row["id"] == after), 0)
        page = rows[first : first + limit]
        last = page[-1]["id"] if first + limit < len(rows) else None
        pagination = {"next_uri": f"{path}?limit={limit}&starting_after={last}" if last else None}
        if self.paging == "both":
            pagination["next_starting_after"] = last
        return {"pagination": None if self.paging == "null" else pagination, "data": page}

    def fetch(self, start: str, end: str, *, tries=2, snapshot=True, **more) -> Fetched:
        """A fetch of [start, end) from this vendor, without waiting."""
        read_from = utc(more.pop("read_from", start))
        interval = Interval(start, end)
        job = Job("coinbase", "main", "c", interval, read_from, snapshot, **more)
        return self.run(job, tries)

    def run(self, job: Job, tries=2) -> Fetched:
        client = Client(
            "coinbase", "main", rates={}, units={}, tries=tries, sleep=lambda seconds: None
        )
        return COINBASE.fetch(client, self.api, job)

    api: object = None


def mapped(fetched: Fetched, dataset: str) -> list[dict]:
    """The rows that the mapping makes of a fetch."""
    con = _opened(COINBASE, fetched, "main")
    result = con.execute(COINBASE.mappings[dataset])
    names = [column[0] for column in result.description]
    return [dict(zip(names, row)) for row in result.fetchall()]


@contextmanager
def served(vendor: Vendor):
    """The vendor, answering; `vendor.api` is the opened API."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 2**16  # or head and body go apart, and each waits for an acknowledgement

        def do_GET(self):
            url = urlsplit(self.path)
            with vendor.lock:
                vendor.asked.append(url.path)
                vendor.under_way += 1
                vendor.most_at_once = max(vendor.most_at_once, vendor.under_way)
            time.sleep(vendor.delay_s)
            with vendor.lock:
                vendor.under_way -= 1
            status, body = vendor.answer(url.path, parse_qs(url.query))
            sent = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def date_time_string(self, timestamp=None):
            return format_datetime(utc(vendor.now), usegmt=True)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}"
    vendor.api = COINBASE.connect(host=host, login=keys.KEY_NAME, password=keys.KEY_PEM)
    try:
        yield vendor
    finally:
        server.shutdown()
        server.server_close()
