"""The console as a program speaks to it: sessions, the marks of its own pages, raw paths. And the browser that people use instead."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil

import pytest

from palm_cluster import HOST, Peer

OWN = {"x-palm-console": "1"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 60


class Console:
    """A client of one peer's console; logged in once `login` was called."""

    def __init__(self, peer: Peer):
        self.peer = peer
        self.cookie = ""

    def ask(self, method: str, path: str, body: object = None, headers: dict | None = None, own: bool = True) -> tuple[int, dict, bytes]:
        """Status, headers (names in lower case; of several alike the last) and body. The path is sent as it is given."""
        connection = http.client.HTTPConnection(HOST, self.peer.admin_port, timeout=TIMEOUT_S)
        sent = (OWN if own and method not in ("GET", "HEAD") else {}) | (headers or {})
        if self.cookie:
            sent["cookie"] = self.cookie
        if body is not None and not isinstance(body, bytes):
            body, sent = json.dumps(body).encode(), {"content-type": "application/json"} | sent
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def login(self, access_key: str, secret_key: str) -> tuple[int, dict, bytes]:
        status, headers, body = self.ask("POST", "/console/api/login", {"access_key": access_key, "secret_key": secret_key})
        self.cookie = headers.get("set-cookie", "").split(";")[0]
        return status, headers, body


@contextlib.contextmanager
def chromium():
    """A real browser without a window; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make setup does)")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed (make setup does, where there is apt-get)")
    with playwright.sync_playwright() as play:
        # Tests may run as root, where Chromium has no sandbox; it speaks to loopback alone.
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()
