"""Fragments that rot, shrink and vanish under a pool at work: no client ever sees it, scrubbing finds all of it, repair mends it."""

import concurrent.futures
import threading

import pytest

from contents import Contents
from disks import assert_all_verified, count, harm_segments, harm_tables, segments_of
from palm_cluster import QUICK
from samples import MIB

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(3600)]


def test_every_harm_is_found_and_mended(new_pool, rng, rounds, tmp_path):
    """Five peers, 3-of-5; bits are turned in the tables of packed fragments at two peers while they are off; then, while clients read, bits are turned in,
    ends cut off and files removed from larger fragments at one or two homes of every segment. Danger: wrong bytes to a client; damage of parity, which no
    reader ever sees, left until it is too late; a repair that trusts what it reads. Expected: every GET right meanwhile
    and after; after `palm scrub` all fragments of all segments are verified on the disks."""
    pool = new_pool(5, "3-of-5", settings=QUICK)
    contents = Contents(pool, rng)
    contents.fill(rounds(120, 3000), (3 * MIB, 9 * MIB, 20 * MIB))
    pool.make_whole()
    pool.stop_all()
    segments = segments_of(pool.peers, tmp_path / "placements")
    pool.start_all()
    # In a second life the packed fragments are in tables, and what is read of them has not been read before.
    for peer in pool.peers[:2]:
        peer.stop()
        assert harm_tables(peer, rng)
        peer.start()
    pool.wait_live(5)

    ending = threading.Event()

    def read_on() -> int:
        turns = 0
        while not ending.is_set():
            contents.verify(keys=rng.sample(sorted(contents.objects), 20))
            turns += 1
        return turns

    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read_on)
        try:
            harmed = harm_segments(pool.peers, segments, rng)
            contents.verify()
            print(f"{harmed} files harmed")
            assert harmed > 30
            for peer in pool.peers:
                peer.ask("scrub", timeout_s=rounds(60, 1800))
            health = pool.wait_full(rounds(90, 1800))
        finally:
            ending.set()
        assert reading.result() > 0
    print(f"{pool.metric('palm_repaired_segments_total')} segments repaired, {health}")
    contents.verify()
    pool.stop_all()
    assert_all_verified(count(pool.peers), "3-of-5")
