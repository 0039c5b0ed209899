"""Conditional writes and deletions. AWS: userguide/conditional-writes, userguide/conditional-deletes, API_DeleteObject."""

import concurrent.futures
import datetime

import pytest
from botocore.exceptions import ClientError

DAY = datetime.timedelta(days=1)


def exists(s3, bucket, key="k"):
    return s3.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"] == 1


def test_put_if_match(s3, bucket, refused):
    """PUT with If-Match: the tag of what is there, another, `*`, and where nothing is (404, as AWS)."""
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfMatch="*")
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfMatch='"0123"')
    one = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    two = s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=one)["ETag"]
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=one)
    s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=two.strip('"'))
    s3.put_object(Bucket=bucket, Key="k", Body=b"4", IfMatch="*")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"4"


def test_put_if_none_match(s3, bucket, refused):
    """PUT with If-None-Match: `*` is AWS's; with a tag it is taken here as RFC 9110 has it."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"


@pytest.mark.parametrize("condition", ["IfMatch", "IfNoneMatch"])
def test_complete(s3, bucket, refused, condition):
    """Conditions of CompleteMultipartUpload. Expected: one that fails leaves object and upload, which can then be completed."""
    tag = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    place = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    part = s3.upload_part(**place, PartNumber=1, Body=b"part")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    wrong = {"IfMatch": '"0123"', "IfNoneMatch": "*"}[condition]
    with refused("PreconditionFailed", 412):
        s3.complete_multipart_upload(**place, MultipartUpload=parts, **{condition: wrong})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    s3.complete_multipart_upload(**place, MultipartUpload=parts, IfMatch=tag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"part"


def test_delete_if_match(s3, bucket, refused):
    """DELETE with If-Match. Where nothing is, the condition holds: 204 (API_DeleteObject)."""
    tag = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket=bucket, Key="k", IfMatch='"0123"')
    assert exists(s3, bucket)
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=tag)
    assert not exists(s3, bucket)
    assert s3.delete_object(Bucket=bucket, Key="k", IfMatch=tag)["ResponseMetadata"]["HTTPStatusCode"] == 204
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    s3.delete_object(Bucket=bucket, Key="k", IfMatch="*")
    assert not exists(s3, bucket)


def test_delete_by_size_and_time(s3, bucket, refused):
    """x-amz-if-match-size and -last-modified-time, which AWS has for directory buckets."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"123")
    time = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    for wrong in ({"IfMatchSize": 4}, {"IfMatchLastModifiedTime": time - DAY}, {"IfMatchSize": 3, "IfMatchLastModifiedTime": time + DAY}):
        with refused("PreconditionFailed", 412):
            s3.delete_object(Bucket=bucket, Key="k", **wrong)
    assert exists(s3, bucket)
    s3.delete_object(Bucket=bucket, Key="k", IfMatchSize=3, IfMatchLastModifiedTime=time)
    assert not exists(s3, bucket)
    s3.delete_object(Bucket=bucket, Key="k", IfMatchSize=3)


def test_delete_many(s3, bucket):
    """The same conditions in DeleteObjects, each for its own key: what fails is told as an error and stays."""
    tags = {key: s3.put_object(Bucket=bucket, Key=key, Body=key.encode())["ETag"] for key in ("a", "b", "c", "d", "e")}
    time = s3.head_object(Bucket=bucket, Key="d")["LastModified"]
    objects = [
        {"Key": "a", "ETag": tags["a"]},
        {"Key": "b", "ETag": tags["a"]},
        {"Key": "c", "Size": 2},
        {"Key": "d", "LastModifiedTime": time},
        {"Key": "e", "LastModifiedTime": time - DAY},
        {"Key": "none", "ETag": tags["a"]},
    ]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert sorted(entry["Key"] for entry in answer["Deleted"]) == ["a", "d", "none"]
    assert {entry["Key"]: entry["Code"] for entry in answer["Errors"]} == dict.fromkeys("bce", "PreconditionFailed")
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["b", "c", "e"]


@pytest.mark.parametrize("condition", ["IfNoneMatch", "IfMatch"])
def test_one_winner(target, bucket, condition, rng):
    """Eight clients at as many peers write at the same moment under the same condition. Danger: two win, and one update is lost.
    Expected: one 200, all others 412 or 409 (userguide/conditional-writes)."""
    clients = target.clients()
    value = "*" if condition == "IfNoneMatch" else clients[0].put_object(Bucket=bucket, Key="k", Body=b"0")["ETag"]

    def write(number):
        try:
            rng.choice(clients).put_object(Bucket=bucket, Key="k", Body=str(number).encode(), **{condition: value})
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]
        return 200

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(write, range(1, 9)))
    assert statuses[0] == 200 and set(statuses[1:]) <= {409, 412}, statuses
