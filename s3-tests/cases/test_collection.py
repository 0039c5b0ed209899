"""What is overwritten and deleted gives its room back, and nothing else goes, while peers are killed and paused.

Collection runs with graces of seconds here. What must be on the disks is computed from the objects that are left: each of n fragments holds
a k-th of every sealed stripe (src/core/src/code/shape.rs).
"""

from __future__ import annotations

import collections
import dataclasses
import random
import re
import signal
import subprocess
import threading
import time
import urllib.request

import pytest
from botocore.exceptions import BotoCoreError, ClientError

import samples
from palm_cluster import Peer, Pool, eventually
from samples import KIB, MIB

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(3600)]

BUCKET = "churn"
PEERS, K, N = 5, 3, 5
WORKERS, KEYS_EACH = 6, 25
SETTINGS = {
    "collection.grace": "1s", "collection.released": "1s", "collection.trash": "2s", "collection.every": "3s",
    "members.grace": "10s", "repair.every": "5s", "repair.settle": "5s",
}
STRIPE_BYTES = MIB
SEAL_BYTES = 48  # a tag of 16 and a tail of 32
MIN_SHARD_BYTES = 32
QUIET_S = 180
GONE = None


def shard_bytes(stripe_bytes: int) -> int:
    share = -(-(stripe_bytes + SEAL_BYTES) // K)
    return max(share + share % 2, MIN_SHARD_BYTES)


def stored_bytes(size: int) -> int:
    """Bytes of all fragments of an object of this size (at most one segment)."""
    whole, rest = divmod(size, STRIPE_BYTES)
    return N * (whole * shard_bytes(STRIPE_BYTES) + (shard_bytes(rest) if rest else 0))


def backend_bytes(peer: Peer) -> int:
    """Bytes of fragments that a peer says it keeps, over all its backends."""
    with urllib.request.urlopen(f"http://127.0.0.1:{peer.admin_port}/metrics", timeout=10) as answer:
        figures = re.findall(r"^palm_backend_bytes\{[^}]*\} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert figures, f"{peer.name} says nothing of its backends"
    return sum(int(float(figure)) for figure in figures)


def disk_bytes(peer: Peer) -> int:
    """What its data directory takes, as `du` has it."""
    done = subprocess.run(["du", "-sk", peer.data], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0]) * KIB


@dataclasses.dataclass
class Worker:
    """One client with keys of its own, so that it knows what each may hold: after a write of unknown outcome, more than one thing."""

    number: int
    pool: Pool
    rng: random.Random
    operations: int
    may_hold: dict[str, set] = dataclasses.field(default_factory=lambda: collections.defaultdict(lambda: {GONE}))
    outcomes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    error: BaseException | None = None

    def run(self) -> None:
        try:
            clients = [peer.client(read_timeout_s=20) for peer in self.pool.peers]
            for step in range(self.operations):
                self.operate(self.rng.choice(clients), step)
        except BaseException as error:
            self.error = error
            raise

    def operate(self, client, step: int) -> None:
        key = f"{self.number}/{self.rng.randrange(KEYS_EACH)}"
        kind = self.rng.choices(["put", "delete", "copy", "multipart"], [65, 20, 10, 5])[0]
        seed = f"{self.number}/{step}"
        size = self.rng.choice([100, 4 * KIB, 30 * KIB, 200 * KIB, 3 * MIB // 2])
        try:
            if kind == "put":
                self.may_hold[key].add((seed, size))
                client.put_object(Bucket=BUCKET, Key=key, Body=samples.blob(size, seed))
                self.may_hold[key] = {(seed, size)}
            elif kind == "delete":
                self.may_hold[key].add(GONE)
                client.delete_object(Bucket=BUCKET, Key=key)
                self.may_hold[key] = {GONE}
            elif kind == "copy":
                source = f"{self.number}/{self.rng.randrange(KEYS_EACH)}"
                held = set(self.may_hold[source])
                if source == key or GONE in held:
                    return
                self.may_hold[key] |= held
                client.copy_object(Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": source})
                self.may_hold[key] = held
            else:
                self.multipart(client, key, seed)
            self.outcomes[kind] += 1
        except (ClientError, BotoCoreError):
            self.outcomes["failed"] += 1

    def multipart(self, client, key: str, seed: str) -> None:
        """An upload in one part: completed, aborted, or left for the end of the test to abort."""
        upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        named = {"Bucket": BUCKET, "Key": key, "UploadId": upload}
        size = 100 * KIB
        part = client.upload_part(**named, PartNumber=1, Body=samples.blob(size, seed))
        fate = self.rng.random()
        if fate < 0.4:
            self.may_hold[key].add((seed, size))
            client.complete_multipart_upload(**named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
            self.may_hold[key] = {(seed, size)}
        elif fate < 0.8:
            client.abort_multipart_upload(**named)


class Nemesis(threading.Thread):
    """Kills and pauses one peer after the other."""

    def __init__(self, pool: Pool, rng: random.Random):
        super().__init__()
        self.pool, self.rng = pool, rng
        self.over = threading.Event()
        self.deeds = collections.Counter()

    def run(self) -> None:
        while not self.over.wait(self.rng.uniform(1, 4)):
            peer = self.rng.choice(self.pool.peers)
            if self.rng.random() < 0.5:
                peer.kill()
                # Some stay away for longer than the members' grace: their fragments are made again elsewhere.
                self.over.wait(self.rng.choice([0.5, 3, 15]))
                peer.start()
                self.deeds["kills"] += 1
            else:
                peer.process.send_signal(signal.SIGSTOP)
                self.over.wait(self.rng.choice([1, 4, 14]))
                peer.process.send_signal(signal.SIGCONT)
                self.deeds["pauses"] += 1

    def end(self) -> None:
        self.over.set()
        self.join()


def test_the_room_of_overwritten_and_deleted_objects_comes_back(new_pool, rng, rounds):
    """Six clients overwrite, delete, copy and upload in parts, 3,000 operations (50,000 with --long), while peers are killed and paused, some
    for so long that their fragments are made again elsewhere. Danger: fragments of a live object go with a dead one's; or what failed writes,
    lost hints and repairs left stays for ever. Expected: when all is quiet every object is bit-identical or gone as its client knows, and the
    fragments on all disks are those of the live objects, within 2%."""
    pool = new_pool(PEERS, settings=SETTINGS)
    pool.peers[0].client().create_bucket(Bucket=BUCKET)
    operations = rounds(3_000, 50_000)
    workers = [Worker(number, pool, random.Random(rng.random()), operations // WORKERS) for number in range(WORKERS)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    nemesis = Nemesis(pool, random.Random(rng.random()))
    for thread in [*threads, nemesis]:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, sum(map(disk_bytes, pool.peers)))
        time.sleep(2)
    nemesis.end()
    for worker in workers:
        assert worker.error is None
    outcomes = sum((worker.outcomes for worker in workers), collections.Counter())
    print(f"{dict(outcomes)}, {dict(nemesis.deeds)}")
    assert outcomes.total() - outcomes["failed"] > operations / 2, "the pool served too little for this to say anything"
    pool.wait_settled()

    client = pool.peers[0].client()
    end_uploads(client)
    live_writes = set()
    for worker in workers:
        for key, may_hold in worker.may_hold.items():
            held = what_is_held(client, key, may_hold)
            assert held in may_hold, f"{key} holds {held}, and may hold {may_hold}"
            live_writes.add(held)
    # A copy shares what it was copied from.
    live = sum(stored_bytes(size) for _, size in live_writes - {GONE})

    def room() -> int:
        return sum(map(backend_bytes, pool.peers))

    try:
        eventually(lambda: abs(room() - live) <= 0.02 * live, QUIET_S, f"all disks hold {live} bytes", every_s=1)
    finally:
        print(f"{room()} bytes of fragments for {live}; {sum(map(disk_bytes, pool.peers))} on disk, at most {most} before")
    for peer in pool.peers:
        for worker in workers:
            for key, may_hold in list(worker.may_hold.items())[:: len(pool.peers)]:
                assert what_is_held(peer.client(), key, may_hold) in may_hold
    pool.assert_up()


def end_uploads(client) -> None:
    """Ends the uploads that their clients left; one whose completion is unknown may be refused, and has made its object."""
    for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        try:
            client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
        except ClientError as refused:
            print(f"{upload['Key']}: {refused}")


def what_is_held(client, key: str, may_hold: set):
    """Which of these writes a key holds, byte for byte; GONE: it is not there."""
    try:
        body = eventually(lambda: whole(client, key), 30, f"{key} is read")
    except client.exceptions.NoSuchKey:
        return GONE
    for written in may_hold - {GONE}:
        if samples.blob(written[1], written[0]) == body:
            return written
    return f"{len(body)} other bytes"


def whole(client, key: str) -> bytes | None:
    """A body; None where it cannot be had just now."""
    try:
        return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            return None
        raise
    except BotoCoreError:
        return None
