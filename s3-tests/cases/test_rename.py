"""RenameObject: AWS has it for directory buckets. AWS: API_RenameObject, userguide/directory-buckets-objects-rename."""

import pytest

import samples
from samples import MIB


def read(s3, bucket, key):
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


@pytest.fixture
def rename(s3, bucket):
    return lambda source, key, **arguments: s3.rename_object(Bucket=bucket, Key=key, RenameSource=source, **arguments)


@pytest.mark.parametrize("size", [0, 1000, 3 * MIB])
def test_all_of_an_object_moves(s3, bucket, rename, refused, size):
    """Expected: bytes, tag, metadata and tags under the new name, nothing under the old one."""
    data = samples.blob(size, "rename")
    etag = s3.put_object(Bucket=bucket, Key="old name", Body=data, Metadata={"m": "1"}, Tagging="t=1", ContentType="text/x-a")["ETag"]
    rename("old%20name", "new/name")
    answer = s3.get_object(Bucket=bucket, Key="new/name")
    assert answer["Body"].read() == data
    assert (answer["ETag"], answer["Metadata"], answer["ContentType"], answer["TagCount"]) == (etag, {"m": "1"}, "text/x-a", 1)
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key="old name")
    rename(f"/{bucket}/new/name", "back")
    assert read(s3, bucket, "back") == data


def test_an_encrypted_object_moves_without_its_key(s3, bucket, rename):
    """Nothing is read, so no key is needed; it still opens with the same key."""
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": bytes(32)}
    s3.put_object(Bucket=bucket, Key="a", Body=b"secret", **key)
    rename("a", "b")
    assert s3.get_object(Bucket=bucket, Key="b", **key)["Body"].read() == b"secret"


def test_what_is_in_the_way_is_replaced(s3, bucket, rename):
    s3.put_object(Bucket=bucket, Key="a", Body=b"a")
    s3.put_object(Bucket=bucket, Key="b", Body=b"b")
    rename("a", "b")
    assert read(s3, bucket, "b") == b"a"
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_conditions(s3, bucket, rename, refused):
    """Conditions on the source and on what has the new name. Expected: 412, and both stay."""
    tag = s3.put_object(Bucket=bucket, Key="a", Body=b"a")["ETag"]
    other = s3.put_object(Bucket=bucket, Key="b", Body=b"b")["ETag"]
    for condition in (
        {"SourceIfMatch": other},
        {"SourceIfNoneMatch": tag},
        {"DestinationIfNoneMatch": "*"},
        {"DestinationIfMatch": tag},
    ):
        with refused("PreconditionFailed", 412):
            rename("a", "b", **condition)
    assert (read(s3, bucket, "a"), read(s3, bucket, "b")) == (b"a", b"b")
    rename("a", "b", SourceIfMatch=tag, DestinationIfMatch=other)
    assert read(s3, bucket, "b") == b"a"


def test_refusals(s3, bucket, rename, refused):
    with refused("NoSuchKey", 404):
        rename("none", "b")
    s3.put_object(Bucket=bucket, Key="a", Body=b"a")
    with refused("InvalidRequest", 400):
        rename("a", "a")
    with refused("InvalidArgument", 400):
        rename("/another-bucket/a", "b")
    assert read(s3, bucket, "a") == b"a"
