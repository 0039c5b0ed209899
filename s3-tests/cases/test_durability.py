"""What is on the disks: acknowledged means kept (promise 4), one disk says nothing (promise 3), fragments are plain files (promise 7)."""

import concurrent.futures
import contextlib
import os
import re

import pytest
from blake3 import blake3
from botocore.exceptions import BotoCoreError, ClientError

import samples
from palm_cluster import Peer, eventually
from samples import KIB, MIB

pytestmark = pytest.mark.own_pool

RUN_BYTES = 64
HEX_BLAKE3 = re.compile(r"[0-9a-f]{64}")


def test_kill_all_during_small_puts(new_pool, rounds):
    """200 small PUTs by eight clients; in their midst every peer is killed at once (SIGKILL). Danger: an acknowledgement before the data
    and its record were durable. Expected: after a restart every acknowledged object is there, whole, at each peer."""
    pool = new_pool(5, "3-of-5")
    for turn in range(rounds(2, 20)):
        bucket = f"crash-{turn}"
        pool.peers[0].client().create_bucket(Bucket=bucket)
        clients = [peer.client(read_timeout=10) for peer in pool.peers]
        acknowledged: dict[str, bytes] = {}
        kill_after = 60 + 20 * (turn % 5)

        def put(number: int, bucket=bucket, clients=clients, acknowledged=acknowledged) -> None:
            key, data = f"key-{number:03}", samples.blob(1 + number * 61 % 9000, f"{bucket}/{number}")
            try:
                clients[number % 5].put_object(Bucket=bucket, Key=key, Body=data)
                acknowledged[key] = data
            except (ClientError, BotoCoreError):
                pass

        with concurrent.futures.ThreadPoolExecutor(8) as workers:
            running = [workers.submit(put, number) for number in range(200)]
            while len(acknowledged) < kill_after and not all(one.done() for one in running):
                concurrent.futures.wait(running, timeout=0.01)
            for peer in pool.peers:
                peer.process.kill()
        for peer in pool.peers:
            peer.kill()
        assert len(acknowledged) >= kill_after
        pool.start_all()
        for peer in pool.peers:
            client = peer.client()
            for key, data in acknowledged.items():
                got = client.get_object(Bucket=bucket, Key=key)["Body"].read()
                assert got == data, f"turn {turn}: {key} at {peer.name}"
            listed = {entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]}
            assert acknowledged.keys() <= listed


def test_everything_survives_an_orderly_end(new_pool):
    """All peers are stopped by SIGTERM and started again. Expected: exit code 0 from each, the same objects, buckets and keys after."""
    pool = new_pool(3)
    client = pool.peers[0].client()
    client.create_bucket(Bucket="orderly")
    objects = {f"k{number}": samples.blob(number * 90_000, number) for number in range(10)}
    for key, data in objects.items():
        client.put_object(Bucket="orderly", Key=key, Body=data, Metadata={"key": key})
    for peer in pool.peers:
        peer.stop()
    pool.start_all()
    for peer in pool.peers:
        for key, data in objects.items():
            answer = peer.client().get_object(Bucket="orderly", Key=key)
            assert (answer["Body"].read(), answer["Metadata"]) == (data, {"key": key})


@pytest.fixture
def stored_text(new_pool):
    """Five peers that store texts of all size classes; gives (pool, texts)."""
    pool = new_pool(5, "3-of-5")
    client = pool.peers[0].client()
    client.create_bucket(Bucket="private")
    texts = [samples.text(size, size) for size in (100, 3000, 60 * KIB, 300 * KIB, 5 * MIB, 70 * MIB)]
    for number, text in enumerate(texts):
        client.put_object(Bucket="private", Key=f"text-{number}", Body=text, Metadata={"n": str(number)})
    pool.make_whole()
    return pool, texts


def test_one_disk_says_nothing(stored_text):
    """Everything on each peer's disk, files, index, log and all, is searched for pieces of the uploaded texts. Danger: a temporary file, an
    inlined small object or a systematic shard that holds plaintext. Expected: no 64-byte run of any text, anywhere."""
    pool, texts = stored_text
    for peer in pool.peers:
        peer.stop()
    # Every 64-byte window of the disk is too many to look up; every aligned 32-byte word of a text is inside any 64-byte run of it.
    words = {text[start : start + RUN_BYTES // 2] for text in texts for start in range(0, len(text) - RUN_BYTES // 2, RUN_BYTES // 2)}
    for peer in pool.peers:
        for path in [*peer.files(), peer.log]:
            found = first_known_word(path.read_bytes(), words)
            assert found is None, f"{path} holds {found!r}"


def first_known_word(data: bytes, words: set[bytes]) -> bytes | None:
    """The first 32-byte word of the texts in `data`, at any offset. Texts are lines of hex and words, so only printable stretches can hold one."""
    size = RUN_BYTES // 2
    for stretch in re.finditer(rb"[\n -~]{%d,}" % size, data):
        run = stretch.group()
        for start in range(len(run) - size + 1):
            if run[start : start + size] in words:
                return run[start : start + size]
    return None


def test_the_search_can_find(tmp_path):
    """The test above must be able to fail: a planted text is found at an odd offset, random bytes are not."""
    text = samples.text(3000)
    words = {text[start : start + 32] for start in range(0, len(text) - 32, 32)}
    assert first_known_word(os.urandom(777) + text[101 : 101 + RUN_BYTES] + os.urandom(50), words)
    assert first_known_word(os.urandom(1_000_000), words) is None


def test_a_fragments_name_is_its_hash(stored_text):
    """Large fragments are plain files named by their BLAKE3, so `b3sum` checks a disk without PALM. Expected: every such file on every
    peer agrees, and each peer has some."""
    pool, _ = stored_text
    for peer in pool.peers:
        named = [path for path in peer.files() if HEX_BLAKE3.fullmatch(path.name)]
        assert named, f"{peer.name} has no fragment files"
        for path in named:
            assert blake3(path.read_bytes()).hexdigest() == path.name


def fragment_bytes(peer: Peer) -> int:
    """Bytes in fragment files; a file may go while it is looked at."""
    total = 0
    for path in peer.files():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if HEX_BLAKE3.fullmatch(path.name) else 0
    return total


def test_five_homes_none_with_everything(stored_text):
    """3-of-5: each peer keeps about a third of the data. Danger: whole copies, or all fragments in one place."""
    pool, texts = stored_text
    total = sum(map(len, texts))
    for peer in pool.peers:
        kept = fragment_bytes(peer)
        assert 0.25 * total < kept < 0.45 * total, f"{peer.name} keeps {kept} of {total}"


def test_failed_uploads_leave_no_fragments(new_pool):
    """Uploads whose checksum is wrong at the end. Danger: a disk that fills with what no object names. Expected: their fragments are
    gone within seconds: the peer that refused the upload knows that nothing will ever name them."""
    pool = new_pool(3)
    client = pool.peers[0].client()
    client.create_bucket(Bucket="tidy")
    for number in range(5):
        with pytest.raises(ClientError):
            client.put_object(Bucket="tidy", Key="k", Body=samples.blob(3 * MIB, number), ChecksumCRC32="AAAAAA==")
    for peer in pool.peers:
        eventually(lambda peer=peer: fragment_bytes(peer) == 0, 30, f"{peer.name} keeps no fragments")
