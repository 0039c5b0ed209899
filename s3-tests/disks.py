"""The disks of peers, behind PALM's back: counted by `count_fragments`, damaged byte by byte, filled up and made to fail."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import random
import struct
import subprocess
from collections.abc import Iterable, Iterator

from palm_cluster import Peer, tool
from samples import KIB, MIB

COUNT_TIMEOUT_S = 600
# Larger fragments are plain files, others are packed in RocksDB (docs/format.md).
PACKED_BELOW = 64 * KIB
# From <linux/ext4.h>: EXT4_IOC_SHUTDOWN, and its flag that forgets the log, as power loss would.
EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


def count(peers: Iterable[Peer], placements: pathlib.Path | None = None) -> dict:
    """What is on the disks of these peers, which must not run. See `count_fragments.rs` for the fields."""
    given = [f"{peer.id}={','.join(map(str, [peer.data, *peer.disks]))}" for peer in peers]
    options = ["--placements", placements] if placements else []
    done = subprocess.run(
        [tool("count_fragments"), *options, *given], capture_output=True, text=True, timeout=COUNT_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"count_fragments: {done.stderr}"
    return json.loads(done.stdout)


def assert_all_verified(counted: dict, policy: str | None = None) -> None:
    """Every segment has all its n fragments where they should be, read, hashed and of one code; under this policy, if one is given."""
    lacking = {
        of: {found: tally["segments"] for found, tally in by_found.items()}
        for of, by_found in counted["verified"].items() if by_found.keys() != {of.partition("-of-")[2]}
    }
    assert not lacking and not counted["wrong_total"], f"{lacking} {counted['wrong_total']} wrong: {counted['wrong'][:10]}"
    assert not counted["incoherent"]
    assert policy is None or counted["verified"].keys() == {policy}, {of: sum(t["segments"] for t in by.values()) for of, by in counted["verified"].items()}


def surplus(counted: dict) -> int:
    """Fragments that no segment has where they are."""
    return sum(store["surplus_fragments"] for store in counted["stores"])


def segments_of(peers: Iterable[Peer], scratch: pathlib.Path) -> list[dict]:
    """Every segment as it is placed: `{"id", "k", "n", "fragments": [{"home", "id"}]}`. The peers must not run."""
    count(peers, scratch)
    return [json.loads(line) for line in scratch.read_text().splitlines()]


def fragment_file(peer: Peer, fragment: str) -> pathlib.Path | None:
    """The file of a fragment at a peer; None where it is packed."""
    paths = (disk / "files" / fragment[:2] / fragment for disk in peer.disks)
    return next((path for path in paths if path.exists()), None)


# -- damage


def flip(path: pathlib.Path, rng: random.Random) -> None:
    """Turns one bit."""
    with path.open("r+b") as file:
        at = rng.randrange(path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def cut(path: pathlib.Path, rng: random.Random) -> None:
    """Loses its end, or all of it."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def remove(path: pathlib.Path, _rng: random.Random) -> None:
    path.unlink()


HARMS = [flip, cut, remove]


def harm_segments(peers: Iterable[Peer], segments: list[dict], rng: random.Random, share: float = 1.0) -> int:
    """Damages fragments that are files at one to n-k random homes of a `share` of the segments; how many."""
    by_id, done = {peer.id: peer for peer in peers}, 0
    for segment in segments:
        if segment["n"] == segment["k"] or rng.random() >= share:
            continue
        for fragment in rng.sample(segment["fragments"], rng.randint(1, segment["n"] - segment["k"])):
            if path := fragment_file(by_id[fragment["home"]], fragment["id"]):
                rng.choice(HARMS)(path, rng)
                done += 1
    return done


def harm_tables(peer: Peer, rng: random.Random, bits: int = 20) -> int:
    """Turns bits in the tables where a peer's packed fragments are; how many. A peer that has run twice has written its log there."""
    tables = sorted((path for disk in peer.disks for path in (disk / "packed").glob("*.sst")), key=lambda path: path.stat().st_size)
    if not tables or tables[-1].stat().st_size < PACKED_BELOW:
        return 0
    with tables[-1].open("r+b") as file:
        for _ in range(bits):
            # The values come first in a table; behind them is what is needed to find any of them.
            at = rng.randrange(int(tables[-1].stat().st_size * 0.9))
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << rng.randrange(8)]))
    return bits


# -- small disks of one's own, for root


def can_mount() -> bool:
    """Whether this process may mount an ext4 file system from a file."""
    return os.geteuid() == 0 and os.path.exists("/dev/loop-control")


class LoopDisk:
    """A disk of its own: an ext4 file system in a file, mounted below `root`. It can fail."""

    def __init__(self, root: pathlib.Path, size: int):
        self.path = root / "mounted"
        self.path.mkdir(parents=True)
        image = root / "image"
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self.path], check=True)

    def fail(self) -> None:
        """From now on everything asked of it ends with EIO."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(folder)

    def fill(self, leave: int = 0) -> None:
        """Writes a file of others until only `leave` bytes are free."""
        room = os.statvfs(self.path)
        subprocess.run(["fallocate", "-l", str(max(0, room.f_bavail * room.f_frsize - leave)), self.path / "of-others"], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=False)


@contextlib.contextmanager
def loop_disk(root: pathlib.Path, size: int = 256 * MIB) -> Iterator[LoopDisk]:
    """A disk for the length of a test."""
    disk = LoopDisk(root, size)
    try:
        yield disk
    finally:
        disk.unmount()
