"""Error answers of DeBank."""

from __future__ import annotations

from starlette.responses import Response

DEBANK_ERRORS = {
    401: '{"errors": ["Unauthorized"]}',
    403: '{"errors": ["Insufficient units"]}',
    429: '{"errors": ["Too Many Requests"]}',
    500: '{"errors": ["Internal Server Error"]}',
}


def debank_error(status: int, _path: str = "", _message: str | None = None) -> Response:
    body = DEBANK_ERRORS.get(status, f'{{"errors": ["Error {status}"]}}')
    return Response(body, status, media_type="application/json")
