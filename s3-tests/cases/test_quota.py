"""Quotas of buckets: an extension (`palm bucket quota`), so there is no AWS page."""

import concurrent.futures

import pytest
from botocore.exceptions import ClientError

from palm_cluster import QUICK, CommandFailed, Pool

pytestmark = pytest.mark.own_pool
REFUSED = ("QuotaExceeded", 403)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with Pool.form(tmp_path_factory.mktemp("quota"), 3, None, "quota", QUICK) as pool:
        yield pool


def quota(pool, bucket, *flags, peer=0):
    return pool.peers[peer].ask("bucket quota", bucket, *flags)


def test_what_does_not_fit_is_refused(pool, refused):
    """Bytes and objects, over each way to write. Expected: 403 QuotaExceeded and nothing written; room comes back by deleting and by writing
    smaller; objects that were there before count, and parts before they are an object."""
    clients = [peer.client() for peer in pool.peers]
    s3, bucket = clients[0], "small"
    s3.create_bucket(Bucket=bucket)
    assert quota(pool, bucket)["usage"] is None
    s3.put_object(Bucket=bucket, Key="before", Body=b"x" * 400)
    found = quota(pool, bucket, "--bytes", "1000", "--objects", "3")
    assert found["usage"] == {"bytes": 400, "objects": 1} and found["quota"] == {"bytes": 1000, "objects": 3}
    clients[1].put_object(Bucket=bucket, Key="a", Body=b"x" * 600)
    for client in clients:
        with refused(*REFUSED):
            client.put_object(Bucket=bucket, Key="b", Body=b"x")
    with refused(*REFUSED):
        clients[2].copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})
    upload = {"Bucket": bucket, "Key": "b", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="b")["UploadId"]}
    with refused(*REFUSED):
        s3.upload_part(**upload, PartNumber=1, Body=b"x" * 10)
    clients[1].put_object(Bucket=bucket, Key="a", Body=b"y" * 500)
    part = s3.upload_part(**upload, PartNumber=1, Body=b"x" * 10)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    clients[2].complete_multipart_upload(**upload, MultipartUpload=parts)
    assert quota(pool, bucket, peer=1)["usage"] == {"bytes": 910, "objects": 3}
    with refused(*REFUSED):
        s3.put_object(Bucket=bucket, Key="fourth", Body=b"")
    clients[1].delete_object(Bucket=bucket, Key="before")
    assert quota(pool, bucket)["usage"] == {"bytes": 510, "objects": 2}
    s3.put_object(Bucket=bucket, Key="third", Body=b"x" * 490)
    quota(pool, bucket, "--none")
    s3.put_object(Bucket=bucket, Key="much", Body=b"x" * 5000)


def test_parts_of_open_uploads_count(pool, refused):
    """Parts sent, sent again, left out, aborted, at all peers. Danger: a tenant fills the pool with uploads that are never completed; or
    parts count twice, and what fits cannot be completed. Expected: the newest attempt at each part counts until the upload ends."""
    clients = [peer.client() for peer in pool.peers]
    s3, bucket = clients[0], "parts"
    s3.create_bucket(Bucket=bucket)

    def begin(key):
        return {"Bucket": bucket, "Key": key, "UploadId": s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]}

    first, second = begin("k"), begin("k")
    clients[1].upload_part(**first, PartNumber=1, Body=b"x" * 300)
    assert quota(pool, bucket, "--bytes", "1000", "--objects", "1")["usage"] == {"bytes": 300, "objects": 0}, "what was there before"
    clients[2].upload_part(**first, PartNumber=1, Body=b"y" * 500)
    s3.upload_part(**second, PartNumber=1, Body=b"x" * 400)
    assert quota(pool, bucket, peer=2)["usage"] == {"bytes": 900, "objects": 0}
    with refused(*REFUSED):
        clients[1].upload_part(**first, PartNumber=2, Body=b"x" * 101)
    etag = clients[1].upload_part(**first, PartNumber=2, Body=b"x" * 100)["ETag"]
    clients[2].abort_multipart_upload(**second)
    assert quota(pool, bucket)["usage"] == {"bytes": 600, "objects": 0}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 400)
    # All is full; the upload takes less than it has, and the place of the object.
    done = clients[1].complete_multipart_upload(**first, MultipartUpload={"Parts": [{"PartNumber": 2, "ETag": etag}]})
    assert quota(pool, bucket)["usage"] == {"bytes": 100, "objects": 1}
    again = clients[2].complete_multipart_upload(**first, MultipartUpload={"Parts": [{"PartNumber": 2, "ETag": etag}]})
    assert again["ETag"] == done["ETag"] and quota(pool, bucket)["usage"] == {"bytes": 100, "objects": 1}
    with refused("NoSuchUpload", 404):
        s3.complete_multipart_upload(**first, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}, {"PartNumber": 2, "ETag": etag}]})


def test_of_writes_that_race_for_the_last_room_one_wins(pool):
    """Thirty writers at three peers, room for ten. Expected: ten objects."""
    s3, bucket = pool.peers[0].client(), "race"
    s3.create_bucket(Bucket=bucket)
    quota(pool, bucket, "--objects", "10")

    def write(number):
        try:
            pool.peers[number % 3].client().put_object(Bucket=bucket, Key=f"k{number}", Body=b"x")
            return True
        except ClientError as error:
            assert error.response["Error"]["Code"] == "QuotaExceeded", error
            return False

    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        written = sum(threads.map(write, range(30)))
    assert written == 10 == s3.list_objects_v2(Bucket=bucket)["KeyCount"]
    assert quota(pool, bucket)["usage"] == {"bytes": 10, "objects": 10}


def test_a_bucket_must_be_there(pool):
    with pytest.raises(CommandFailed):
        quota(pool, "no-such-bucket-at-all", "--objects", "1")
