"""Pools whose peers keep their fragments in different ways, and programs of others that do not keep their word."""

import pytest

from contents import Contents
from mixed import FAULTY, MIXED
from palm_cluster import QUICK, Pool, eventually
from samples import MIB

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(600)]


def test_peers_of_all_kinds_make_one_pool(tmp_path, rng):
    """Five peers keep fragments on two disks, in RocksDB and a mounted directory, in a program's files, on a throttled disk and in memory; two of them are killed.
    Danger: a kind of backend that loses, changes or refuses what the others take. Expected: everything is read and written
    meanwhile, and they come back with all they had."""
    with Pool.form(tmp_path / "pool", 5, "3-of-5", settings=QUICK, mixed=MIXED) as pool:
        contents = Contents(pool, rng)
        contents.fill(20, (3 * MIB,))
        kinds = [backend["url"].partition(":")[0] for peer in pool.peers for backend in peer.ask("backend list")["backends"]]
        assert sorted(kinds) == ["disk", "disk", "disk", "exec", "memory", "opendal+fs", "rocksdb"]
        for peer in pool.peers:
            assert all(backend["fragments"] > 0 for backend in peer.ask("backend list")["backends"]), peer.name
        pool.make_whole()
        for killed in pool.peers[:2]:
            killed.kill()
        contents.verify()
        contents.fill(10, name="meanwhile")
        for killed in pool.peers[:2]:
            killed.start()
        pool.wait_live(5)
        pool.wait_full(90, objects=len(contents.objects))
        contents.verify(pool.peers[:2])


@pytest.mark.parametrize("fault", ["lie", "hang", "die", "babble"])
def test_a_faulty_program_harms_only_its_own_fragments(tmp_path, rng, fault):
    """The backend program of one of four peers flips bits, hangs, dies or answers nonsense, under load. Danger: wrong bytes for a client; reads and
    writes that wait for it, or fail though three good homes are there; a peer that ends. Expected: all is read right and written at every
    peer, the faulty one too, and once the program works again all objects are at full redundancy."""
    file = tmp_path / "fault"
    mixed = ["disk://{dir}/a", "disk://{dir}/a", "disk://{dir}/a", f"exec://{FAULTY}?dir={{dir}}/plugin&max_bytes=100000000000&fault={file}"]
    with Pool.form(tmp_path / "pool", 4, "2-of-4", settings=QUICK, mixed=mixed) as pool:
        contents = Contents(pool, rng)
        contents.fill(10, (3 * MIB,))
        assert pool.peers[-1].ask("backend list")["backends"][0]["fragments"] > 0
        file.write_text(fault)
        contents.verify([pool.peers[-1]])
        contents.fill(4, name="meanwhile")
        contents.verify()
        pool.assert_up()
        file.write_text("")
        eventually(lambda: not pool.peers[-1].ask("backend list")["backends"][0]["ill"], 120, "the program is trusted again", every_s=0.5)
        pool.wait_full(90, objects=len(contents.objects))
