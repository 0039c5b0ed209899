"""GetObjectAttributes. AWS: API_GetObjectAttributes."""

import base64
import hashlib

import pytest

import samples
from samples import MIB

ALL = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]


def sha256(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def test_an_object_uploaded_whole(s3, bucket):
    """All attributes of a plain object. Expected: no parts, the tag without quotes."""
    data = samples.blob(1234, "attributes")
    etag = s3.put_object(Bucket=bucket, Key="k", Body=data, ChecksumSHA256=sha256(data))["ETag"]
    answer = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL)
    assert answer["ETag"] == etag.strip('"')
    assert answer["ObjectSize"] == len(data)
    assert answer["StorageClass"] == "STANDARD"
    assert answer["Checksum"] == {"ChecksumSHA256": sha256(data), "ChecksumType": "FULL_OBJECT"}
    assert "ObjectParts" not in answer
    assert answer["LastModified"] == s3.head_object(Bucket=bucket, Key="k")["LastModified"]


@pytest.mark.parametrize("asked", ALL)
def test_only_what_is_asked_for(s3, bucket, asked):
    data = b"x"
    s3.put_object(Bucket=bucket, Key="k", Body=data, ChecksumSHA256=sha256(data))
    answer = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=[asked])
    assert {name for name in ALL if name in answer} <= {asked}


def test_parts_come_in_pages(s3, bucket):
    """An object of three parts with checksums, read two parts at a time. Danger: a client that verifies parts skips one.
    Expected: each part once, sizes and checksums as uploaded, the whole's checksum without the number of parts."""
    parts = [samples.blob(5 * MIB, "1"), samples.blob(5 * MIB, "2"), samples.blob(7, "3")]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256")["UploadId"]
    place = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    named = []
    for number, data in zip((1, 2, 5), parts):
        part = s3.upload_part(**place, PartNumber=number, Body=data, ChecksumSHA256=sha256(data))
        named.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]})
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": named})
    first = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL, MaxParts=2)
    told = first["ObjectParts"]
    assert (told["TotalPartsCount"], told["MaxParts"], told["IsTruncated"], told["NextPartNumberMarker"]) == (3, 2, True, 2)
    rest = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL, MaxParts=2, PartNumberMarker=2)["ObjectParts"]
    assert (rest["PartNumberMarker"], rest["IsTruncated"]) == (2, False)
    listed = [(part["PartNumber"], part["Size"], part["ChecksumSHA256"]) for part in told["Parts"] + rest["Parts"]]
    assert listed == [(number, len(data), sha256(data)) for number, data in zip((1, 2, 5), parts)]
    composite = base64.b64encode(hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in parts)).digest()).decode()
    assert first["Checksum"] == {"ChecksumSHA256": composite, "ChecksumType": "COMPOSITE"}


def test_refusals(s3, bucket, target, refused):
    with refused("NoSuchKey", 404):
        s3.get_object_attributes(Bucket=bucket, Key="none", ObjectAttributes=["ETag"])
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with refused("InvalidArgument", 400):
        s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Colour"])
    answer = target.server.signed("GET", f"/{bucket}/k", query=[("attributes", "")])
    assert answer.status == 400


def test_versions(s3, bucket, refused):
    """One version by its id; a marker on top is no object."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"12345")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    answer = s3.get_object_attributes(Bucket=bucket, Key="k", VersionId=version, ObjectAttributes=["ObjectSize"])
    assert (answer["ObjectSize"], answer["VersionId"]) == (5, version)
    s3.delete_object(Bucket=bucket, Key="k")
    with refused("NoSuchKey", 404) as caught:
        s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectSize"])
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"].get("x-amz-delete-marker") == "true"
