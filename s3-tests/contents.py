"""Objects of all sizes and kinds in one bucket, and whether they still are what was put."""

from __future__ import annotations

import concurrent.futures
import random
import threading

import samples
from palm_cluster import Peer, Pool
from samples import KIB, MIB

BUCKET = "contents"
WORKERS = 6
PART_BYTES = 8 * MIB
SEGMENT_BYTES = 64 * MIB
IN_PARTS_FROM = 16 * MIB


class Contents:
    """What a bucket should hold: key -> (size, seed). Bytes are made again for every comparison, so there may be many."""

    def __init__(self, pool: Pool, rng: random.Random):
        self.pool, self.rng = pool, rng
        self.objects: dict[str, tuple[int, str]] = {}
        self._local = threading.local()
        self._putting: list[Peer] | None = None
        pool.up[0].client().create_bucket(Bucket=BUCKET)

    def _client(self, peer: Peer):
        """Each thread's own client of each peer."""
        kept = self._local.__dict__.setdefault("clients", {})
        if peer.name not in kept:
            kept[peer.name] = peer.client(read_timeout=60)
        return kept[peer.name]

    def put_at(self, peers: list[Peer]) -> None:
        """From now on only these peers, while they run, are asked to store and delete."""
        self._putting = peers

    def _writers(self) -> list[Peer]:
        return [peer for peer in self.pool.up if self._putting is None or peer in self._putting]

    def _at(self, key: str, peers: list[Peer]):
        return self._client(random.Random(key).choice(peers))

    def _in_parallel(self, action, keys: list[str]) -> None:
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as workers:
            for done in [workers.submit(action, key) for key in keys]:
                done.result()

    def fill(self, small: int, large: tuple[int, ...] = (), name: str = "object") -> None:
        """`small` objects of 1 KiB to 1 MiB (every size class as often), some of them copies whose source is deleted, and these large ones."""
        sizes = [int(KIB * 2 ** self.rng.uniform(0, 10)) for _ in range(small)] + list(large)
        fresh = {f"{name}/{number:05}": (size, f"{name}-{number}") for number, size in enumerate(sizes)}
        peers = self._writers()

        def put(key: str) -> None:
            client, (size, seed) = self._at(key, peers), fresh[key]
            data = samples.blob(size, seed)
            if size >= IN_PARTS_FROM:
                put_in_parts(client, key, data)
            elif size % 8 == 0:
                client.put_object(Bucket=BUCKET, Key=f"{key}-source", Body=data)
                client.copy_object(Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": f"{key}-source"})
                client.delete_object(Bucket=BUCKET, Key=f"{key}-source")
            else:
                client.put_object(Bucket=BUCKET, Key=key, Body=data)

        self._in_parallel(put, list(fresh))
        self.objects |= fresh

    def delete(self, keys: list[str]) -> None:
        peers = self._writers()
        self._in_parallel(lambda key: self._at(key, peers).delete_object(Bucket=BUCKET, Key=key), keys)
        for key in keys:
            del self.objects[key]

    def verify(self, peers: list[Peer] | None = None, keys: list[str] | None = None) -> None:
        """Every object, or these, read at one of the peers: the same bytes."""
        peers = peers or self.pool.up

        def compare(key: str) -> None:
            size, seed = self.objects[key]
            got = self._at(key, peers).get_object(Bucket=BUCKET, Key=key)["Body"].read()
            assert got == samples.blob(size, seed), f"{key} of {size} bytes came back as {len(got)} other bytes"

        self._in_parallel(compare, list(self.objects) if keys is None else keys)

    def segments(self) -> int:
        """How many segments the objects have."""
        def of(size: int) -> int:
            piece = PART_BYTES if size >= IN_PARTS_FROM else SEGMENT_BYTES
            return -(-size // piece)

        return sum(of(size) for size, _ in self.objects.values())


def put_in_parts(client, key: str, data: bytes) -> None:
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(data), PART_BYTES), 1):
        part = client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=data[start : start + PART_BYTES])
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
