"""Resolve a host's name within a deadline.

getaddrinfo takes none: with name servers that do not answer it may block for minutes. So it is
called in a thread of its own (as asyncio and Tornado do), which is left behind where it is late. It
ends when the system's resolver gives up, and keeps no process from ending.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from threading import Thread

from urllib3.util.connection import allowed_gai_family


def addresses(host: str, port: int, within_s: float) -> list[str]:
    """The numeric addresses of a host, in the order in which they are to be tried.

    Raises socket.gaierror where there are none, or none are known within `within_s` seconds;
    UnicodeError for what cannot be a name.
    """
    try:
        return [str(ip_address(host.strip("[]")))]
    except ValueError:
        pass
    answer: SimpleQueue[list[str] | Exception] = SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM)
            answer.put(list(dict.fromkeys(str(address[0]) for *_, address in found)))
        except Exception as error:
            answer.put(error)

    Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    try:
        found = answer.get(timeout=within_s)
    except Empty:
        raise socket.gaierror(
            socket.EAI_AGAIN, f"the name was not resolved within {within_s:.1f} s"
        ) from None
    if isinstance(found, Exception):
        raise found
    return found
