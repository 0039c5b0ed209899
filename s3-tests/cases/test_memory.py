"""Objects far larger than memory would like. AWS: userguide/qfacts (5 GiB per PUT, 5 TiB per object)."""

import hashlib
import subprocess

import pytest

import samples
from clients import BIN, Clients
from samples import GIB, MIB

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(3600)]

MEMORY_LIMIT = 400 * MIB


@pytest.fixture
def pool_and_clients(new_pool, tmp_path):
    pool = new_pool(5, "3-of-5")
    pool.peers[0].client().create_bucket(Bucket="large")
    return pool, [Clients(peer.endpoint, pool.access_key, pool.secret_key, tmp_path / peer.name) for peer in pool.peers]


def assert_memory_within(pool):
    for peer in pool.peers:
        assert peer.peak_memory_bytes() < MEMORY_LIMIT, f"{peer.name} had {peer.peak_memory_bytes() // MIB} MiB resident"


def hash_of_download(clients: Clients, url: str) -> str:
    """SHA-256 of what aws-cli streams to its stdout: nothing is kept on disk."""
    digest = hashlib.sha256()
    command = [BIN / "aws", "--endpoint-url", clients.endpoint, "s3", "cp", url, "-"]
    with subprocess.Popen(command, env=clients.environment, stdout=subprocess.PIPE) as reader:
        while chunk := reader.stdout.read(MIB):
            digest.update(chunk)
    assert reader.returncode == 0
    return digest.hexdigest()


@pytest.mark.parametrize("size", [pytest.param(256 * MIB, id="256MiB"), pytest.param(2 * GIB, id="2GiB", marks=pytest.mark.long)])
def test_a_large_file_in_parts(pool_and_clients, tmp_path, size):
    """A file goes up by aws-cli in parallel parts and comes back at another peer. Danger: memory that grows with the object.
    Expected: the same SHA-256, no peer ever above 400 MiB."""
    pool, clients = pool_and_clients
    file = tmp_path / "file"
    digest = samples.write_file(file, size, "parts")
    clients[0].aws("s3", "cp", file, "s3://large/parts", "--only-show-errors")
    file.unlink()
    assert hash_of_download(clients[1], "s3://large/parts") == digest
    assert_memory_within(pool)


@pytest.mark.parametrize("size", [pytest.param(300 * MIB, id="300MiB"), pytest.param(5 * GIB, id="5GiB", marks=pytest.mark.long)])
def test_a_stream_of_unknown_length(pool_and_clients, size):
    """`aws s3 cp -`: a pipe of a length that aws-cli is told only roughly. Expected: the same SHA-256, memory within bounds."""
    pool, clients = pool_and_clients
    digest = hashlib.sha256()
    command = [BIN / "aws", "--endpoint-url", clients[2].endpoint, "s3", "cp", "-", "s3://large/stream", "--expected-size", str(size)]
    with subprocess.Popen(command, env=clients[2].environment, stdin=subprocess.PIPE) as writer:
        for offset in range(0, size, samples.CHUNK_BYTES):
            chunk = samples.blob(min(samples.CHUNK_BYTES, size - offset), f"stream/{offset}")
            digest.update(chunk)
            writer.stdin.write(chunk)
    assert writer.returncode == 0
    assert hash_of_download(clients[3], "s3://large/stream") == digest.hexdigest()
    assert_memory_within(pool)


@pytest.mark.parametrize("size", [pytest.param(200 * MIB, id="200MiB"), pytest.param(5 * GIB - 1, id="5GiB", marks=pytest.mark.long)])
def test_one_put_of_the_largest_size(pool_and_clients, tmp_path, size):
    """A single PUT, no parts. Expected: the same as above."""
    pool, clients = pool_and_clients
    file = tmp_path / "file"
    digest = samples.write_file(file, size, "single")
    with file.open("rb") as body:
        pool.peers[0].client(read_timeout=600).put_object(Bucket="large", Key="single", Body=body)
    file.unlink()
    assert hash_of_download(clients[4], "s3://large/single") == digest
    assert_memory_within(pool)


def test_many_large_transfers_at_once(pool_and_clients, rounds):
    """Sixteen clients put and get 16 MiB objects at once through one peer. Expected: memory within bounds: the sum of buffers is bounded,
    not each alone."""
    import concurrent.futures

    pool, _ = pool_and_clients
    client, data = pool.peers[0].client(), samples.blob(16 * MIB, "many")

    def transfer(number: int) -> None:
        for turn in range(rounds(2, 20)):
            client.put_object(Bucket="large", Key=f"{number}/{turn}", Body=data)
            assert client.get_object(Bucket="large", Key=f"{number}/{turn}")["Body"].read() == data

    with concurrent.futures.ThreadPoolExecutor(16) as workers:
        list(workers.map(transfer, range(16)))
    assert_memory_within(pool)
