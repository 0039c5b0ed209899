"""What hobby and campus users ask for: members that only store or only serve, and a bound on what goes over the line."""

import datetime
import socket
import time

import pytest

import samples
from contents import Contents
from palm_cluster import HOST, QUICK, Pool, eventually
from samples import MIB

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(600)]


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def join_as(pool: Pool, **environment: str):
    peer = pool.new_peer()
    peer.environment |= environment
    peer.spawn_join(pool.id, pool.peers[0].quic_address, pool.peers[0].invite())
    return peer.wait_ready()


def test_storage_only_and_gateway_only_members(tmp_path, rng):
    """Of five peers one only stores and one only serves. Danger: a gateway that is chosen as a home, or for which the pool keeps objects thinner
    than it could; a storage peer that clients reach. Then a peer with fragments becomes a gateway. Expected: the gateway serves everything
    and keeps nothing, the other has no S3 endpoint and keeps its share, and what the turned one had is at others at full redundancy."""
    with Pool(tmp_path / "pool", settings=QUICK) as pool:
        pool.create()
        pool.join()
        pool.join()
        storage = join_as(pool, PALM_S3__ENABLED="false")
        gateway = join_as(pool, PALM_BACKEND__ENABLED="false")
        pool.wait_settled()
        contents = Contents(pool, rng)
        serving = [peer for peer in pool.peers if peer is not storage]
        contents.put_at(serving)
        contents.fill(24, (3 * MIB,))
        contents.verify([gateway])
        assert storage.ready["s3"] == "" and not is_listening(storage.s3_port)
        assert storage.status()["fragments_here"] > 0
        assert gateway.status()["fragments_here"] == 0 and not (gateway.data / "fragments").exists()
        assert gateway.ask("backend list")["backends"] == []
        assert [member["name"] for member in storage.members() if member["gateway"]] == [gateway.name]
        assert pool.peers[0].status()["policy"].startswith("3-of-4"), "four of the five keep fragments"
        pool.wait_full(90, objects=len(contents.objects))

        turned = pool.peers[1]
        turned.stop()
        turned.environment["PALM_BACKEND__ENABLED"] = "false"
        turned.start()
        eventually(lambda: turned.status()["fragments_here"] == 0, 120, "what it had is elsewhere", every_s=0.5)
        pool.wait_full(90, objects=len(contents.objects))
        contents.verify([turned])


def test_traffic_is_bounded_in_quiet_hours(tmp_path):
    """A peer's line may carry 1 MB a second at this time of day. Danger: a bound that counts nothing, or only one direction. Expected: what has to
    go to the other peer takes its time, and so does what has to come from it; what is here takes none."""
    now = datetime.datetime.now()  # quiet hours are by the machine's clock
    quiet = "-".join((now + datetime.timedelta(hours=hours)).strftime("%H:%M") for hours in (-2, 2))
    with Pool(tmp_path / "pool") as pool:
        pool.create("--policy", "2-of-2")
        slow = join_as(pool, PALM_TRAFFIC__BANDWIDTH="1GB", PALM_TRAFFIC__QUIET=quiet, PALM_TRAFFIC__QUIET_BANDWIDTH="1MB")
        pool.wait_settled()
        client, data = slow.client(), samples.blob(8 * MIB)
        client.create_bucket(Bucket="quiet")
        for action in (
            lambda: client.put_object(Bucket="quiet", Key="a", Body=data),
            lambda: client.get_object(Bucket="quiet", Key="a")["Body"].read() == data or pytest.fail("other bytes"),
        ):
            begun = time.monotonic()
            action()
            # Half of it, 4 MiB, is at the other peer.
            assert time.monotonic() - begun > 3
