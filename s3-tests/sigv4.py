"""Requests to S3 written by hand, for what a well-behaved client never sends.

Signature Version 4 from AWS's pages "Create a signed AWS API request", "Authenticating Requests: Using Query Parameters" and "Signature
Calculations for the Authorization Header: Transferring Payload in Multiple Chunks". Every piece (date, payload hash, chunk signatures,
trailers) can be given wrongly on purpose. The bytes go through a plain socket.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import hmac
import http.client
import socket
import urllib.parse
from collections.abc import Callable

# Told of every answer to `Server.send`: method, target and headers of the request, status and code.
on_answer: Callable[[str, str, dict, int, str], None] = lambda *answered: None  # noqa: E731

UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def quote(path: str) -> str:
    return urllib.parse.quote(path, safe="/~")


def _query(pairs: list[tuple[str, str]]) -> str:
    escape = urllib.parse.quote
    return "&".join(f"{escape(name, safe='~')}={escape(value, safe='~')}" for name, value in sorted(pairs))


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


@dataclasses.dataclass(frozen=True)
class Credentials:
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    service: str = "s3"

    def scope(self, now: datetime.datetime) -> str:
        return f"{now:%Y%m%d}/{self.region}/{self.service}/aws4_request"

    def sign(self, now: datetime.datetime, text: str) -> str:
        key = f"AWS4{self.secret_key}".encode()
        for step in self.scope(now).split("/"):
            key = _hmac(key, step)
        return _hmac(key, text).hex()

    def _sign_request(self, now, method, path, query, headers: dict[str, str], signed: list[str], payload_hash: str) -> str:
        lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in signed)
        canonical = "\n".join([method, quote(path), _query(query), lines, ";".join(signed), payload_hash])
        text = "\n".join(["AWS4-HMAC-SHA256", f"{now:%Y%m%dT%H%M%SZ}", self.scope(now), sha256(canonical.encode())])
        return self.sign(now, text)

    def authorize(self, request: Request, payload_hash: str, now: datetime.datetime | None = None) -> Request:
        """The request with x-amz-date, x-amz-content-sha256 and Authorization; signs every header that it has."""
        now = now or utc_now()
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers |= {"x-amz-date": f"{now:%Y%m%dT%H%M%SZ}", "x-amz-content-sha256": payload_hash}
        signed = sorted(headers)
        signature = self._sign_request(now, request.method, request.path, request.query, headers, signed, payload_hash)
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{self.scope(now)}, "
            f"SignedHeaders={';'.join(signed)}, Signature={signature}"
        )
        return dataclasses.replace(request, headers=headers)

    def presign(self, request: Request, expires_s: int = 300, now: datetime.datetime | None = None) -> Request:
        """The request with its signature in the query; signs Host alone."""
        now = now or utc_now()
        query = request.query + [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", f"{self.access_key}/{self.scope(now)}"),
            ("X-Amz-Date", f"{now:%Y%m%dT%H%M%SZ}"),
            ("X-Amz-Expires", str(expires_s)),
            ("X-Amz-SignedHeaders", "host"),
        ]
        headers = {name.lower(): value for name, value in request.headers.items()}
        signature = self._sign_request(now, request.method, request.path, query, headers, ["host"], UNSIGNED)
        return dataclasses.replace(request, headers=headers, query=query + [("X-Amz-Signature", signature)])

    def signed_chunks(self, authorized: Request, chunks: list[bytes], trailer: dict[str, str] | None = None) -> bytes:
        """The body of a STREAMING-AWS4-HMAC-SHA256-PAYLOAD[-TRAILER] request, each chunk signed on top of the one before."""
        date = authorized.headers["x-amz-date"]
        now = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ")
        previous = authorized.headers["authorization"].rsplit("Signature=", 1)[1]
        body = b""
        for chunk in [*chunks, b""]:
            text = ["AWS4-HMAC-SHA256-PAYLOAD", date, self.scope(now), previous, EMPTY_SHA256, sha256(chunk)]
            previous = self.sign(now, "\n".join(text))
            body += f"{len(chunk):x};chunk-signature={previous}\r\n".encode()
            body += chunk + b"\r\n" if chunk else b""
        if trailer is not None:
            lines = "".join(f"{name}:{value}\n" for name, value in trailer.items())
            text = ["AWS4-HMAC-SHA256-TRAILER", date, self.scope(now), previous, sha256(lines.encode())]
            for name, value in trailer.items():
                body += f"{name}:{value}\r\n".encode()
            body += f"x-amz-trailer-signature:{self.sign(now, chr(10).join(text))}\r\n".encode()
        return body + b"\r\n"


def unsigned_chunks(chunks: list[bytes], trailer: dict[str, str]) -> bytes:
    """The body of a STREAMING-UNSIGNED-PAYLOAD-TRAILER request, as the SDKs of 2025 and later send it."""
    body = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    lines = "".join(f"{name}:{value}\r\n" for name, value in trailer.items())
    return body + b"0\r\n" + lines.encode() + b"\r\n"


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    query: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def target(self) -> str:
        return quote(self.path) + (f"?{_query(self.query)}" if self.query else "")

    def head(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The S3 error code of the body, "" when it holds none."""
        _, _, rest = self.body.partition(b"<Code>")
        return rest.partition(b"</Code>")[0].decode()

    def __str__(self) -> str:
        return f"{self.status} {self.code} {self.body[:300]!r}"


class Server:
    """An S3 endpoint reached through plain sockets."""

    def __init__(self, endpoint: str, credentials: Credentials, timeout_s: float = 30, draw: Callable[[], str] | None = None):
        """`draw` names the endpoint of each connection, where there are several; the Host header stays the same."""
        self.draw = draw or (lambda: endpoint)
        self.host = urllib.parse.urlsplit(endpoint).netloc
        self.credentials = credentials
        self.timeout_s = timeout_s

    def request(self, method: str, path: str, query: list[tuple[str, str]] | None = None, **headers: str) -> Request:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Request(method, path, {"host": self.host} | named, query or [])

    def connect(self) -> socket.socket:
        url = urllib.parse.urlsplit(self.draw())
        return socket.create_connection((url.hostname, url.port or 80), timeout=self.timeout_s)

    @staticmethod
    def read_answer(connection: socket.socket, method: str = "GET") -> Answer:
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def send(self, request: Request, body: bytes = b"") -> Answer:
        """Sends the request as it is, adding nothing but a Content-Length where the request names no length."""
        named = {name.lower() for name in request.headers}
        if "content-length" not in named and "transfer-encoding" not in named:
            request = dataclasses.replace(request, headers=request.headers | {"content-length": str(len(body))})
        with self.connect() as connection:
            # A refusal may come, and the connection be closed, before all is sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request.head() + body)
            answer = self.read_answer(connection, request.method)
        on_answer(request.method, request.target, request.headers, answer.status, answer.code)
        return answer

    def signed(self, method: str, path: str, body: bytes = b"", query=None, payload_hash: str | None = None, now=None, **headers) -> Answer:
        """A well-formed signed request; `payload_hash`, `now` and headers can be given wrongly."""
        request = self.request(method, path, query, **headers)
        request = self.credentials.authorize(request, payload_hash or sha256(body), now)
        return self.send(request, body)
