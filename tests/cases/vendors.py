"""Vendors that answer from written worlds: for what the sandbox's generated world does not hold.

A world is what the vendors answer for one small account:

    coinbase   {accounts, transactions: {wallet: rows, newest first}, fills, products,
                status: {wallet: [HTTP status, error id]}, pagination: "uri"}
    debank     {address: {history: rows, newest first, token_dict, tokens, chains, positions}}

Each has a path of its own; the clock is one for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from extract.core.interval import utc

PAGE = 20


class Vendors:
    """`worlds` by name, answered at `<url>/<name>/coinbase` and `<url>/<name>/debank`.

    `calls` counts the requests by (name, path).
    """

    def __init__(self, url: str):
        self.url, self.worlds, self.now = url, dict[str, dict](), utc("2026-03-10T12:30:00Z")
        self.calls: dict[tuple[str, str], int] = {}

    def answer(self, target: str) -> tuple[int, Any]:
        """HTTP status and body of a GET."""
        parts = urlsplit(target)
        _, name, vendor, *rest = parts.path.split("/")
        path, query = "/".join(rest), parse_qs(parts.query)
        self.calls[name, path] = self.calls.get((name, path), 0) + 1
        params = {key: values[-1] for key, values in query.items()}
        world = self.worlds[name].get(vendor, {})
        if vendor == "debank":
            return _debank(world, path, params)
        return _coinbase(world, path, params, query)


def _coinbase(world: Mapping, path: str, params: dict, query: dict) -> tuple[int, Any]:
    if path == "v2/accounts":
        return 200, _paged(world, world.get("accounts", []), params, "/v2/accounts")
    if path.endswith("/transactions"):
        wallet = path.split("/")[2]
        if refusal := world.get("status", {}).get(wallet):
            return refusal[0], {"errors": [{"id": refusal[1], "message": refusal[1]}]}
        rows = world.get("transactions", {}).get(wallet, [])
        return 200, _paged(world, rows, params, "/" + path)
    if path.endswith("/fills"):
        start, end = utc(params["start_sequence_timestamp"]), utc(params["end_sequence_timestamp"])
        fills = [f for f in world.get("fills", []) if start <= utc(f["sequence_timestamp"]) < end]
        return 200, {"fills": fills, "cursor": ""}
    if path.endswith("/products"):
        wanted = query.get("product_ids", [])
        listed = [p for p in world.get("products", []) if p["product_id"] in wanted]
        return 200, {"products": listed, "num_products": len(listed)}
    return 404, {"errors": [{"id": "not_found", "message": "Not found"}]}


def _paged(world: Mapping, rows: list, params: dict, path: str) -> dict:
    limit, after = int(params.get("limit", 25)), params.get("starting_after")
    ids = [row["id"] for row in rows]
    start = ids.index(after) + 1 if after else 0
    page, more = rows[start : start + limit], start + limit < len(rows)
    next_uri = f"{path}?limit={limit}&starting_after={page[-1]['id']}" if more else None
    pagination = {"limit": limit, "order": "desc", "next_uri": next_uri, "previous_uri": None}
    if world.get("pagination") != "uri":
        pagination["next_starting_after"] = page[-1]["id"] if more else None
    return {"pagination": pagination, "data": page}


def _debank(world: Mapping, path: str, params: dict) -> tuple[int, Any]:
    wallet = world.get(params.get("id", "").lower(), {})
    history = wallet.get("history", [])
    match path:
        case "v1/account/units":
            return 200, {"balance": 1_000_000, "stats": []}
        case "v1/user/all_history_list" | "v1/user/history_list":
            before = float(params.get("start_time") or 2**40)
            rows = [r for r in history if (r["time_at"] or 0) < before]
            rows.sort(key=lambda r: -(r["time_at"] or 0))
            if path.endswith("/history_list"):
                rows = [row for row in rows if row["chain"] == params["chain_id"]]
            names = {"cate_dict": {}, "cex_dict": {}, "project_dict": {}}
            shown = {"token_dict": wallet.get("token_dict", {}), "history_list": rows[:PAGE]}
            return 200, names | shown
        case "v1/user/used_chain_list":
            chains = {row["chain"] for row in [*history, *wallet.get("tokens", [])] if row["chain"]}
            return 200, wallet.get("chains") or [chain(name) for name in sorted(chains)]
        case "v1/user/all_token_list":
            return 200, wallet.get("tokens", [])
        case "v1/user/all_complex_protocol_list":
            return 200, wallet.get("positions", [])
    return 404, {"message": "not found"}


def chain(name: str, native: str | None = None) -> dict:
    """A chain as used_chain_list has it."""
    return {
        "id": name,
        "community_id": 1,
        "name": name.title(),
        "native_token_id": native or name,
        "wrapped_token_id": "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
        "logo_url": None,
    }


@contextmanager
def serve() -> Iterator[Vendors]:
    """Vendors without worlds yet, on a free port; ends with the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                status, body = vendors.answer(self.path)
            except Exception as error:
                status, body = 500, {"message": f"{type(error).__name__}: {error}"}
            # Text outside ASCII goes as escapes: so do half surrogates, as vendors send them.
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response_only(status)
            self.send_header("Date", format_datetime(vendors.now, usegmt=True))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    vendors = Vendors(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield vendors
    finally:
        server.shutdown()
        server.server_close()
