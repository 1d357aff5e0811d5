"""How the pages of a list follow each other, by the kinds that exchanges have.

A paging turns the parameters of one request and its answer into those of the next, or into None
and the reason why there is none: a page ends for a named reason only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

from extract.core.errors import Retriable


class PageOf(NamedTuple):
    """An answer as a paging sees it: `ids` and `times` of its rows in the order of the page (times
    in the unit in which the list's end is asked for), `first` is the parsed first page."""

    params: Mapping[str, Any]
    data: Any
    headers: Mapping[str, str]
    ids: list[str]
    times: list[int]
    first: Any


class Next(NamedTuple):
    """The parameters that the next page adds, or None and why the list has ended."""

    params: Mapping[str, Any] | None
    reason: str = ""


class Paging(Protocol):
    """`first()` gives the parameters of the first page; `next()` those that follow a page."""

    def first(self) -> Mapping[str, Any]: ...

    def next(self, page: PageOf) -> Next: ...


def at(data: Any, path: str) -> Any:
    """What lies in parsed JSON at keys joined by dots; None where there is nothing."""
    for key in path.split(".") if path else []:
        if isinstance(data, list) and key.isdigit() and int(key) < len(data):
            data = data[int(key)]
        else:
            data = data.get(key) if isinstance(data, Mapping) else None
    return data


@dataclass(frozen=True)
class OnePage:
    """A list that is one answer, of at most `limit` rows (the parameter, where there is one, and
    how many). One that is full, or whose field `more` says so, is cut in two by time."""

    limit: tuple[str, int] | None = None
    more: str = ""

    def first(self) -> Mapping[str, Any]:
        return dict([self.limit]) if self.limit and self.limit[0] else {}

    def next(self, page: PageOf) -> Next:
        full = self.limit is not None and len(page.ids) >= self.limit[1]
        if full or (self.more and str(at(page.data, self.more)).lower() == "true"):
            return Next(None, TOO_MANY)
        return Next(None, "one answer")


@dataclass(frozen=True)
class Cursor:
    """The answer says where the next page begins, in its body at `at` or in the header `header`.

    `limit` asks for so many rows of a page. `more`: the field that says whether there is one, where
    the cursor is given also after the last.
    """

    param: str
    at: str = ""
    header: str = ""
    limit: tuple[str, int] | None = None
    more: str = ""

    def first(self) -> Mapping[str, Any]:
        return dict([self.limit]) if self.limit else {}

    def next(self, page: PageOf) -> Next:
        if self.more and at(page.data, self.more) in (False, "false", None):
            return Next(None, f"{self.more} says no more")
        if self.header:
            cursor = {k.lower(): v for k, v in page.headers.items()}.get(self.header.lower())
        else:
            cursor = at(page.data, self.at)
        if cursor in (None, "", "0", 0):
            return Next(None, "no cursor to more")
        text = str(cursor)
        if "starting_after=" in text:
            text = parse_qs(urlsplit(text).query)["starting_after"][0]
        if not page.ids:
            raise Retriable(f"an empty page with a cursor ({text}) to more")
        if str(page.params.get(self.param)) == text:
            raise Retriable(f"the cursor {text} was followed before: the paging goes in a circle")
        return Next({self.param: text})


@dataclass(frozen=True)
class Offset:
    """The next page skips the rows had so far. `count`: the field with the length of the list.

    A list that grows or shrinks while it is read would hide rows: Retriable, and it is read again.
    """

    param: str
    size: int
    limit: str = ""
    count: str = ""

    def first(self) -> Mapping[str, Any]:
        return {self.param: 0} | ({self.limit: self.size} if self.limit else {})

    def next(self, page: PageOf) -> Next:
        had = int(page.params.get(self.param) or 0) + len(set(page.ids))
        if self.count:
            count = at(page.data, self.count)
            if count is None:
                raise Retriable(f"no {self.count}, so the end of the paging is not known")
            if int(count) != int(at(page.first, self.count)):
                raise Retriable("the list changed while it was read")
            if had >= int(count):
                return Next(None, "all that are counted")
            if not page.ids:
                raise Retriable(f"{count} rows are counted, but after {had} there are none")
        elif len(page.ids) < self.size:
            return Next(None, "a page that is not full")
        return Next({self.param: had})


@dataclass(frozen=True)
class PageNumber:
    """Pages by number from 1. `total`: the field with the number of pages; `most`: rows that can be
    reached, since the exchange refuses pages behind it."""

    param: str
    size: int
    limit: str = ""
    total: str = ""
    most: int | None = None

    def first(self) -> Mapping[str, Any]:
        return {self.param: 1} | ({self.limit: self.size} if self.limit else {})

    def next(self, page: PageOf) -> Next:
        number = int(page.params[self.param])
        if self.total:
            total = at(page.data, self.total)
            if total is None:
                raise Retriable(f"no {self.total}, so the end of the paging is not known")
            if number >= int(total):
                return Next(None, "the last page")
        elif len(page.ids) < self.size:
            return Next(None, "a page that is not full")
        if self.most and number * self.size >= self.most:
            return Next(None, TOO_MANY)
        return Next({self.param: number + 1})


@dataclass(frozen=True)
class LastId:
    """The next page begins behind the least id, newest first; it ends with a page that is not full.

    Ids are whole numbers. `rising`: oldest first, so behind the greatest. `plus`: so much is added
    to the id, where the row of that id itself would come again.
    """

    param: str
    size: int
    limit: str = "limit"
    rising: bool = False
    plus: int = 0

    def first(self) -> Mapping[str, Any]:
        return {self.limit: self.size} if self.limit else {}

    def next(self, page: PageOf) -> Next:
        if len(page.ids) < self.size:
            return Next(None, "a page that is not full")
        # Not the last on the page: rows that come out of their order would hide others.
        last = str((max if self.rising else min)(map(int, page.ids)) + self.plus)
        if str(page.params.get(self.param)) == last:
            raise Retriable(f"the page behind {last} is that page again")
        return Next({self.param: last})


@dataclass(frozen=True)
class ByTime:
    """The next page ends where the last row lies, that row included; rows that come twice are one.

    A full page of one instant cannot be passed so: the walk cuts the time in two, or says it.
    """

    param: str
    size: int
    limit: str = "limit"

    def first(self) -> Mapping[str, Any]:
        return {self.limit: self.size} if self.limit else {}

    def next(self, page: PageOf) -> Next:
        if len(page.ids) < self.size:
            return Next(None, "a page that is not full")
        if len(set(page.times)) == 1:
            return Next(None, TOO_MANY)
        return Next({self.param: min(page.times)})


TOO_MANY = "more rows than can be reached"  # the walk cuts the window in two
