"""Errors of a pool in need: too busy, too few, full. AWS: API/ErrorResponses (SlowDown, ServiceUnavailable), userguide/optimizing-performance."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest

import samples
import sigv4
from palm_cluster import Pool, eventually
from samples import MIB

pytestmark = pytest.mark.own_pool

# More streams than a peer holds in memory at once (256 MiB, 8 MiB each).
STREAMS = 40


def server_of(peer) -> sigv4.Server:
    return sigv4.Server(peer.endpoint, sigv4.Credentials(peer.pool.access_key, peer.pool.secret_key))


def assert_refused(answer: sigv4.Answer, status: int, code: str) -> None:
    """Status, code and XML, and for 503 when to come again."""
    assert (answer.status, answer.code) == (status, code), str(answer)
    assert ElementTree.fromstring(answer.body).findtext("RequestId") == answer.headers["x-amz-request-id"]
    assert status != 503 or int(answer.headers["retry-after"]) > 0


def test_slow_down(new_pool):
    """Forty uploads that stand still after their second MiB, as of a train in a tunnel. Danger: a peer that buffers for all until it is
    killed for its memory, or lets the next wait for ever. Expected: SlowDown with Retry-After within seconds, and service when they are gone."""
    pool = new_pool(1)
    server, connections = server_of(pool.peers[0]), []
    assert server.signed("PUT", "/busy").status == 200
    try:
        for number in range(STREAMS):
            request = server.credentials.authorize(server.request("PUT", f"/busy/{number}"), sigv4.UNSIGNED)
            connection = server.connect()
            connections.append(connection)
            connection.sendall(dataclasses.replace(request, headers=request.headers | {"content-length": str(64 * MIB)}).head())
            connection.settimeout(5)
            try:
                connection.sendall(samples.blob(2 * MIB + 1))
            except OSError:
                break  # the peer takes no more
        # What the kernel took for the peer is not yet with the peer.
        full = lambda: (answer := server.signed("PUT", "/busy/k", b"x")).status != 200 and answer
        assert_refused(eventually(full, 15, "the peer takes no more"), 503, "SlowDown")
    finally:
        for connection in connections:
            connection.close()
    eventually(lambda: server.signed("PUT", "/busy/k", b"x").status == 200, 30, "served again")


def test_service_unavailable(new_pool):
    """Two of three peers are killed. Expected: ServiceUnavailable with Retry-After for reads and writes; never 404."""
    pool = new_pool(3)
    server = server_of(pool.peers[0])
    assert server.signed("PUT", "/away").status == 200
    assert server.signed("PUT", "/away/k", b"x").status == 200
    for peer in pool.peers[1:]:
        peer.kill()
    for method, path, body in [("GET", "/away/k", b""), ("GET", "/away/missing", b""), ("GET", "/away", b""), ("PUT", "/away/new", b"x"), ("GET", "/", b"")]:
        assert_refused(server.signed(method, path, body), 503, "ServiceUnavailable")


def test_insufficient_storage(tmp_path):
    """A pool whose one disk may hold 64 MiB. Expected: InsufficientStorage for what does not fit; reads and deletes go on."""
    with Pool(tmp_path / "pool") as pool:
        pool.disk_options = "?max_bytes=64MiB"
        pool.create()
        server = server_of(pool.peers[0])
        assert server.signed("PUT", "/full").status == 200
        for number in range(100):
            answer = server.signed("PUT", f"/full/{number}", samples.blob(4 * MIB, number))
            if answer.status != 200:
                break
        assert number > 2
        assert_refused(answer, 507, "InsufficientStorage")
        assert server.signed("GET", "/full/0").body == samples.blob(4 * MIB, 0)
        assert server.signed("DELETE", "/full/1").status == 204
