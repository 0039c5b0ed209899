"""What another version of the program wrote or says: kept pools of earlier versions, and pools whose members are of two versions."""

import os
import pathlib

import pytest

import upgrade
from palm_cluster import Pool

pytestmark = pytest.mark.own_pool

KEPT = sorted(upgrade.FIXTURES.glob("pool-*.tar.xz"))


@pytest.mark.parametrize("kept", KEPT, ids=[path.name.removesuffix(".tar.xz") for path in KEPT])
def test_kept_pool(kept, tmp_path):
    """A pool that an earlier version wrote and stopped, with some of everything in it, starts with this one. Danger: a stored field read
    otherwise, or not at all: a lock that no longer holds, a key without its policy, an object whose key is not found. Expected: every peer
    tells all that was told then; an upload begun then is completed now; changes are taken. All of it again after another start."""
    pool, written = upgrade.restore(kept, tmp_path)
    with pool:
        pool.start_all()
        upgrade.check(pool, written)
        pool.stop_all()
        pool.start_all()
        upgrade.check(pool, written)
        upgrade.go_on(pool, written)


@pytest.mark.skipif(not os.environ.get("PALM_OLD_BIN"), reason="needs another version's binary: make test-mixed")
def test_mixed_versions(tmp_path):
    """A pool of the old version whose members are replaced by the new one, one after the other, as people upgrade, and the way back for one.
    Danger: messages that only one of the two understands, so that the pool has no majority or fragments no home until all are upgraded.
    Expected: after each step everything is told by every peer, of either version, and a write at each is read at all others."""
    old = pathlib.Path(os.environ["PALM_OLD_BIN"])
    with Pool(tmp_path / "pool", "mixed", upgrade.PATIENT) as pool:
        for number in range(upgrade.PEERS):
            peer = pool.new_peer()
            new, peer.binary = peer.binary, old
            if number == 0:
                peer.create_pool(pool.name)
                pool.id, pool.access_key, pool.secret_key = (peer.ready[name] for name in ("pool_id", "access_key", "secret_key"))
            else:
                peer.spawn_join(pool.id, pool.peers[0].quic_address, pool.peers[0].invite())
                peer.wait_ready()
        pool.wait_settled()
        written = upgrade.write(pool)
        written["read"] = upgrade.read(pool.peers[0].client())
        for peer, binary in [*((peer, new) for peer in pool.peers), (pool.peers[0], old)]:
            peer.stop()
            peer.binary = binary
            peer.start()
            pool.wait_settled()
            upgrade.check(pool, written)
            write_at_each(pool)
        upgrade.go_on(pool, written)


def write_at_each(pool: Pool) -> None:
    """One object from every peer, read at every other, and a listing of them."""
    clients = [peer.client() for peer in pool.peers]
    if "mixed" not in [bucket["Name"] for bucket in clients[0].list_buckets()["Buckets"]]:
        clients[0].create_bucket(Bucket="mixed")
    for writer, client in enumerate(clients):
        body = os.urandom(100_000)
        client.put_object(Bucket="mixed", Key=f"from-{writer}", Body=body)
        for reader in clients:
            assert reader.get_object(Bucket="mixed", Key=f"from-{writer}")["Body"].read() == body
            assert f"from-{writer}" in [entry["Key"] for entry in reader.list_objects_v2(Bucket="mixed")["Contents"]]
