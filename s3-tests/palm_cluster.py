"""Pools of real `palm` processes on loopback: started, killed and questioned as an operator would.

A `Pool` holds `Peer`s. Every peer has its own data directory, ports and log file below the pool's root, speaks mDNS on `lo` only, and is
driven through the command line alone: what this module does, a person in a shell can do. Nothing here looks inside a peer.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

import boto3
from botocore.config import Config

HOST = "127.0.0.1"
# Below Linux's ephemeral range (32768 and up): a killed peer's port must not become some client's outgoing port before it is back.
PORTS = range(20000, 32000)
READY_TIMEOUT_S = 60
SETTLE_TIMEOUT_S = 60
COMMAND_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
LOG_TAIL_LINES = 40
GRACE_S = 6
# What takes minutes and hours in a real pool, in seconds: absence, counting, repair and collection.
QUICK = {
    "members.grace": f"{GRACE_S}s", "repair.every": "2s", "repair.settle": "3s",
    "collection.grace": "1s", "collection.released": "1s", "collection.trash": "2s", "collection.every": "2s",
}

# Told of every boto3 client made here.
on_client: Callable[[object], None] = lambda client: None  # noqa: E731

_session_lock = threading.Lock()
_running: set[subprocess.Popen] = set()


@atexit.register
def _end_leftovers() -> None:
    """Ends what a broken test run left behind: only processes that this module started."""
    for process in list(_running):
        process.kill()
        process.wait()


def palm_binary() -> pathlib.Path:
    """The binary under test: $PALM_BIN, else what `make build` leaves."""
    if named := os.environ.get("PALM_BIN"):
        return pathlib.Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    target = os.environ.get("CARGO_TARGET_DIR") or f"{cache}/palm-target"
    return pathlib.Path(target) / "debug" / "palm"


_ports_given: set[int] = set()


def tool(name: str) -> pathlib.Path:
    """A program built beside the binary under test."""
    beside = palm_binary().parent
    return next((path for path in (beside / name, beside / "examples" / name) if path.exists()), beside / name)


def free_port() -> int:
    """A port that is free for TCP and for UDP now, and that this process has not given out before."""
    for port in random.SystemRandom().sample(PORTS, 200):
        if port in _ports_given:
            continue
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind((HOST, port))
        except OSError:
            continue
        _ports_given.add(port)
        return port
    raise RuntimeError("no free port found")


def eventually(condition: Callable[[], object], timeout_s: float, what: str, every_s: float = 0.1) -> object:
    """Asks `condition` again and again until it holds; its last answer, or an AssertionError that names `what` and the last answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what} (last answer: {answer!r})")
        time.sleep(every_s)


class CommandFailed(Exception):
    """A `palm` command ended with a code other than 0."""

    def __init__(self, args: list[str], code: int, stdout: str, stderr: str):
        super().__init__(f"palm {' '.join(args)} ended with {code}\nstdout: {stdout}\nstderr: {stderr}")
        self.code, self.stdout, self.stderr = code, stdout, stderr


def palm(*args: str, timeout_s: float = COMMAND_TIMEOUT_S, binary: pathlib.Path | None = None) -> dict:
    """Runs one command to its end with --json; what it printed."""
    command = [str(arg) for arg in args]
    done = subprocess.run(
        [binary or palm_binary(), *command, "--json"],
        env=peer_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False,
    )
    if done.returncode != 0:
        raise CommandFailed(command, done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout) if done.stdout.strip() else {}


def peer_environment() -> dict[str, str]:
    """This process's environment without its PALM_ settings, and with QUIC and mDNS kept on loopback."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PALM_") or name == "PALM_LOG"}
    return kept | {"PALM_DISCOVERY__INTERFACES": "lo", "PALM_QUIC__ADDRESS": f"{HOST}:0", "RUST_BACKTRACE": "1"}


def s3_client(endpoint: str, access_key: str, secret_key: str, read_timeout_s: float = 120, **config):
    """A boto3 client that says what happened: no retries, path style, finite timeouts."""
    settings = {
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "s3": {"addressing_style": "path"},
        "signature_version": "s3v4",
        "connect_timeout": 5,
        "read_timeout": read_timeout_s,
        "max_pool_connections": 64,
    } | config
    with _session_lock:
        client = _session().client(
            "s3", endpoint_url=endpoint, aws_access_key_id=access_key, aws_secret_access_key=secret_key,
            region_name="us-east-1", config=Config(**settings),
        )
    on_client(client)
    return client


@functools.cache
def _session() -> boto3.session.Session:
    """One for all, as it keeps the service's model, which takes longer to read than most requests. Not for two threads at once."""
    return boto3.session.Session()


class Peer:
    """One `palm` process and its place on disk. It survives its process: killed or stopped, it can be started again."""

    def __init__(self, pool: Pool, name: str):
        self.pool = pool
        self.name = name
        self.dir = pool.root / name
        self.data = self.dir / "data"
        self.log = self.dir / "log"
        self.events = self.dir / "events"
        self.dir.mkdir(parents=True)
        # Variables of this peer alone, over those of its pool.
        self.environment: dict[str, str] = {}
        # The program it runs: the one under test, unless it is of another version.
        self.binary = palm_binary()
        # Where its fragments are: one place in its data directory unless it was given others.
        self.disks = [self.data / "fragments"]
        self.quic_port, self.s3_port, self.admin_port = free_port(), free_port(), free_port()
        self.ready: dict = {}
        self.process: subprocess.Popen | None = None
        self._events_read = 0

    def __repr__(self) -> str:
        return f"<{self.name} {'up' if self.up else 'down'}>"

    # -- its life

    def spawn(self, *args: str) -> None:
        """Starts the process; `wait_event("ready")` tells when it serves."""
        assert not self.up, f"{self.name} is already up"
        listen = ["--data", self.data, "--s3", f"{HOST}:{self.s3_port}", "--admin", f"{HOST}:{self.admin_port}", "--json"]
        self._events_read = 0
        # Files, not pipes: a peer outlives this process when asked to, and both can be read after a failure.
        with self.log.open("ab") as log, self.events.open("wb") as events:
            self.process = subprocess.Popen(
                [self.binary, *(str(arg) for arg in [*args, *listen])],
                env=peer_environment() | {"PALM_NAME": self.name} | self.pool.environment | self.environment, stdin=subprocess.DEVNULL, stdout=events, stderr=log,
            )
        _running.add(self.process)

    def _new_events(self) -> list[dict]:
        """Whole lines of stdout not seen before. Under --json each must be one."""
        unread = self.events.read_bytes()[self._events_read :]
        lines = unread[: unread.rfind(b"\n") + 1].splitlines()
        self._events_read += sum(len(line) + 1 for line in lines)
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            raise AssertionError(f"{self.name}: stdout under --json holds {lines}") from None

    def wait_event(self, name: str, timeout_s: float = READY_TIMEOUT_S) -> dict:
        """The next event of that name from stdout. An exit, another kind of line or silence is an AssertionError with the log's end."""
        seen = []

        def found() -> dict | None:
            ended = self.process.poll()
            seen.extend(self._new_events())
            if event := next((event for event in seen if event.get("event") == name), None):
                return event
            assert ended is None, f"{self.name} ended with {ended} before {name!r}, saw {seen}"
            return None

        try:
            return eventually(found, timeout_s, f"{self.name} says {name!r}", every_s=0.02)
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.log_tail()}") from None

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> Peer:
        self.ready = self.wait_event("ready", timeout_s)
        return self

    def use_disks(self, disks: list[pathlib.Path], options: str = "") -> None:
        """Keeps fragments in these directories from its next start on; `options` such as `?reserve=1MiB` are those of every one."""
        self.disks = [pathlib.Path(disk) for disk in disks]
        self.environment["PALM_BACKEND__URLS"] = ",".join(f"disk://{disk}{options}" for disk in self.disks)

    def create_pool(self, name: str, *args: str) -> Peer:
        self.spawn("create-pool", "--name", name, "--port", self.quic_port, *args)
        return self.wait_ready()

    def spawn_join(self, pool_id: str, coordinator: str, token: str | None) -> None:
        with_token = ["--token", token] if token else []
        self.spawn("join-pool", "--pool-id", pool_id, "--coordinator", coordinator, "--port", self.quic_port, *with_token)

    def start(self) -> Peer:
        """Starts a member again: same data directory, same addresses."""
        self.spawn("serve", "--quic", f"{HOST}:{self.quic_port}")
        return self.wait_ready()

    def wait_ended(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Until the process has ended by itself; its exit code."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end\n{self.log_tail()}") from None
        _running.discard(self.process)
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL: no goodbye, no flush."""
        self.process.kill()
        self._reap()

    def stop(self) -> None:
        """SIGTERM, and holds the peer to its word: requests drained, exit code 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self._reap()
        assert code == 0, f"{self.name} ended with {code} after SIGTERM\n{self.log_tail()}"

    def _reap(self) -> int:
        process, self.process = self.process, None
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} was still there {STOP_TIMEOUT_S} s after SIGTERM\n{self.log_tail()}") from None
        finally:
            _running.discard(process)

    @property
    def up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def assert_up(self) -> None:
        """A peer that the test did not stop must not have ended by itself."""
        if self.process is not None and (code := self.process.poll()) is not None:
            raise AssertionError(f"{self.name} ended by itself with {code}\n{self.log_tail()}")

    # -- what it can be asked

    def ask(self, command: str, *args: str, timeout_s: float = COMMAND_TIMEOUT_S) -> dict:
        """A `palm` command at this peer."""
        return palm(*command.split(), *args, "--data", self.data, timeout_s=timeout_s, binary=self.binary)

    def status(self) -> dict:
        return self.ask("status")

    def metrics(self) -> dict[str, float]:
        """What Prometheus would read; each name's labels are added up, and each labelled figure is there by itself too."""
        with urllib.request.urlopen(f"http://{HOST}:{self.admin_port}/metrics", timeout=COMMAND_TIMEOUT_S) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line and not line.startswith("#")]
        figures: dict[str, float] = {}
        for labelled, _, figure in (line.rpartition(" ") for line in lines):
            for name in {labelled, labelled.partition("{")[0]}:
                figures[name] = figures.get(name, 0.0) + float(figure)
        return figures

    def invite(self) -> str:
        return self.ask("invite")["join_token"]

    def members(self) -> list[dict]:
        return self.ask("list-members")["members"]

    def voters(self) -> set[str]:
        """Peer ids of the members that vote, as this peer knows."""
        return {member["peer_id"] for member in self.members() if member["voter"]}

    @property
    def id(self) -> str:
        return self.ready["peer_id"]

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.s3_port}"

    @property
    def quic_address(self) -> str:
        return f"{HOST}:{self.quic_port}"

    def client(self, **config):
        return s3_client(self.endpoint, self.pool.access_key, self.pool.secret_key, **config)

    def peak_memory_bytes(self) -> int:
        """The most resident memory that the process ever had (VmHWM)."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM in /proc")

    def cpu_seconds(self) -> float:
        """Time of all cores that the process has used."""
        user, system = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def files(self) -> Iterator[pathlib.Path]:
        """Every file that this peer has on its disk."""
        return (path for path in self.data.rglob("*") if path.is_file() and not path.is_symlink())

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        text = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"--- {self.log}, last lines", *text[-lines:]])


def voters_expected(members: int) -> int:
    """1, 1, 3, 3, 5, 5, 7, 7 …: odd and at most seven (DESIGN.md, the ledger)."""
    return min(7, members - 1 + members % 2)


class Pool:
    """Several peers of one pool. A context manager: on leaving, every process it started is gone."""

    def __init__(self, root: pathlib.Path, name: str = "test", settings: dict[str, str] | None = None):
        """`settings` of every peer, by their names in the settings file: `{"members.grace": "5s"}`."""
        self.root = pathlib.Path(root)
        self.name = name
        self.environment = {f"PALM_{key.upper().replace('.', '__')}": value for key, value in (settings or {}).items()}
        self.peers: list[Peer] = []
        # Options of every disk, such as `?max_bytes=1GiB`: then all disks are given by URL.
        self.disk_options = ""
        # Backends of the peers in turn: URLs with {dir} for a directory of the peer's own. None: one disk each.
        self.mixed: list[str] = []
        self.access_key = self.secret_key = self.id = ""

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_exception) -> None:
        for peer in self.peers:
            if peer.process is not None:
                peer.kill()

    @classmethod
    def form(
        cls, root: pathlib.Path, size: int, policy: str | None = None, name: str = "test", settings: dict[str, str] | None = None,
        mixed: list[str] | None = None,
    ) -> Pool:
        """A pool of `size` peers, joined by token, settled."""
        pool = cls(root, name, settings)
        pool.mixed = mixed or []
        try:
            pool.create(*(["--policy", policy] if policy else []))
            for _ in range(size - 1):
                pool.join()
            pool.wait_settled()
        except BaseException:
            pool.__exit__()
            raise
        return pool

    def new_peer(self) -> Peer:
        peer = Peer(self, f"peer-{len(self.peers) + 1}")
        if self.disk_options:
            peer.use_disks(peer.disks, self.disk_options)
        if self.mixed:
            peer.environment["PALM_BACKEND__URLS"] = self.mixed[len(self.peers) % len(self.mixed)].format(dir=peer.dir)
        self.peers.append(peer)
        return peer

    def create(self, *args: str) -> Peer:
        founder = self.new_peer().create_pool(self.name, *args)
        self.id = founder.ready["pool_id"]
        self.access_key, self.secret_key = founder.ready["access_key"], founder.ready["secret_key"]
        return founder

    def join(self, via: Peer | None = None, disks: list[pathlib.Path] | None = None, options: str = "") -> Peer:
        """One more peer, by a fresh token from `via`, with these disks if any are given."""
        via = via or self.peers[0]
        peer = self.new_peer()
        if disks:
            peer.use_disks(disks, options)
        peer.spawn_join(self.id, via.quic_address, via.invite())
        return peer.wait_ready()

    @property
    def up(self) -> list[Peer]:
        return [peer for peer in self.peers if peer.up]

    def wait_live(self, count: int, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
        """Until every running peer sees exactly `count` members live and has heard of each one's free space, so that it can be a home."""
        def live(peer: Peer) -> bool:
            members = [member for member in peer.members() if member["state"] == "live"]
            return len(members) == count and all(member.get("free_bytes") is not None for member in members)

        for peer in self.up:
            eventually(lambda peer=peer: live(peer), timeout_s, f"{peer.name} sees {count} live members", every_s=0.1)

    def wait_settled(self, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
        """Until every peer sees all members live and the full number of voters."""
        count = len(self.up)
        self.wait_live(count, timeout_s)
        for peer in self.up:
            eventually(
                lambda peer=peer: sum(member["voter"] for member in peer.members()) == voters_expected(count),
                timeout_s, f"{peer.name} sees {voters_expected(count)} voters", every_s=0.25,
            )

    def metric(self, name: str, peers: list[Peer] | None = None) -> float:
        """The sum over these peers, by default those that run."""
        return sum(peer.metrics().get(name, 0.0) for peer in peers or self.up)

    def wait_full(self, timeout_s: float, objects: int | None = None) -> dict:
        """Until the peers have counted anew, twice, and find every object (so many, when told) at full redundancy and nothing to mend.

        Twice, because the first count that ends from now on began before. The pool's health as it was told last.
        """
        seen, told = int(time.time() * 1000), {}
        for _ in range(2):
            def full(seen=seen) -> bool:
                status = self.up[0].status()
                told.update(status["health"])
                *lesser, whole = [tally["objects"] for tally in told["objects"]]
                waiting = told["segments_to_mend"] + told["queued"] + sum(lesser) + len(status["silent"])
                return told["counted_ms"] > seen and waiting == 0 and objects in (None, whole)

            try:
                eventually(full, timeout_s, f"all objects at full redundancy ({objects})", every_s=0.5)
            except AssertionError as failure:
                raise AssertionError(f"{failure}; health: {told}") from None
            seen = told["counted_ms"]
        return told

    def make_whole(self, timeout_s: float = 120, objects: int | None = None) -> None:
        """Until every object (so many, when told) has all its fragments. A write is answered when any one peer may go, and a home that was slow then has its fragment
        from repair alone: whoever takes away more than one waits for this first."""
        def whole() -> bool:
            self.up[0].ask("repair", timeout_s=timeout_s)
            *lesser, full = [tally["objects"] for tally in self.up[0].status()["health"]["objects"]]
            return not any(lesser) and objects in (None, full)

        eventually(whole, timeout_s, f"every object has all its fragments ({objects})", every_s=0.5)

    def stop_all(self) -> None:
        """Stops every peer that runs, all at once: the last ones would else wait for those that went first."""
        stopping = self.up
        for peer in stopping:
            peer.process.send_signal(signal.SIGTERM)
        for peer in stopping:
            peer._reap()

    def start_all(self, peers: list[Peer] | None = None) -> None:
        """Starts these peers (all of them by default). None can be ready alone, so all are spawned before the first is waited for."""
        peers = self.peers if peers is None else peers
        for peer in peers:
            peer.spawn("serve", "--quic", peer.quic_address)
        for peer in peers:
            peer.wait_ready()
        self.wait_live(len(self.up))

    def leave_running(self) -> None:
        """Gives up the processes: they go on after this one."""
        for peer in self.peers:
            _running.discard(peer.process)
            peer.process = None

    def assert_up(self) -> None:
        for peer in self.peers:
            peer.assert_up()

    def logs(self) -> str:
        return "\n".join(peer.log_tail() for peer in self.peers)
