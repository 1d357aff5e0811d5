"""The web app of the page: JSON from the published books, the page's files, and Data Docs.

Every route, files included, asks Airflow for a logged-in user who may see plugins: 401 without
a token, 403 without the right. Nothing is written, and nothing is read but the published copy
and the Data Docs. Amounts travel as text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

import ledgerhouse.operate.airflow  # noqa: F401  it says where the encryption key may be
from extract.fetch.encryption import EncryptionError
from ledgerhouse.config import AccountsFile, Rules, var_dir
from ledgerhouse.operate.ui import calendar, figures
from ledgerhouse.publish.books import open_books

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
MEMORY = "1GB"  # what one request may take of the API server
# Nothing from elsewhere, no inline script. Charts and Data Docs set styles on elements.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'self'; "
    "base-uri 'none'; form-action 'none'"
)
DOCS_POLICY = (  # a page of Data Docs has no script and asks nobody anything
    POLICY.replace("script-src 'self'", "script-src 'none'").replace(
        "connect-src 'self'", "connect-src 'none'"
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
OLDER = (
    "These books were published by an older version and lack a table that is shown here. The "
    "next run of the DAG sync publishes them again."
)
LONGEST = 100  # characters of a search or a name in a query

Text = Annotated[str, Query(max_length=LONGEST)]


def books() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the newest books, for one request; 404 where there are none, 503 where they are damaged."""
    import duckdb

    try:
        con = open_books()
    except FileNotFoundError as error:
        raise HTTPException(404, str(error)) from None
    except EncryptionError as error:
        log.error("the published books cannot be opened: %s", error)
        raise HTTPException(503, str(error)) from None
    except duckdb.Error:
        log.exception("the published books cannot be opened")
        raise HTTPException(
            503,
            "The published books cannot be opened; the API server's log "
            "says why. The next sync publishes them again.",
        ) from None
    try:
        con.execute(f"SET memory_limit = '{MEMORY}'; SET threads = 2")
        yield con
    finally:
        con.close()


Books = Annotated[Any, Depends(books)]  # FastAPI reads it: no type that is not imported


def make_app() -> FastAPI:
    """The app, to be mounted by Airflow under /ledgerhouse."""
    import duckdb

    # Its own documentation pages would be public, and load from a CDN.
    app = FastAPI(
        title="Ledgerhouse",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(requires_access_view(AccessView.PLUGINS))],
    )

    @app.exception_handler(duckdb.Error)
    def damaged(request: Request, error: duckdb.Error) -> JSONResponse:
        log.error("%s: the published books could not answer: %s", request.url.path, error)
        return JSONResponse(
            {
                "detail": OLDER
                if isinstance(error, duckdb.CatalogException)
                else "The published books could not answer; the API server's log says why."
            },
            503,
        )

    @app.middleware("http")
    async def headers(request: Request, call_next) -> Response:
        response = await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        # Files are asked for again each time (and answered 304), figures are never kept.
        figure = request.url.path.partition("/api/")[1]
        response.headers.setdefault("Cache-Control", "no-store" if figure else "no-cache")
        return response

    _figures(app)
    _files(app)
    return app


def _figures(app: FastAPI) -> None:
    @app.get("/api/overview")
    def overview() -> dict:
        """Published when, KPIs, open incidents, the last checkpoints; also without any books."""
        docs = var_dir() / "data_docs"
        try:
            with open_books() as con:
                return figures.overview(con, docs, stale_after=_stale_after())
        except FileNotFoundError:
            return {"published": None, "refused": figures.refused(docs, None)}

    @app.get("/api/coverage")
    def coverage(con: Books, year: Annotated[int | None, Query(ge=2009, le=9998)] = None) -> dict:
        """A year's days of every account, by default the 53 weeks up to the newest; the gaps."""
        return calendar.coverage(con, year)

    @app.get("/api/spending")
    def spending(con: Books, days: Annotated[int, Query(ge=7, le=731)] = 30) -> dict:
        return figures.spending(con, days)

    @app.get("/api/reconciliation")
    def reconciliation(
        con: Books,
        search: Text = "",
        status: Text = "",
        account: Text = "",
        limit: Annotated[int, Query(ge=1, le=figures.MOST_ROWS)] = 25,
        offset: Annotated[int, Query(ge=0, le=10**6)] = 0,
    ) -> dict:
        return figures.reconciliation(con, search, status, account, limit, offset)

    @app.get("/api/breaks")
    def breaks(con: Books) -> dict:
        return figures.breaks(con)

    @app.get("/api/assets")
    def assets(con: Books) -> dict:
        return figures.assets(con)

    @app.get("/api/balances")
    def balances(
        con: Books, source: Text, account: Text, token: Text, since: date | None = None
    ) -> dict:
        return figures.balances(con, source, account, token, since)


def _stale_after() -> timedelta:
    """As [alerts] of accounts.toml says; the default where that cannot be read: a task says so."""
    try:
        return AccountsFile.read(what="alerts").rules().stale_after
    except ValueError:
        return Rules.stale_after


def _files(app: FastAPI) -> None:
    # Starlette's own file answers: they refuse what leaves the folder, links included. Asked
    # from routes, because a mount would not ask for the login.
    own = StaticFiles(directory=STATIC)

    @app.get("/")
    async def page(request: Request) -> Response:
        """The page by itself, without Airflow's frame around it."""
        return await own.get_response("index.html", request.scope)

    @app.get("/static/{path:path}")
    async def static(path: str, request: Request) -> Response:
        return await own.get_response(path, request.scope)

    @app.get("/docs/{path:path}")
    async def docs(path: str, request: Request) -> Response:
        folder = var_dir() / "data_docs"
        if not folder.is_dir():
            raise HTTPException(404, "no Data Docs yet: they appear with the first checks")
        files = StaticFiles(directory=folder, html=True)
        answer = await files.get_response(path, request.scope)
        answer.headers["Content-Security-Policy"] = DOCS_POLICY
        return answer
