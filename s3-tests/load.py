"""A steady load in the background, by s3-bench: how long requests take before a trouble and during it."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import threading
import time

from palm_cluster import Peer, tool

STRETCH_S = 3
STRETCH_TIMEOUT_S = 200


@dataclasses.dataclass
class Figures:
    """What the stretches of a period showed."""

    requests: int
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]

    def __str__(self) -> str:
        return f"{self.requests} requests, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, errors {self.errors or 'none'}"


class Load:
    """Clients that get and put objects of their own at these peers for as long as this context lasts."""

    def __init__(self, peers: list[Peer], size: str = "64KiB", mix: str = "get=80,put=20", clients: int = 4, objects: int = 64):
        self._command = [
            tool("s3-bench"), *(part for peer in peers for part in ("--endpoint", peer.endpoint)), "--json", "--bucket", "load",
            "--size", size, "--op", mix, "--clients", str(clients), "--objects", str(objects),
        ]
        pool = peers[0].pool
        self._environment = os.environ | {"AWS_ACCESS_KEY_ID": pool.access_key, "AWS_SECRET_ACCESS_KEY": pool.secret_key}
        self._stretches: list[tuple[float, float, dict]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._stretch("--count", "1")
        self._thread.start()
        return self

    def __exit__(self, *_exception) -> None:
        self._ending.set()
        self._thread.join()

    def _stretch(self, *args: str) -> dict:
        done = subprocess.run(
            [*self._command, *args], env=self._environment, capture_output=True, text=True, timeout=STRETCH_TIMEOUT_S, check=False
        )
        # Failed requests are in the report, and end it with 1: what they mean is the test's to say.
        assert done.stdout, f"s3-bench: {done.stderr}"
        return json.loads(done.stdout)

    def _run(self) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            report = self._stretch("--reuse", "--duration", str(STRETCH_S))
            self._stretches.append((began, time.monotonic(), report))

    def figures(self, since: float, until: float | None = None) -> Figures:
        """Of the stretches wholly between these moments of the monotonic clock: medians of their quantiles, the slowest operation's."""
        until = until or time.monotonic()
        reports = [report for began, ended, report in self._stretches if since <= began and ended <= until]
        lines = [line for report in reports for line in report["lines"]]
        errors: dict[str, int] = {}
        for line in lines:
            for what, times in line["errors"].items():
                errors[what] = errors.get(what, 0) + times

        def slowest(quantile: str) -> float:
            worst = [max((line[quantile] for line in report["lines"]), default=0.0) for report in reports]
            return statistics.median(worst) if worst else 0.0

        return Figures(sum(line["done"] for line in lines), slowest("p50_ms"), slowest("p99_ms"), errors)

    def measure(self, seconds: float) -> Figures:
        """The figures of the next so many seconds."""
        began = time.monotonic()
        time.sleep(seconds)
        return self.figures(began)
