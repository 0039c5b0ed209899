"""Pools of local consistency: peers cut off from all others go on alone, say so in every answer, and are one pool again when they meet."""

import urllib.request

import pytest

import samples
from palm_cluster import Peer, Pool, eventually
from samples import KIB, MIB

pytestmark = pytest.mark.own_pool

MERGE_TIMEOUT_S = 60
LABEL = "x-palm-consistency"


@pytest.fixture
def pool(tmp_path):
    """Three peers of a local pool, which all know the bucket `field`."""
    with Pool(tmp_path / "pool", "field") as pool:
        pool.create("--consistency", "local")
        pool.join()
        pool.join()
        pool.wait_settled()
        pool.peers[0].client().create_bucket(Bucket="field")
        for peer in pool.peers:
            wait_for(peer, lambda client: client.head_bucket(Bucket="field"), "the bucket is known")
        yield pool


def wait_for(peer: Peer, ask, what: str):
    """Asks a peer until it does not fail; the answer."""
    client = peer.client()

    def answered():
        try:
            return ask(client)
        except client.exceptions.ClientError:
            return None

    return eventually(answered, MERGE_TIMEOUT_S, f"{peer.name}: {what}", every_s=0.25)


def labelled(answer: dict) -> dict:
    assert answer["ResponseMetadata"]["HTTPHeaders"].get(LABEL) == "local", answer["ResponseMetadata"]
    return answer


def get(client, key: str) -> bytes:
    return labelled(client.get_object(Bucket="field", Key=key))["Body"].read()


def names(client) -> list[str]:
    return [entry["Key"] for entry in labelled(client.list_objects_v2(Bucket="field")).get("Contents", [])]


def upload_in_parts(client, key: str, parts: list[bytes]) -> None:
    upload = labelled(client.create_multipart_upload(Bucket="field", Key=key))["UploadId"]
    done = []
    for number, part in enumerate(parts, 1):
        answer = labelled(client.upload_part(Bucket="field", Key=key, UploadId=upload, PartNumber=number, Body=part))
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    labelled(client.complete_multipart_upload(Bucket="field", Key=key, UploadId=upload, MultipartUpload={"Parts": done}))


def test_the_last_peer_goes_on_alone(pool, refused):
    """Two of three peers are killed; the third, a minority, is used for everything; then the two come back. Danger: an island that refuses,
    an answer that passes for a strong one, a 404 for what is only out of reach, and above all something acknowledged on the island that
    is not there afterwards. Expected: all of it works, labelled; what lacks fragments is 503; and every peer has everything in the end."""
    alone, *others = pool.peers
    client = alone.client()
    before = samples.blob(100 * KIB, 1)
    client.put_object(Bucket="field", Key="before", Body=before)
    for other in others:
        wait_for(other, lambda c: get(c, "before") == before, "what was written before")
        other.kill()
    pool.wait_live(1)

    small, large, parts = samples.blob(2 * KIB, 2), samples.blob(9 * MIB, 3), [samples.blob(5 * MIB, 4), samples.blob(KIB, 5)]
    labelled(client.put_object(Bucket="field", Key="small", Body=small))
    labelled(client.put_object(Bucket="field", Key="large", Body=large))
    upload_in_parts(client, "parts", parts)
    labelled(client.copy_object(Bucket="field", Key="copy", CopySource={"Bucket": "field", "Key": "large"}))
    labelled(client.put_object(Bucket="field", Key="gone", Body=small))
    labelled(client.delete_object(Bucket="field", Key="gone"))
    labelled(client.create_bucket(Bucket="island"))
    with refused("PreconditionFailed", 412):
        client.put_object(Bucket="field", Key="small", Body=large, IfNoneMatch="*")
    with refused("NoSuchKey", 404):
        get(client, "gone")
    with refused("ServiceUnavailable", 503):
        get(client, "before")
    assert client.head_object(Bucket="field", Key="before")["ContentLength"] == len(before)
    expected = {"small": small, "large": large, "parts": b"".join(parts), "copy": large}
    assert names(client) == sorted([*expected, "before"])
    for key, body in expected.items():
        assert get(client, key) == body, key
    assert "ISLAND" in alone.ask("status")["words"][0]
    with urllib.request.urlopen(f"{alone.ready['admin']}/health/ready", timeout=5) as health:
        assert health.status == 200

    for other in others:
        other.start()
    pool.wait_live(3)
    for peer in pool.peers:
        wait_for(peer, lambda c: names(c) == sorted([*expected, "before"]), "everything is listed")
        for key, body in (expected | {"before": before}).items():
            assert wait_for(peer, lambda c, key=key: get(c, key), f"{key} can be read") == body, key
        wait_for(peer, lambda c: c.head_bucket(Bucket="island"), "the bucket made on the island")


def test_of_two_islands_the_later_writer_wins(pool, rounds):
    """Two peers are up in turn, never together, and write the same keys, one of them also deleting; in the end all come back. Danger: peers
    that differ for good, or each showing its own. Expected: every peer ends with the later write, the later deletion included, and what only
    one of them wrote is everywhere."""
    first, second, third = pool.peers
    for peer in pool.peers:
        peer.kill()
    for number in range(rounds(1, 5)):
        first.start()
        pool.wait_live(1)
        for key in ("contested", "deleted-later", f"first-{number}"):
            first.client().put_object(Bucket="field", Key=key, Body=f"first {key} {number}".encode())
        first.kill()
        second.start()
        pool.wait_live(1)
        second.client().put_object(Bucket="field", Key="contested", Body=f"second {number}".encode())
        # It has not heard of the key, and its deletion wins all the same.
        second.client().delete_object(Bucket="field", Key="deleted-later")
        second.client().put_object(Bucket="field", Key=f"second-{number}", Body=b"x" * 10)
        second.kill()
    for peer in pool.peers:
        peer.start()
    pool.wait_live(3)
    expected = sorted(["contested", *(f"{who}-{number}" for who in ("first", "second") for number in range(rounds(1, 5)))])
    stamps = set()
    for peer in pool.peers:
        wait_for(peer, lambda c: names(c) == expected, "the islands are one")
        # Names may be heard before values.
        wait_for(peer, lambda c: get(c, "contested") == f"second {number}".encode(), "the later write")
        head = peer.client().head_object(Bucket="field", Key="contested")
        stamps.add((head["ETag"], head["LastModified"]))
    assert len(stamps) == 1, stamps
    third.assert_up()
