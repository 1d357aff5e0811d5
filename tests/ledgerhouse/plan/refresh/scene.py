"""When the refreshes are."""

from __future__ import annotations

from datetime import timedelta

from extract.sources import all_sources

SOURCES = all_sources()
DAY, WEEK = timedelta(days=1), timedelta(days=7)
