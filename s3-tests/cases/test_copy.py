"""Copies. AWS: API_CopyObject, userguide/copy-object."""

import base64
import datetime
import hashlib

import pytest

import samples
from samples import MIB
from test_multipart import Upload


def read(s3, bucket, key):
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def source(bucket, key="source"):
    return {"Bucket": bucket, "Key": key}


@pytest.mark.parametrize("size", [0, 1, 100_000, 3 * MIB + 1, 70 * MIB])
def test_a_copy_is_the_same(s3, bucket, make_bucket, size):
    """Copies within a bucket and into another, of every size class. Expected: bytes, ETag and metadata of the source."""
    data = samples.blob(size, "copy")
    etag = s3.put_object(Bucket=bucket, Key="source", Body=data, ContentType="text/x-a", Metadata={"m": "1"})["ETag"]
    other = make_bucket()
    for where in (bucket, other):
        copied = s3.copy_object(Bucket=where, Key="copy", CopySource=source(bucket))
        assert copied["CopyObjectResult"]["ETag"] == etag
        answer = s3.get_object(Bucket=where, Key="copy")
        assert answer["Body"].read() == data
        assert (answer["ETag"], answer["ContentType"], answer["Metadata"]) == (etag, "text/x-a", {"m": "1"})


def test_a_copy_lives_by_itself(s3, bucket):
    """Copies share stored segments. Danger: deleting or overwriting the source takes the copy's bytes along.
    Expected: the copy outlives both, and copies of copies too."""
    data = samples.blob(2 * MIB, "shared")
    s3.put_object(Bucket=bucket, Key="source", Body=data)
    s3.copy_object(Bucket=bucket, Key="one", CopySource=source(bucket))
    s3.copy_object(Bucket=bucket, Key="two", CopySource=source(bucket, "one"))
    s3.put_object(Bucket=bucket, Key="source", Body=b"new")
    assert read(s3, bucket, "one") == data
    s3.delete_object(Bucket=bucket, Key="source")
    s3.delete_object(Bucket=bucket, Key="one")
    assert read(s3, bucket, "two") == data


def test_metadata_is_copied_or_replaced(s3, bucket):
    """x-amz-metadata-directive: COPY ignores what the request says, REPLACE takes nothing from the source."""
    s3.put_object(Bucket=bucket, Key="source", Body=b"x", ContentType="text/x-a", CacheControl="no-store", Metadata={"m": "1"})
    new = {"ContentType": "text/x-b", "Metadata": {"n": "2"}}
    s3.copy_object(Bucket=bucket, Key="kept", CopySource=source(bucket), MetadataDirective="COPY", **new)
    s3.copy_object(Bucket=bucket, Key="replaced", CopySource=source(bucket), MetadataDirective="REPLACE", **new)
    kept, replaced = (s3.head_object(Bucket=bucket, Key=key) for key in ("kept", "replaced"))
    assert (kept["ContentType"], kept["CacheControl"], kept["Metadata"]) == ("text/x-a", "no-store", {"m": "1"})
    assert (replaced["ContentType"], replaced.get("CacheControl"), replaced["Metadata"]) == ("text/x-b", None, {"n": "2"})


def test_onto_itself(s3, bucket, refused):
    """A copy onto itself is how metadata is changed; with nothing changed it is InvalidRequest (API_CopyObject)."""
    s3.put_object(Bucket=bucket, Key="source", Body=b"same", Metadata={"m": "1"})
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key="source", CopySource=source(bucket))
    s3.copy_object(Bucket=bucket, Key="source", CopySource=source(bucket), MetadataDirective="REPLACE", Metadata={"m": "2"})
    assert s3.head_object(Bucket=bucket, Key="source")["Metadata"] == {"m": "2"}
    assert read(s3, bucket, "source") == b"same"


@pytest.mark.parametrize("key", ["a b+c", "%41", "ключ/🗝", "a?versionId=x", "..", "q'\"&<>"])
def test_any_source_key(s3, bucket, key):
    """The source travels URL-encoded in a header. Danger: decoded not at all, or twice, or cut at a question mark."""
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source(bucket, key))
    assert read(s3, bucket, "copy") == key.encode()


def test_a_source_that_is_not_there(s3, bucket, refused):
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source(bucket, "missing"))
    with refused("NoSuchBucket", 404):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source("no-such-bucket-here"))
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="copy")


def test_conditions_on_the_source(s3, bucket, refused):
    """x-amz-copy-source-if-*. Expected: 412 when one fails (also for if-none-match: a copy knows no 304), and nothing copied."""
    etag = s3.put_object(Bucket=bucket, Key="source", Body=b"x")["ETag"]
    hour = datetime.timedelta(hours=1)
    modified = s3.head_object(Bucket=bucket, Key="source")["LastModified"]
    good = [{"IfMatch": etag}, {"IfNoneMatch": '"other"'}, {"IfModifiedSince": modified - hour}, {"IfUnmodifiedSince": modified + hour}]
    bad = [{"IfMatch": '"other"'}, {"IfNoneMatch": etag}, {"IfUnmodifiedSince": modified - hour}]

    def copy(key, conditions):
        named = {f"CopySource{name}": value for name, value in conditions.items()}
        return s3.copy_object(Bucket=bucket, Key=key, CopySource=source(bucket), **named)

    for conditions in good:
        copy("good", conditions)
    for conditions in bad:
        with refused("PreconditionFailed", 412):
            copy("bad", conditions)
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="bad")


def test_copying_a_multipart_object(s3, bucket):
    """The copy of a multipart object is one object again; content counts, the ETag may be new (userguide/copy-object)."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key="source")["UploadId"]
    where = {"Bucket": bucket, "Key": "source", "UploadId": upload}
    parts = [samples.blob(5 * MIB, 1), samples.blob(5 * MIB + 9, 2)]
    done = [
        {"PartNumber": number, "ETag": s3.upload_part(**where, PartNumber=number, Body=data)["ETag"]} for number, data in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": done})
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source(bucket))
    s3.delete_object(Bucket=bucket, Key="source")
    assert read(s3, bucket, "copy") == b"".join(parts)


def test_a_copy_is_summed_as_asked(s3, bucket):
    """x-amz-checksum-algorithm on a copy of an object in parts, onto itself too. Expected: the checksum of the whole, under the new
    algorithm, and a new ETag, as the object is written anew (API_CopyObject)."""
    data = samples.blob(5 * MIB + 9, "summed")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="source", ChecksumAlgorithm="CRC32")["UploadId"]
    named = []
    for number, part in enumerate((data[: 5 * MIB], data[5 * MIB :]), 1):
        told = s3.upload_part(Bucket=bucket, Key="source", UploadId=upload, PartNumber=number, Body=part, ChecksumAlgorithm="CRC32")
        named.append({"PartNumber": number, "ETag": told["ETag"], "ChecksumCRC32": told["ChecksumCRC32"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="source", UploadId=upload, MultipartUpload={"Parts": named})
    expected = base64.b64encode(hashlib.sha256(data).digest()).decode()
    for key in ("copy", "source"):
        copied = s3.copy_object(Bucket=bucket, Key=key, CopySource=source(bucket), ChecksumAlgorithm="SHA256")["CopyObjectResult"]
        assert (copied["ChecksumSHA256"], copied["ChecksumType"]) == (expected, "FULL_OBJECT")
        answer = s3.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        assert (answer["Body"].read(), answer["ChecksumSHA256"]) == (data, expected)


@pytest.mark.parametrize("algorithm", sorted(samples.DIGESTS.keys() - {"CRC64NVME"}))
def test_a_copy_is_no_object_in_parts(s3, bucket, algorithm):
    """An object whose checksum is that of its parts' checksums is copied. Expected: the copy's is of the whole, under the same algorithm
    (userguide/checking-object-integrity: the copy is no multipart upload)."""
    data, field = samples.blob(5 * MIB + 9, algorithm), f"Checksum{algorithm}"
    upload = Upload(s3, bucket, "source", ChecksumAlgorithm=algorithm, ChecksumType="COMPOSITE")
    for number, part in enumerate((data[: 5 * MIB], data[5 * MIB :]), 1):
        upload.put(number, part, **{field: samples.checksum(algorithm, part)})
    upload.complete()
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source(bucket))["CopyObjectResult"]
    assert (copied[field], copied["ChecksumType"]) == (samples.checksum(algorithm, data), "FULL_OBJECT")
    answer = s3.get_object(Bucket=bucket, Key="copy", ChecksumMode="ENABLED")
    assert (answer["Body"].read(), answer[field], answer["ChecksumType"]) == (data, samples.checksum(algorithm, data), "FULL_OBJECT")


def test_a_version_is_copied(s3, bucket):
    """A copy of an older version brings it back; both answers name versions (userguide/RestoringPreviousVersions)."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    copied = s3.copy_object(Bucket=bucket, Key="k", CopySource={**source(bucket, "k"), "VersionId": one})
    assert copied["CopySourceVersionId"] == one
    answer = s3.get_object(Bucket=bucket, Key="k")
    assert (answer["Body"].read(), answer["VersionId"]) == (b"1", copied["VersionId"])
    assert copied["VersionId"] != one
