"""`make demo`: five peers on this machine, real files, two peers killed, everything read back and compared.

    KEEP=1 make demo     leaves the pool up and tells how to use it
    MIXED=1 make demo    gives every peer another kind of backend

Everything stays on loopback and below one folder of the cache directory, which is removed at the end.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from clients import Clients
from mixed import MIXED
from palm_cluster import Pool, eventually, palm
from samples import MIB, sha256_of

POLICY = "3-of-5"
BUCKET = "demo"
TREE_FILES = 3000
TREE_FILE_MAX = MIB
TREE_SOURCES = ["/usr/include", "/usr/share/doc", "/usr/lib/python3", "/usr/share/zoneinfo", "/usr/share", "/usr/lib", "/Library"]
LARGE_MIN = 100 * MIB
LARGE_MAX = 300 * MIB
LARGE_WANTED = 2
SETTLE_TIMEOUT_S = 300
LARGE_SOURCES = ["~/.rustup/toolchains", "/usr/lib", "/usr/local", "/opt"]


@dataclasses.dataclass
class Row:
    what: str
    count: int
    size: int
    seconds: float
    verdict: str


class Demo:
    """Does one step after the other and keeps the table."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.pool = Pool(root / "peers", "demo")
        if on("MIXED"):
            self.pool.mixed = MIXED
        self.rows: list[Row] = []

    def step(self, what: str, count: int, size: int, action: Callable[[], str]) -> None:
        """Runs `action`, which returns its verdict, and notes how long it took. A step that fails is a row, and the demo goes on."""
        print(f"  … {what}", flush=True)
        started = time.monotonic()
        try:
            verdict = action()
        except Exception as failure:  # whatever it was, the table must tell
            print(f"    {failure}", file=sys.stderr)
            verdict = "FAILED"
        self.rows.append(Row(what, count, size, time.monotonic() - started, verdict))

    def clients(self, number: int) -> Clients:
        """The clients at peer `number`, counted from 1 as the peers are named."""
        peer = self.pool.peers[number - 1]
        return Clients(peer.endpoint, self.pool.access_key, self.pool.secret_key, self.root / "home")

    # -- the steps

    def form(self) -> str:
        """The first peer makes the pool; the others find it by mDNS, by its name alone, and join with a token."""
        founder = self.pool.create("--policy", POLICY)
        for _ in range(4):
            found = eventually(self.discover, 30, "the pool is discovered")
            joiner = self.pool.new_peer()
            joiner.spawn_join(found["id"], found["address"], founder.invite())
            joiner.wait_ready()
        self.pool.wait_settled()
        return "ok"

    def discover(self) -> dict | None:
        pools = palm("discover-pools", "--timeout", "3")["pools"]
        return next((pool for pool in pools if pool["id"] == self.pool.id), None)

    def kill(self, *numbers: int) -> str:
        for number in numbers:
            self.pool.peers[number - 1].kill()
        return "ok"

    def settle(self) -> str:
        """A write is answered when any one disk more may go; that two may takes until the slowest home has its fragment too."""
        self.pool.peers[2].ask("repair", timeout_s=SETTLE_TIMEOUT_S)
        *lesser, _ = (tally["objects"] for tally in self.pool.peers[2].status()["health"]["objects"])
        return "FAILED" if any(lesser) else "ok"

    def bring_back(self, number: int, members: int) -> str:
        self.pool.peers[number - 1].start()
        self.pool.wait_live(members)
        return "ok"

    def put_file(self, number: int, file: pathlib.Path) -> str:
        self.clients(number).aws("s3", "cp", file, f"s3://{BUCKET}/large/{file.name}", "--only-show-errors")
        return "ok"

    def put_tree(self, number: int, tree: pathlib.Path, name: str) -> str:
        self.clients(number).rclone("sync", tree, f"palm:{BUCKET}/{name}", "--transfers", "16", "--checkers", "16")
        return "ok"

    def compare_file(self, number: int, file: pathlib.Path) -> str:
        with self.scratch() as folder:
            back = folder / "back"
            self.clients(number).aws("s3", "cp", f"s3://{BUCKET}/large/{file.name}", back, "--only-show-errors")
            return "identical" if sha256_of(back) == sha256_of(file) else "DIFFERENT"

    def compare_tree(self, number: int, tree: pathlib.Path, name: str) -> str:
        with self.scratch() as folder:
            back = folder / "back"
            self.clients(number).rclone("sync", f"palm:{BUCKET}/{name}", back, "--transfers", "16", "--checkers", "16")
            return "identical" if hashes(back) == hashes(tree) else "DIFFERENT"

    @contextlib.contextmanager
    def scratch(self) -> Iterator[pathlib.Path]:
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            yield pathlib.Path(folder)

    def run(self) -> None:
        print("Looking for real files on this machine")
        tree = copy_tree(self.root / "tree")
        tree_count, tree_size = measure(tree)
        larges = find_large(self.root)
        for file in larges:
            print(f"  large file: {file} ({file.stat().st_size / MIB:.0f} MiB)")
        print(f"  tree: {tree_count} files, {tree_size / MIB:.1f} MiB\nRunning")

        self.step("five peers form a pool, found by mDNS", 5, 0, self.form)
        if self.rows[-1].verdict != "ok":
            return
        self.step("aws s3 mb, at peer 1", 1, 0, lambda: self.clients(1).aws("s3", "mb", f"s3://{BUCKET}") and "ok")
        for file in larges:
            self.step(f"aws s3 cp {file.name} (multipart), at peer 1", 1, file.stat().st_size, lambda file=file: self.put_file(1, file))
        self.step("rclone sync of the tree, at peer 2", tree_count, tree_size, lambda: self.put_tree(2, tree, "tree"))
        self.step("all objects at full redundancy, as counted by all peers", tree_count + len(larges), 0, self.settle)
        self.step("SIGKILL of peers 1 and 2, which took the uploads", 2, 0, lambda: self.kill(1, 2))
        for file in larges:
            self.step(f"aws s3 cp {file.name} back, at peer 5", 1, file.stat().st_size, lambda file=file: self.compare_file(5, file))
        self.step("rclone sync back, at peer 4", tree_count, tree_size, lambda: self.compare_tree(4, tree, "tree"))
        self.step("peer 2 comes back", 1, 0, lambda: self.bring_back(2, 4))
        self.step("rclone sync with one peer down, at peer 3", tree_count, tree_size, lambda: self.put_tree(3, tree, "again"))
        self.step("peer 1 comes back", 1, 0, lambda: self.bring_back(1, 5))
        self.step("what was written without it, read at peer 1", tree_count, tree_size, lambda: self.compare_tree(1, tree, "again"))
        for file in larges[:1]:
            self.step(f"aws s3 cp {file.name} back, at peer 2", 1, file.stat().st_size, lambda file=file: self.compare_file(2, file))

    @property
    def ok(self) -> bool:
        return bool(self.rows) and all(row.verdict in ("ok", "identical") for row in self.rows)

    def table(self) -> str:
        width = max(len(row.what) for row in self.rows)
        lines = [f"{'what':<{width}} {'count':>6} {'MB':>9} {'seconds':>8} {'MB/s':>7}  verdict"]
        for row in self.rows:
            size, rate = (f"{row.size / 1e6:.1f}", f"{row.size / 1e6 / row.seconds:.1f}") if row.size else ("", "")
            lines.append(f"{row.what:<{width}} {row.count:>6} {size:>9} {row.seconds:>8.1f} {rate:>7}  {row.verdict}")
        return "\n".join(lines)

    def how_to_use(self) -> str:
        first = self.pool.peers[0]
        pids = " ".join(str(peer.process.pid) for peer in self.pool.up)
        return "\n".join([
            "The pool is up. Any of its peers will do:", *(f"  {peer.name}  {peer.endpoint}" for peer in self.pool.up), "",
            f"  export AWS_ACCESS_KEY_ID={self.pool.access_key} AWS_SECRET_ACCESS_KEY={self.pool.secret_key} AWS_DEFAULT_REGION=us-east-1",
            f"  aws --endpoint-url {first.endpoint} s3 ls s3://{BUCKET}/ --recursive --summarize", "",
            f"Its files are in {self.root}; end it with: kill {pids}",
        ])


def on(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def copy_tree(target: pathlib.Path) -> pathlib.Path:
    """Some thousand small files of this machine, with their folders."""
    copied = 0
    for source in map(pathlib.Path, TREE_SOURCES):
        for folder, _, names in os.walk(source):
            for name in sorted(names):
                path = pathlib.Path(folder, name)
                if path.is_symlink() or not path.is_file() or path.stat().st_size > TREE_FILE_MAX or not os.access(path, os.R_OK):
                    continue
                to = target / path.relative_to("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
                copied += 1
                if copied == TREE_FILES:
                    return target
    return target


def find_large(root: pathlib.Path) -> list[pathlib.Path]:
    """Files of 100 MiB and more; where the machine has too few, real files joined into one."""
    found: dict[str, pathlib.Path] = {}
    for source in LARGE_SOURCES:
        for folder, _, names in os.walk(os.path.expanduser(source)):
            for name in names:
                path = pathlib.Path(folder, name)
                with contextlib.suppress(OSError):
                    if not path.is_symlink() and LARGE_MIN <= path.stat().st_size <= LARGE_MAX and os.access(path, os.R_OK):
                        found.setdefault(name, path)
                if len(found) == LARGE_WANTED:
                    return list(found.values())
    joined = root / "joined-from-real-files"
    with joined.open("wb") as out:
        for folder, _, names in os.walk("/usr"):
            for path in (pathlib.Path(folder, name) for name in names):
                if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, out)
                if out.tell() >= LARGE_MIN:
                    return [*found.values(), joined]
    return [*found.values(), joined]


def measure(tree: pathlib.Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in tree.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def hashes(tree: pathlib.Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file."""
    paths = sorted(path for path in tree.rglob("*") if path.is_file())
    with concurrent.futures.ThreadPoolExecutor(4) as workers:
        return dict(zip((str(path.relative_to(tree)) for path in paths), workers.map(sha256_of, paths), strict=True))


def main() -> int:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    cache.mkdir(parents=True, exist_ok=True)
    root = pathlib.Path(tempfile.mkdtemp(prefix="palm-demo-", dir=cache))
    keep = on("KEEP")
    demo = Demo(root)
    try:
        demo.run()
        print(f"\n{demo.table()}\n")
        print("Everything as it should be." if demo.ok else "Something went wrong, see above.")
        if not demo.ok:
            print(demo.pool.logs(), file=sys.stderr)
        if keep:
            print(f"\n{demo.how_to_use()}")
            demo.pool.leave_running()
    finally:
        if not keep:
            demo.pool.__exit__()
            shutil.rmtree(root, ignore_errors=True)
    return 0 if demo.ok else 1


if __name__ == "__main__":
    sys.exit(main())
