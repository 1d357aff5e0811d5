"""The HTTP session of a source: one host, a deadline and a size for each answer, no redirect.

requests' own timeout starts again with every byte, so a host that sends one a second would hold a
task forever; a few MB of gzip may be GBs; and a redirect would take the key along. So each answer
is read here as a stream, whole or not at all, before anybody else sees it. All sources, those of
ccxt too, call by such a session; requests is imported with this module, so import it where it is
used.
"""

from __future__ import annotations

import http.client
import io
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)

from extract.core.errors import BodyTooLarge, DeadlineExceeded, Fatal, Redirected, Retriable
from extract.fetch.client import WORKERS
from extract.fetch.resolve import addresses

log = logging.getLogger(__name__)
CONNECT_S = 10.0  # to resolve a name, and for each of its addresses
CHUNK = 1 << 16
MB = 1 << 20
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")  # the first that is set
INSIDE = (".localhost", ".local", ".internal", ".test")  # names that no public host has


@dataclass(frozen=True)
class Limits:
    """What an answer may take: seconds between two bytes (`silence_s`) and in all (`deadline_s`),
    and bytes (`body_bytes`), both as sent and unpacked.

    32 MB are four times the longest answer known, the tokens of a DeBank wallet that holds 10,000.
    """

    silence_s: float = 30.0
    deadline_s: float = 60.0
    body_bytes: int = 32 * MB


LIMITS = Limits()


def limits_of(extra: Mapping[str, Any] | None) -> Limits:
    """LIMITS with `deadline_s` and `max_body_mb` of a Connection's extra; Fatal for no such number."""
    extra, chosen = extra or {}, LIMITS
    for name in ("deadline_s", "max_body_mb"):
        value = extra.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e5:
            raise Fatal(f'{name} in the extra is {value!r}; write a number, like {{"{name}": 120}}')
        if name == "deadline_s":
            chosen = replace(chosen, deadline_s=float(value))
        else:
            chosen = replace(chosen, body_bytes=round(value * MB))
    return chosen


def open_session(host: str, extra: Mapping[str, Any] | None = None) -> requests.Session:
    """A session that asks `host` (https://…) alone. Several threads may use it.

    Proxies (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) and certificates are those of the
    environment; a .netrc is not read, since its password would take the place of the key. Raises
    Fatal for a host that a key must not be sent to.
    """
    adapter = GuardedAdapter(limits_of(extra), checked(host))
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def guard(session: Any) -> None:
    """Put LIMITS on a session of requests that somebody else has opened, for whatever host."""
    if not isinstance(session, requests.Session):
        return  # no host behind it
    if not all(isinstance(adapter, GuardedAdapter) for adapter in session.adapters.values()):
        adapter = GuardedAdapter(LIMITS)
        for prefix in list(session.adapters):
            session.mount(prefix, adapter)


def checked(host: str) -> str:
    """`host` itself; Fatal where its address holds a password, or leads over the open net in clear."""
    try:
        parts = urlsplit(host)
        name, user, _ = parts.hostname or "", parts.username, parts.port
    except ValueError as error:
        raise Fatal(f"the host is no address ({error}): write it like https://api.example.com")
    if user is not None:
        raise Fatal("the host holds a user name or password before an @: it is no place for them")
    if parts.scheme == "http" and not is_loopback(name):
        if not _is_inside(name):
            raise Fatal(
                f"the host is http://{parts.netloc}, so that the key and what it shows would cross "
                "the network in clear: write it with https://"
            )
        log.warning("%s is asked in clear (http): who hears that network hears the key", name)
    return host


def is_loopback(name: str) -> bool:
    """Whether a host's name is this machine's own."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _is_inside(name: str) -> bool:
    """Whether a name can be no public host's: a private address, or one of a local network."""
    try:
        return ip_address(name).is_private
    except ValueError:
        return "." not in name or name.endswith(INSIDE)


@dataclass
class _Reading:
    """The answer that is being read in this thread: until when, and how many bytes came already."""

    limits: Limits
    until: float  # of time.monotonic()
    status: int | None = None
    received: int = 0

    def left(self) -> float:
        """Seconds that are left of the deadline; raises DeadlineExceeded where there are none."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(
                f"the answer was not whole within {self.limits.deadline_s:g} s, the deadline of a "
                f"call; {self.received:,} bytes had come",
                status=self.status,
            )
        return left

    def take(self, count: int, unpacked: int = 0) -> None:
        """Count bytes that came; raises BodyTooLarge where they, or the `unpacked`, are too many."""
        self.received += count
        if max(self.received, unpacked) > self.limits.body_bytes:
            size = f", unpacked from {self.received:,} bytes" if unpacked > self.received else ""
            raise BodyTooLarge(
                f"the answer is larger than {self.limits.body_bytes / MB:g} MB{size}; no more of it "
                "was read. Where so much is right, raise max_body_mb in the extra of the Connection",
                status=self.status,
            )


_reading: ContextVar[_Reading | None] = ContextVar("_reading", default=None)


class _TimedReads(io.RawIOBase):
    """A socket's bytes, each wait for them no longer than what is left of the deadline."""

    def __init__(self, raw: io.RawIOBase, sock: Any):
        self._raw, self._sock, self._silence_s = raw, sock, sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if (reading := _reading.get()) is None:
            return self._raw.readinto(buffer)
        left = reading.left()
        self._sock.settimeout(left if self._silence_s is None else min(left, self._silence_s))
        try:
            count = self._raw.readinto(buffer)
        except TimeoutError:
            reading.left()
            raise
        reading.take(count or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """A response whose status line and headers are read within the deadline too."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any):
        super().__init__(sock, *args, **kwargs)
        raw: Any = self.fp
        self.fp = io.BufferedReader(_TimedReads(raw.detach(), sock))


class _TimedConnect:
    """Of a connection of urllib3: resolves the name, and tries its addresses, within the deadline."""

    _dns_host: str
    port: int
    timeout: Any

    def _new_conn(self) -> socket.socket:
        name, connect_s = self._dns_host, self.timeout
        itself: Any = self
        failed: Exception = NewConnectionError(itself, f"{name} has no address")
        try:
            for address in addresses(name, self.port, _within(connect_s)):
                self._dns_host, self.timeout = address, _within(connect_s)
                try:
                    return super()._new_conn()  # pyright: ignore[reportAttributeAccessIssue]
                except (NewConnectionError, ConnectTimeoutError) as error:
                    failed = error
            raise failed
        except socket.gaierror as error:
            raise NameResolutionError(name, itself, error) from None
        except UnicodeError:
            raise LocationParseError(f"{name!r}, label empty or too long") from None
        finally:
            self._dns_host, self.timeout = name, connect_s


def _within(seconds: Any) -> float:
    """`seconds`, CONNECT_S where they are none, but no more than is left of the deadline."""
    reading, seconds = _reading.get(), seconds if isinstance(seconds, (int, float)) else CONNECT_S
    return min(seconds, reading.left()) if reading else seconds


class GuardedAdapter(HTTPAdapter):
    """Gives whole answers within `limits` or raises an ExtractError; `host` is the only one asked
    (empty: any)."""

    def __init__(self, limits: Limits, host: str = ""):
        self.limits, self._origin = limits, _origin(host) if host else ""
        self._networks: dict[str, tuple[dict[str, str], str | bool]] = {}
        super().__init__(pool_maxsize=WORKERS)
        if host:
            self._network(host)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _time_reads(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not known:
            _time_reads(manager)
        return manager

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """One request and its whole answer; `stream` and `timeout` are those of `limits`."""
        url, limits = str(request.url), self.limits
        if self._origin and _origin(url) != self._origin:
            raise Fatal(
                f"{_origin(url)} was to be asked, and the Connection's host is {self._origin}: "
                "nothing was sent there",
                sent=False,
            )
        own_proxies, certificates = self._network(url)
        reading = _Reading(limits, time.monotonic() + limits.deadline_s)
        token = _reading.set(reading)
        try:
            response = super().send(
                request,
                stream=True,
                timeout=(min(CONNECT_S, limits.deadline_s), limits.silence_s),
                verify=certificates if verify in (True, None) else verify,
                cert=cert,
                proxies=dict(proxies or own_proxies),
            )
            try:
                return self._whole(response, reading)
            except BaseException:
                response.close()  # what is left of it is not read
                raise
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
        ) as error:
            reading.left()
            text = f"no answer: {type(error).__name__}: {error}"
            raise Retriable(text, sent=not _unsent(error)) from None
        finally:
            _reading.reset(token)

    def _whole(self, response: requests.Response, reading: _Reading) -> requests.Response:
        """The response with its body read and unpacked; raises where there is too much of it."""
        reading.status = response.status_code
        if 300 <= response.status_code < 400:
            to = response.headers.get("Location") or "nowhere"
            raise Redirected(
                f"HTTP {response.status_code}: sent on to {to[:200]}, which was not followed: it "
                "would take the key along. Set the Connection's host to where it answers itself",
                status=response.status_code,
            )
        parts, size = [], 0
        for part in response.raw.stream(CHUNK, decode_content=True):
            size += len(part)
            reading.take(0, size)
            reading.left()
            parts.append(part)
        response.raw = io.BytesIO(b"".join(parts))
        return response

    def _network(self, url: str) -> tuple[dict[str, str], str | bool]:
        """The proxies and certificates of the environment for a host, looked up once (0.3 ms)."""
        origin = _origin(url)
        if origin not in self._networks:
            # No proxy reaches this machine's own ports, whatever NO_PROXY says.
            own = is_loopback(urlsplit(url).hostname or "")
            proxies = {} if own else get_environ_proxies(url, no_proxy=None)
            self._networks[origin] = dict(proxies), _certificates()
        return self._networks[origin]


def _certificates() -> str | bool:
    """The file or folder of certificates that the environment names, True for requests' own."""
    for name in CERTIFICATES:
        if path := os.environ.get(name):
            if not os.path.exists(path):
                raise Fatal(f"{name} in the environment is {path}: there is no such file or folder")
            return path
    return True


def _time_reads(manager: Any) -> None:
    """Let the connections of a pool manager read within the deadline."""
    manager.pool_classes_by_scheme = {
        scheme: _timed(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _timed(pool: Any) -> Any:
    bases = (pool.ConnectionCls,)
    if pool.ConnectionCls._new_conn is HTTPConnection._new_conn:  # a SOCKS proxy resolves by itself
        bases = (_TimedConnect, *bases)
    connection = type("Timed", bases, {"response_class": _TimedResponse})
    return type("TimedPool", (pool,), {"ConnectionCls": connection})


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _unsent(error: Exception) -> bool:
    """Whether there was no connection that a request could have gone out by."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(error, requests.ConnectTimeout) or isinstance(
        reason, (NewConnectionError, ConnectTimeoutError)
    )
