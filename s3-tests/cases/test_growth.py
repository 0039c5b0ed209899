"""A pool that grows and shrinks: old objects become as safe as the pool is now, and a peer that drains ends empty."""

import pytest

from contents import Contents
from disks import assert_all_verified, count, flip, surplus
from palm_cluster import QUICK, eventually
from samples import MIB

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(3600)]


def test_grown_from_one_to_five_and_one_drained(new_pool, rng, rounds):
    """Objects are put into a pool of one (1-of-1); four more peers join; then one of the five drains. Danger: old objects for ever as fragile as
    the pool was when they were written; both codings kept; a drained peer that still is somebody's home, or that hands on fragments which have
    rotted on its disk under the name that their bytes have now. Expected: everything 3-of-5 and nothing besides; then the drained peer's backend is empty, and all objects are at full redundancy elsewhere."""
    pool = new_pool(1, settings=QUICK)
    contents = Contents(pool, rng)
    contents.fill(rounds(60, 2000), (5 * MIB, 18 * MIB))
    for _ in range(4):
        pool.join()
    pool.wait_settled()
    eventually(lambda: pool.metric("palm_backend_fragments") == 5 * contents.segments(), rounds(180, 1200), "five fragments of each segment", every_s=0.5)
    pool.wait_full(rounds(60, 600), objects=len(contents.objects))
    contents.verify()
    pool.stop_all()
    counted = count(pool.peers)
    assert_all_verified(counted, "3-of-5")
    assert surplus(counted) == 0 and counted["most_in_one_store"] == 1, counted

    drained = pool.peers[rng.randrange(5)]
    rotten = [path for path in (drained.disks[0] / "files").rglob("*") if path.is_file()][::3]
    for path in rotten:
        flip(path, rng)
    pool.start_all()
    drained.ask("drain", timeout_s=rounds(120, 1800))
    eventually(lambda: drained.metrics()["palm_backend_fragments"] == 0, rounds(90, 1200), "the drained peer keeps nothing", every_s=0.5)
    pool.wait_full(60, objects=len(contents.objects))
    contents.verify([drained])
    pool.stop_all()
    counted = count(pool.peers)
    assert_all_verified(counted)
    mine = [store for store in counted["stores"] if store["peer"] == drained.id]
    assert [store["fragments"] for store in mine] == [0]
    contents_of_disk = [path for disk in drained.disks for path in (disk / "files").rglob("*") if path.is_file()]
    assert not contents_of_disk
