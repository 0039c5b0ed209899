"""Disks that are full, fail or are pulled out under a peer at work: it goes on, says so, and the pool heals."""

import itertools

import pytest

from contents import Contents
from disks import assert_all_verified, can_mount, count, loop_disk
from palm_cluster import QUICK, Peer, Pool, eventually
from samples import MIB

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(1800)]

needs_root = pytest.mark.skipif(not can_mount(), reason="needs root and loop devices for disks of its own")


def form(root, disks: list, options: str = "") -> tuple[Pool, Peer]:
    """Five peers, the last one with these disks. All have about the same room, or the last one would be given little."""
    pool = Pool(root, settings=QUICK)
    pool.disk_options = "?max_bytes=220MiB"
    pool.create("--policy", "2-of-4")
    for _ in range(3):
        pool.join()
    pool.join(disks=disks, options=options)
    pool.wait_settled()
    return pool, pool.peers[-1]


def assert_said(peer: Peer, *words: str) -> None:
    """Status at another peer too, the metrics and the log tell what is wrong with the peer's disk."""
    def told() -> bool:
        return all(any(word in ill for ill in other.status()["health"]["ills"] for word in words) for other in peer.pool.up)

    eventually(told, 60, f"status of every peer says one of {words}", every_s=0.5)
    assert any(word in line for line in peer.status()["words"] for word in words), peer.status()["words"]
    assert peer.metrics().get("palm_backend_ills", 0) > 0
    assert any(word in peer.log.read_text() for word in words)


@needs_root
def test_a_full_disk(tmp_path, rng):
    """Others fill the disk of one of five peers. Danger: refused writes while four peers have room; reads that fail; a database that cannot
    even delete. Expected: writes and reads go on at every peer, status says which disk is full, all objects are at full redundancy,
    deleting makes room, and with room the disk takes fragments again."""
    with loop_disk(tmp_path / "disk", 256 * MIB) as disk:
        pool, peer = form(tmp_path / "pool", [disk.path / "fragments"], "?reserve=32MiB")
        with pool:
            contents = Contents(pool, rng)
            contents.fill(40)
            disk.fill(leave=16 * MIB)
            contents.fill(40, (6 * MIB,), name="later")
            assert_said(peer, "full")
            contents.verify([peer])
            pool.wait_full(60, objects=len(contents.objects))
            contents.delete(rng.sample(sorted(contents.objects), 20))
            (disk.path / "of-others").unlink()
            before = peer.metrics()["palm_backend_fragments"]
            eventually(lambda: not any(other.status()["health"]["ills"] for other in pool.up), 60, "nothing is wrong any more", every_s=0.5)
            names = (f"with-room-{number}-" for number in itertools.count())

            def takes_fragments() -> bool:
                # The others hear of the room by gossip.
                contents.fill(10, name=next(names))
                return peer.metrics()["palm_backend_fragments"] > before

            eventually(takes_fragments, 60, "the disk takes fragments again", every_s=0.5)
            pool.wait_full(60, objects=len(contents.objects))
            pool.stop_all()
            assert_all_verified(count(pool.peers), "2-of-4")


@needs_root
def test_a_failing_disk(tmp_path, rng):
    """The only disk of a peer answers EIO to everything from one moment on. Danger: a peer that ends, hangs or answers errors although its pool
    has everything. Expected: it goes on as an S3 endpoint; status, metrics and log tell; its fragments are made again at others."""
    with loop_disk(tmp_path / "disk") as disk:
        pool, peer = form(tmp_path / "pool", [disk.path / "fragments"], "?reserve=1MiB")
        with pool:
            contents = Contents(pool, rng)
            contents.fill(60, (6 * MIB,))
            disk.fail()
            contents.verify([peer])
            contents.fill(20, name="later")
            assert_said(peer, "disk", "i/o", "failed")
            # A disk that fails writes may still give what it has: scrubbing finds what it does not.
            peer.ask("scrub", timeout_s=120)
            pool.wait_full(90, objects=len(contents.objects))
            contents.verify([peer])
            pool.assert_up()
            healthy = [other for other in pool.peers if other is not peer]
            pool.stop_all()
            assert_all_verified(count(healthy), "2-of-4")


def test_a_disk_pulled(tmp_path, rng):
    """A peer has two disks, and the directory of one is gone. Danger: the directory silently made anew and taken for an empty disk, on the
    disk below; or the peer down for one of two disks. Expected: status, metrics and log tell; fragments are made again on what is left,
    no two of a segment on one disk; started again it still serves, and has made no new directory."""
    pulled = tmp_path / "b"
    pool, peer = form(tmp_path / "pool", [tmp_path / "a", pulled])
    with pool:
        contents = Contents(pool, rng)
        contents.fill(60, (6 * MIB,))
        pulled.rename(tmp_path / "away")
        assert_said(peer, "not there")
        contents.verify([peer])
        contents.fill(20, name="later")
        pool.wait_full(90, objects=len(contents.objects))
        peer.stop()
        peer.start()
        pool.wait_live(5)
        assert not pulled.exists()
        contents.verify([peer])
        pool.wait_full(60, objects=len(contents.objects))
        pool.stop_all()
        peer.disks.remove(pulled)
        counted = count(pool.peers)
        assert_all_verified(counted, "2-of-4")
        assert counted["most_in_one_store"] == 1
