"""A web server that takes events, and can be told not to."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from urllib.parse import unquote_plus

from palm_cluster import HOST, free_port


class Webhook:
    """Collects what is POSTed to it. While `failing`, it answers 503; while stopped, nobody is there.

    With a certificate (the files of it and of its key) it speaks HTTPS."""

    def __init__(self, certificate: tuple | None = None):
        self.port = free_port()
        self.certificate = certificate
        self.messages: list[dict] = []
        self.headers: list[dict] = []
        self.failing = False
        self.refused = 0
        self._server = None
        self.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self.certificate else ''}://{HOST}:{self.port}/events?of=palm"

    def start(self) -> None:
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hook.failing:
                    hook.refused += 1
                else:
                    hook.headers.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
                    hook.messages.append(json.loads(body))
                self.send_response(503 if hook.failing else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        http.server.ThreadingHTTPServer.allow_reuse_address = True
        self._server = http.server.ThreadingHTTPServer((HOST, self.port), Handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            # The handshake is each connection's own business, not that of the thread that takes them all.
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def records(self, bucket: str | None = None) -> list[dict]:
        """The events so far, but for those that only test."""
        records = [record for message in list(self.messages) for record in message.get("Records", [])]
        return [record for record in records if bucket in (None, record["s3"]["bucket"]["name"])]

    def seen(self, bucket: str | None = None) -> list[tuple[str, str]]:
        """Name and key of each event."""
        return [(record["eventName"], unquote_plus(record["s3"]["object"]["key"])) for record in self.records(bucket)]
