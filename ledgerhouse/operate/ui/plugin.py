"""The Airflow plugin that adds the page. Every Airflow process imports it: it imports nothing that
costs time."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from ledgerhouse.operate.ui.portless import Portless

PREFIX = "/ledgerhouse"


class OnFirstRequest:
    """An ASGI app that is built when it is first asked: tasks load plugins too, and need none."""

    def __init__(self) -> None:
        self.app = None

    async def __call__(self, scope, receive, send) -> None:
        if self.app is None:
            from ledgerhouse.operate.ui.app import make_app

            self.app = make_app()
        await self.app(scope, receive, send)


class LedgerhousePlugin(AirflowPlugin):
    """A page beside Home, Dags and Assets; its addresses are relative to Airflow's base URL."""

    name = "ledgerhouse"
    fastapi_apps = [{"name": "Ledgerhouse", "app": OnFirstRequest(), "url_prefix": PREFIX}]
    fastapi_root_middlewares = [
        {"name": "Test of a Connection without a port", "middleware": Portless}
    ]
    react_apps = [
        {
            "name": "Books",  # below its icon; there is room for nine letters
            "url_route": "ledgerhouse",
            "bundle_url": "ledgerhouse/static/plugin.js",
            "icon": "ledgerhouse/static/icon.svg",
            "icon_dark_mode": "ledgerhouse/static/icon-dark.svg",
            "destination": "nav",
            "nav_top_level": True,
        }
    ]
