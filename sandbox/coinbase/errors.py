"""Error answers of Coinbase."""

from __future__ import annotations

from starlette.responses import Response

# https://docs.cdp.coinbase.com/coinbase-app/api-architecture/status-codes
COINBASE_ERRORS = {
    401: ("authentication_error", "invalid signature"),
    403: ("invalid_scope", "Invalid scope"),
    404: ("not_found", "Not found"),
    429: ("rate_limit_exceeded", "Too many requests"),
    500: ("internal_server_error", "Internal server error"),
    400: ("invalid_request", "Invalid request"),
}
# v3 answers flat; the codes are those ccxt knows.
_V3_CODES = {401: "unauthorized", 403: "PERMISSION_DENIED", 400: "INVALID_ARGUMENT"}


def coinbase_error(status: int, path: str, message: str | None = None) -> Response:
    code, usual = COINBASE_ERRORS.get(status, ("internal_server_error", f"Error {status}"))
    text = (message or usual).replace('"', "'")
    if path.startswith("/api/v3"):
        code = _V3_CODES.get(status, code)
        body = f'{{"error": "{code}", "error_details": "{text}", "message": "{text}"}}'
    else:
        body = f'{{"errors": [{{"id": "{code}", "message": "{text}"}}]}}'
    return Response(body, status, media_type="application/json")
