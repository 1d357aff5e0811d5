"""Laws of a source's session: an answer is whole, in time and of a size, from the one host, or none."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from contextlib import contextmanager

import pytest
import requests

from extract.core.errors import BodyTooLarge, DeadlineExceeded, Fatal, Redirected, Retriable
from extract.fetch import session
from extract.fetch.http import CcxtClients, http_call
from extract.fetch.session import Limits, checked, guard, limits_of, open_session

HEAD = b"HTTP/1.1 200 OK\r\n"
MB = 1 << 20


class Peer:
    """A host of one socket: `talk(connection)` says what it likes. `requests`: what it was asked."""

    def __init__(self, talk, tls: ssl.SSLContext | None = None):
        self.talk, self.tls, self.requests = talk, tls, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # closed: the test is over
                return
            threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, connection):
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            self.requests.append(connection.recv(1 << 16))
            self.talk(connection)
        except OSError:
            pass  # the client hung up, as it should
        finally:
            connection.close()


@contextmanager
def peer(talk, tls: ssl.SSLContext | None = None):
    one = Peer(talk, tls)
    threading.Thread(target=one.serve, daemon=True).start()
    try:
        yield one
    finally:
        one.listener.shutdown(socket.SHUT_RDWR)
        one.listener.close()


def saying(data: bytes):
    return lambda connection: connection.sendall(data)


def whole(body: bytes, *headers: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return HEAD + b"\r\n".join([length, *headers, b"", body])


def dripping(first: bytes, byte: bytes):
    def talk(connection):
        connection.sendall(first)
        while True:
            time.sleep(0.02)
            connection.sendall(byte)

    return talk


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(session, "LIMITS", Limits(silence_s=5, deadline_s=0.4, body_bytes=MB))


def asked(url: str):
    return http_call(open_session(url), url + "/x", {}, lambda data: None)


@pytest.mark.parametrize(
    "first, byte",
    [
        (b"", b"H"),
        (HEAD + b"X-Slow: ", b"x"),
        (HEAD + b"Content-Length: 1000000\r\n\r\n[", b" "),
        (HEAD + b"\r\n[", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n[", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\nX-Slow: ", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids="status header length close size chunk trailer continue".split(),
)
def test_what_drips_ends_at_the_deadline_wherever_it_drips(first, byte, hurried):
    with peer(dripping(first, byte)) as host:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"not whole within 0\.4 s.* bytes had come"):
            asked(host.url)
        assert 0.3 < time.monotonic() - begun < 2


def test_a_silent_host_is_left_after_the_silence_not_the_deadline(monkeypatch):
    monkeypatch.setattr(session, "LIMITS", Limits(silence_s=0.3, deadline_s=30))
    with peer(lambda connection: time.sleep(5)) as host:
        begun = time.monotonic()
        with pytest.raises(Retriable, match="no answer: ReadTimeout") as raised:
            asked(host.url)
        assert not isinstance(raised.value, DeadlineExceeded) and time.monotonic() - begun < 3


def bomb(size: int, *encodings: str) -> bytes:
    body = b"[" + b" " * size + b"]"
    for encoding in encodings:
        body = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](body)
    return body


@pytest.mark.parametrize(
    "answer",
    [
        whole(bomb(200 * MB, "gzip"), b"Content-Encoding: gzip"),
        whole(bomb(200 * MB, "deflate"), b"Content-Encoding: deflate"),
        whole(bomb(200 * MB, "gzip", "gzip"), b"Content-Encoding: gzip, gzip"),
        whole(b"[" + b" " * 2 * MB),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 40,
        HEAD + b"\r\n[" + b" " * 2 * MB,
    ],
    ids="gzip deflate twice length chunked close".split(),
)
def test_what_is_too_large_is_stopped_before_it_is_all_here(answer, hurried, monkeypatch):
    monkeypatch.setattr(session, "LIMITS", Limits(body_bytes=MB))
    with peer(saying(answer)) as host:
        tracemalloc.start()
        with pytest.raises(BodyTooLarge, match="larger than 1 MB.*raise max_body_mb") as raised:
            asked(host.url)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert raised.value.status == 200 and most < 8 * MB


def test_the_connection_of_an_answer_that_was_left_is_not_used_again(hurried):
    answers = [whole(b"[" + b" " * 2 * MB), whole(b"[1]")]
    with peer(lambda connection: connection.sendall(answers.pop(0))) as host:
        opened = open_session(host.url)
        with pytest.raises(BodyTooLarge):
            http_call(opened, host.url, {}, lambda data: None)
        assert http_call(opened, host.url, {}, lambda data: None).data == [1]


def test_connections_are_kept_and_each_answer_has_a_deadline_of_its_own(monkeypatch):
    monkeypatch.setattr(session, "LIMITS", Limits(deadline_s=0.5))

    def talk(connection):
        for _ in range(4):
            connection.sendall(whole(b"[1]"))
            connection.recv(1 << 16)

    with peer(talk) as host:
        opened = open_session(host.url)
        for _ in range(4):
            assert http_call(opened, host.url, {}, lambda data: None).data == [1]
            time.sleep(0.2)
        assert len(host.requests) == 1, "one connection"


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
def test_no_redirect_is_followed_and_where_it_leads_is_said(status):
    with peer(saying(whole(b'{"data": []}'))) as evil:
        moved = b"HTTP/1.1 %d Moved\r\nLocation: %s/x\r\nContent-Length: 0\r\n\r\n"
        with peer(saying(moved % (status, evil.url.encode()))) as host:
            with pytest.raises(Redirected, match=f"HTTP {status}: sent on to {evil.url}/x") as got:
                asked(host.url)
            plain = requests.Session()
            guard(plain)
            with pytest.raises(Redirected):
                plain.get(host.url, timeout=5)
            clients = CcxtClients(lambda: Exchange(host.url), host.url)
            with pytest.raises(Redirected):
                clients.call("fetch_it", {}, "data")
        assert got.value.status == status and evil.requests == []


class Exchange:
    """As much of a ccxt client as a call needs, with the session that ccxt gives it."""

    def __init__(self, url: str):
        self.url, self.session = url, requests.Session()
        self.last_http_response = self.last_response_headers = None

    def fetch_it(self, params):
        answer = self.session.request("GET", self.url, timeout=10)
        self.last_http_response, self.last_response_headers = answer.text, answer.headers
        return answer.json()


def test_another_host_than_the_connections_is_not_asked():
    with peer(saying(whole(b"[]"))) as evil, peer(saying(whole(b"[]"))) as host:
        opened = open_session(host.url)
        with pytest.raises(Fatal, match="the Connection's host is.*nothing was sent") as raised:
            opened.get(evil.url, timeout=5)
        assert evil.requests == [] and not raised.value.sent


@pytest.mark.parametrize(
    "host, said",
    [
        ("http://api.coinbase.com", "http://api.coinbase.com.*in clear: write it with https"),
        ("http://8.8.8.8:80/x", "in clear"),
        ("https://me:secret@api.example.com", "user name or password before an @"),
        ("https://[::1", "is no address"),
        ("https://api.example.com:99999", "is no address"),
    ],
)
def test_a_host_that_no_key_should_be_sent_to_is_refused(host, said):
    with pytest.raises(Fatal, match=said) as raised:
        open_session(host)
    assert "secret" not in str(raised.value)


def test_http_is_for_this_machine_and_with_a_warning_for_the_local_network(caplog):
    for host in ("http://127.0.0.1:80", "http://[::1]:80", "http://localhost", "https://a.example"):
        assert checked(host) == host and not caplog.records
    for host in ("http://sandbox:8085/debank", "http://10.0.0.7", "http://api.svc.cluster.local"):
        caplog.clear()
        checked(host)
        assert "in clear" in caplog.text


def test_a_proxy_of_the_environment_is_used_and_never_for_this_machine(monkeypatch):
    with peer(saying(whole(b"[1]"))) as proxy, peer(saying(whole(b"[2]"))) as host:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert asked("http://api.test").data == [1]
        assert proxy.requests[0].startswith(b"GET http://api.test/x HTTP/1.1")
        assert asked(host.url).data == [2]
        clients = CcxtClients(lambda: Exchange("http://api.test/y"), "http://api.test")
        with pytest.raises(Retriable, match="no list at 'data'"):
            clients.call("fetch_it", {}, "data")
        assert proxy.requests[1].startswith(b"GET http://api.test/y HTTP/1.1"), "ccxt's too"


def test_a_proxy_that_drips_its_answer_ends_at_the_deadline_too(monkeypatch, hurried):
    with peer(dripping(b"HTTP/1.1 200 ", b"x")) as proxy:
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(DeadlineExceeded):
            asked("https://api.example.com")
        assert proxy.requests[0].startswith(b"CONNECT api.example.com:443")


@pytest.mark.parametrize("name", session.CERTIFICATES)
def test_the_certificates_of_the_environment_are_those_that_count(name, monkeypatch, tmp_path):
    for other in session.CERTIFICATES:
        monkeypatch.delenv(other, raising=False)
    key, certificate = own_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with peer(saying(whole(b"[1]")), context) as host:
        url = host.url
        with pytest.raises(Retriable, match="no answer: SSLError"):
            asked(url)
        monkeypatch.setenv(name, str(certificate))
        assert asked(url).data == [1]
    monkeypatch.setenv(name, str(tmp_path / "none.pem"))
    with pytest.raises(Fatal, match=f"{name} in the environment is .*none.pem: there is no such"):
        open_session("https://api.example.com")


def own_certificate(folder, host: str = ""):
    """(key, certificate) files of 127.0.0.1, or of `host`, signed by itself."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.DNSName(host) if host else x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    return folder / "key.pem", folder / "certificate.pem"


@pytest.mark.parametrize("first", [b"", HEAD + b"Content-Length: 1000000\r\n\r\n["])
def test_what_drips_through_tls_ends_at_the_deadline_too(first, hurried, monkeypatch, tmp_path):
    key, certificate = own_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with peer(dripping(first, b"x"), context) as host:
        with pytest.raises(DeadlineExceeded):
            asked(host.url)


@pytest.fixture
def resolver(monkeypatch):
    """resolver(name=[address, …]): what the system's resolver says; None: nothing, and never."""
    done, right = threading.Event(), socket.getaddrinfo

    def set_up(**names):
        known = {name.replace("_", "."): found for name, found in names.items()}

        def getaddrinfo(host, port, *args, **kwargs):
            if host not in known:
                return right(host, port, *args, **kwargs)
            if known[host] is None:
                done.wait(20)
                raise socket.gaierror(socket.EAI_AGAIN, "late")
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in known[host]
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    yield set_up
    done.set()


@pytest.mark.parametrize("connect_s, deadline_s", [(0.3, 5.0), (5.0, 0.3)])
def test_a_resolver_that_hangs_is_left_in_time(resolver, monkeypatch, connect_s, deadline_s):
    """getaddrinfo takes no timeout: with dead name servers it took minutes."""
    monkeypatch.setattr(session, "CONNECT_S", connect_s)
    monkeypatch.setattr(session, "LIMITS", Limits(deadline_s=deadline_s))
    resolver(hanging_test=None)
    begun = time.monotonic()
    with pytest.raises(Retriable) as raised:
        asked("http://hanging.test")
    assert time.monotonic() - begun < 2
    if connect_s < deadline_s:
        assert "hanging.test" in str(raised.value)
        assert "not resolved within 0.3 s" in str(raised.value)
        assert not raised.value.sent, "nothing was asked, so nothing was paid"
    else:
        assert isinstance(raised.value, DeadlineExceeded)


def test_a_name_that_is_not_there_is_named_and_one_that_cannot_be_is_no_riddle(resolver):
    resolver(empty_test=[])
    with pytest.raises(Retriable, match="empty.test has no address") as raised:
        asked("http://empty.test")
    assert not raised.value.sent
    with pytest.raises(Retriable, match="label empty or too long"):
        asked(f"http://{'x' * 64}.test")


def test_the_next_address_of_a_name_is_tried_and_the_host_is_asked_by_its_name(resolver):
    with peer(saying(whole(b"[1]"))) as host:
        resolver(many_test=["127.0.0.2", "127.0.0.1"])
        assert asked(f"http://many.test:{host.port}").data == [1]
        assert f"Host: many.test:{host.port}".encode() in host.requests[0]


def test_a_certificate_is_held_to_the_name_and_not_to_the_address(resolver, monkeypatch, tmp_path):
    resolver(named_test=["127.0.0.1"], other_test=["127.0.0.1"])
    key, certificate = own_certificate(tmp_path, "named.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with peer(saying(whole(b"[1]")), context) as host:
        assert asked(f"https://named.test:{host.port}").data == [1]
        with pytest.raises(Retriable, match="SSLError.*other.test|other.test.*SSLError"):
            asked(f"https://other.test:{host.port}")


def test_a_netrc_never_takes_the_place_of_the_key(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password stolen\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with peer(saying(whole(b"[]"))) as host:
        asked(host.url)
        assert b"Authorization" not in host.requests[0]


def test_the_limits_can_be_set_in_the_extra_of_a_connection():
    assert limits_of({}) == limits_of(None) == session.LIMITS
    chosen = limits_of({"deadline_s": 120, "max_body_mb": 64, "units": {}})
    assert (chosen.deadline_s, chosen.body_bytes) == (120.0, 64 * MB)
    for wrong in ("60", 0, -1, True, 1e9, float("nan"), []):
        with pytest.raises(Fatal, match="deadline_s in the extra is .*write a number"):
            limits_of({"deadline_s": wrong})


@pytest.mark.parametrize(
    "body, said",
    [
        ("[" * 100_000 + "]" * 100_000, "not JSON .*recursion"),
        ('{"data": [Infinity]}', "not JSON .Infinity is no number"),
        ('{"data": [NaN]}', "not JSON .NaN is no number"),
        ('{"data": [' + "9" * 5000 + "]}", "not JSON"),
        ('{"data": null}', r"its shape is not known \(KeyError"),
        ("[1]", r"its shape is not known \(TypeError"),
    ],
)
def test_a_body_that_is_not_what_was_asked_for_is_named_whatever_it_is(body, said):
    def expect(data):
        return data["missing"] if data["data"] is None else None

    with peer(saying(whole(body.encode()))) as host:
        with pytest.raises(Retriable, match=f"HTTP 200 with a body that is not .*{said}") as raised:
            http_call(open_session(host.url), host.url, {}, expect)
    assert raised.value.status == 200
