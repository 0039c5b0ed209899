"""Listing a million keys. AWS: API_ListObjectsV2, userguide/optimizing-performance (a page is as quick at the end as at the start)."""

import http.client
import re
import statistics
import subprocess
import time

import pytest

from palm_cluster import HOST, eventually, tool
from samples import MIB
from sigv4 import EMPTY_SHA256, Credentials, Server

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(3600)]

PAGE_LIMIT_S = 0.050
MEMORY_LIMIT = 400 * MIB
# The objects have no fragments: nobody must look for them meanwhile.
SETTINGS = {"repair.every": "24h", "collection.every": "24h", "scrub.period": "365d"}
# Peers that were started count all objects once, and RocksDB tidies what was filled in; a million take about two minutes on two cores.
QUIET_TIMEOUT_S = 600


def pages(peer, query):
    """Every page of a listing at one peer, as its bytes and the seconds from the request's first byte to the answer's last."""
    server = Server(peer.endpoint, Credentials(peer.pool.access_key, peer.pool.secret_key))
    connection = http.client.HTTPConnection(HOST, peer.s3_port, timeout=60)
    token = []
    while True:
        request = server.request("GET", "/many", [("list-type", "2"), *query, *token])
        request = server.credentials.authorize(request, EMPTY_SHA256)
        begun = time.perf_counter()
        connection.request("GET", request.target, headers=request.headers)
        answer = connection.getresponse()
        body = answer.read()
        yield body, time.perf_counter() - begun
        assert answer.status == 200, body
        found = re.search(rb"<NextContinuationToken>([^<]+)<", body)
        if not found:
            return
        token = [("continuation-token", found[1].decode())]


def busy_seconds(pool):
    """How long all peers together kept a core busy in a second."""
    before = sum(peer.cpu_seconds() for peer in pool.peers)
    time.sleep(1)
    return sum(peer.cpu_seconds() for peer in pool.peers) - before


def await_quiet(pool, started):
    def counted():
        return all(peer.metrics()["palm_objects_counted_timestamp_seconds"] >= started for peer in pool.peers)

    eventually(counted, QUIET_TIMEOUT_S, "every peer has counted its share")
    eventually(lambda: busy_seconds(pool) < 0.2, QUIET_TIMEOUT_S, "peers that nobody asks are idle")


def test_a_million_keys(new_pool, rounds, request, capsys):
    """A million keys in 100,000 folders (without --long a fiftieth of both), walked flat and by folder at each of five peers, one page after
    the other. Danger: pages that read what they skip, memory that grows with the bucket. Expected: each name once and in order at every
    peer, and no peer above its memory. Of the times, which are printed, 99 of 100 must be within 50 ms with --long, on a machine that
    does nothing else."""
    keys, folders = rounds(20_000, 1_000_000), rounds(2_000, 100_000)
    pool = new_pool(5, settings=SETTINGS)
    pool.peers[0].client().create_bucket(Bucket="many")
    pool.stop_all()
    subprocess.run(
        [tool("fill_objects"), "--bucket", "many", "--keys", str(keys), "--folders", str(folders), *(peer.data for peer in pool.peers)],
        check=True, stdout=subprocess.DEVNULL,
    )
    started = int(time.time())
    pool.start_all()
    if request.config.getoption("--long"):
        await_quiet(pool, started)
    for what, query, pattern, count in [
        ("flat", [], rb"<Key>([^<]+)</Key>", keys),
        ("folders", [("delimiter", "/")], rb"<CommonPrefixes><Prefix>([^<]+)<", folders),
    ]:
        for peer in pool.peers:
            last, seen, took, used = b"", 0, [], -sum(each.cpu_seconds() for each in pool.peers)
            for body, seconds in pages(peer, query):
                names = re.findall(pattern, body)
                assert names == sorted(names) and (not names or last < names[0])
                last, seen = names[-1] if names else last, seen + len(names)
                took.append(seconds)
            assert seen == count
            took.sort()
            used += sum(each.cpu_seconds() for each in pool.peers)
            figures = {"p50": statistics.median(took), "p99": took[int(len(took) * 0.99)], "max": took[-1]}
            with capsys.disabled():
                times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in figures.items())
                figures_of = f"{times}, {1000 * used / len(took):.1f} ms of all peers' cores; at most {peer.peak_memory_bytes() // MIB} MiB resident"
                print(f"\n{what} at {peer.name}: {len(took)} pages, {figures_of}", end="")
            assert figures[rounds("p50", "p99")] < rounds(20, 1) * PAGE_LIMIT_S
            assert peer.peak_memory_bytes() < MEMORY_LIMIT
