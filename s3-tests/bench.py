"""`make bench`: first figures of a fresh five-peer pool on this machine, and what each peer took for it.

All five peers and the client share this machine's cores, so the figures are of the whole pool's work on them, not of one peer. Take them
on an otherwise quiet machine: the first line tells the load before the start.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile

from palm_cluster import Pool, palm_binary
from samples import MIB

# (what, arguments of s3-bench, expected at least)
RUNS = [
    ("PUT 64 MiB, 1 stream", "--op put --size 64MiB --clients 1 --duration 15", ""),
    ("PUT 64 MiB, 16 streams", "--op put --size 64MiB --clients 16 --duration 20", "120 MB/s"),
    ("GET 64 MiB, 1 stream", "--op get --size 64MiB --clients 1 --duration 15 --objects 8 --prefix large/", ""),
    ("GET 64 MiB, 16 streams", "--op get --size 64MiB --clients 16 --duration 20 --objects 8 --prefix large/ --reuse", "200 MB/s"),
    ("PUT 1 KiB, 64 clients", "--op put --size 1KiB --clients 64 --duration 15", "800/s"),
    ("GET 1 KiB, 64 clients", "--op get --size 1KiB --clients 64 --duration 15 --objects 2000 --prefix small/", "2,500/s"),
    ("HEAD, 64 clients", "--op head --size 1KiB --clients 64 --duration 10 --objects 2000 --prefix small/ --reuse", ""),
    ("mixed 64 KiB, 32 clients", "--op mixed --size 64KiB --clients 32 --duration 15 --objects 1000 --prefix mixed/", ""),
    ("LIST page, {keys:,} keys", "--op list --size 16 --clients 32 --count 100 --objects {keys} --prefix many/", ""),
]


def main() -> int:
    keys = int(os.environ.get("KEYS", "100000"))
    peers = int(os.environ.get("PEERS", "5"))
    bench = palm_binary().with_name("s3-bench")
    print(f"load average before the start: {os.getloadavg()[0]:.2f}; {os.cpu_count()} cores; {peers} peers", flush=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="palm-bench-", dir=palm_binary().parent) as root:
        with Pool.form(pathlib.Path(root), peers) as pool:
            endpoints = [part for peer in pool.peers for part in ("--endpoint", peer.endpoint)]
            environment = os.environ | {"AWS_ACCESS_KEY_ID": pool.access_key, "AWS_SECRET_ACCESS_KEY": pool.secret_key}
            for what, arguments, expected in RUNS:
                what, arguments = what.format(keys=keys), arguments.format(keys=keys)
                print(f"\n== {what}{f' (expected: at least {expected})' if expected else ''}\n$ s3-bench {arguments}", flush=True)
                done = subprocess.run([bench, *endpoints, *arguments.split()], env=environment, check=False)
                failed |= done.returncode != 0
            print("\n== most resident memory")
            for peer in pool.peers:
                print(f"{peer.name}: {peer.peak_memory_bytes() / MIB:.0f} MiB")
            pool.assert_up()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
