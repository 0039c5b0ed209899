"""Encryption with keys of the client's (SSE-C). AWS: userguide/ServerSideEncryptionCustomerKeys, API_PutObject, API_CopyObject."""

import base64
import hashlib

import pytest

import samples
from samples import MIB

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


def sse(key=KEY, prefix="SSECustomer"):
    """The parameters of a key; boto3 adds the MD5 and the base64."""
    return {f"{prefix}Algorithm": "AES256", f"{prefix}Key": key}


def source_sse(key=KEY):
    return sse(key, "CopySourceSSECustomer")


def md5(key=KEY):
    return base64.b64encode(hashlib.md5(key).digest()).decode()


def read(s3, bucket, key, **arguments):
    return s3.get_object(Bucket=bucket, Key=key, **arguments)["Body"].read()


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 70_000, MIB, MIB + 1, 3 * MIB + 7, 70 * MIB + 5])
def test_what_is_written_is_read(s3, bucket, size):
    """Objects of every size class, whole and in ranges that begin and end anywhere. Danger: a counter off by one turns the rest into
    noise. Expected: the bytes, and answers that name algorithm and key."""
    data = samples.blob(size, "sse")
    answer = s3.put_object(Bucket=bucket, Key="k", Body=data, **sse())
    assert (answer["SSECustomerAlgorithm"], answer["SSECustomerKeyMD5"]) == ("AES256", md5())
    assert "ServerSideEncryption" not in answer
    answer = s3.get_object(Bucket=bucket, Key="k", **sse())
    assert answer["Body"].read() == data
    assert (answer["SSECustomerAlgorithm"], answer["SSECustomerKeyMD5"]) == ("AES256", md5())
    head = s3.head_object(Bucket=bucket, Key="k", **sse())
    assert (head["ContentLength"], head["ETag"]) == (size, answer["ETag"])
    for first, last in ((0, 0), (1, 1), (15, 16), (size // 2 + 3, size - 2), (MIB - 1, MIB), (64 * MIB - 5, 64 * MIB + 5)):
        if 0 <= first <= last < size:
            assert read(s3, bucket, "k", Range=f"bytes={first}-{last}", **sse()) == data[first : last + 1]


def test_the_tag_tells_nothing(s3, bucket):
    """The ETag of an object with a client's key is not its MD5 (API_Object), and not even the same for the same bytes: it would tell
    who may list the bucket what is in the object."""
    tags = {s3.put_object(Bucket=bucket, Key=key, Body=b"secret", **sse())["ETag"] for key in ("a", "b")}
    assert len(tags) == 2 and f'"{hashlib.md5(b"secret").hexdigest()}"' not in tags


@pytest.mark.parametrize("operation", ["get_object", "head_object"])
def test_only_the_key_opens(s3, bucket, refused, operation):
    """Reads without the key, with another one, and with a key where none is needed. Expected: 400, and 403 for a wrong key at AWS."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret", **sse())
    s3.put_object(Bucket=bucket, Key="plain", Body=b"open")
    call = getattr(s3, operation)
    with refused("InvalidRequest", 400):
        call(Bucket=bucket, Key="k")
    with refused(("InvalidRequest", "AccessDenied"), (400, 403)):
        call(Bucket=bucket, Key="k", **sse(OTHER))
    with refused("InvalidRequest", 400):
        call(Bucket=bucket, Key="plain", **sse())


ALGORITHM, GIVEN, GIVEN_MD5 = (f"x-amz-server-side-encryption-customer-{what}" for what in ("algorithm", "key", "key-md5"))
GOOD = {ALGORITHM: "AES256", GIVEN: base64.b64encode(KEY).decode(), GIVEN_MD5: md5()}


@pytest.mark.parametrize(
    "wrong",
    [
        {name: GOOD[name] for name in (GIVEN, GIVEN_MD5)},
        {name: GOOD[name] for name in (ALGORITHM, GIVEN_MD5)},
        {name: GOOD[name] for name in (ALGORITHM, GIVEN)},
        {ALGORITHM: "AES256"},
        {**GOOD, GIVEN: base64.b64encode(KEY[:31]).decode(), GIVEN_MD5: md5(KEY[:31])},
        {**GOOD, GIVEN: "not base64"},
        {**GOOD, GIVEN_MD5: md5(OTHER)},
    ],
)
def test_malformed_keys(target, bucket, s3, wrong):
    """Each of the three headers missing or wrong. Danger: something is stored unencrypted because of a typo. Expected:
    InvalidArgument and no object."""
    answer = target.server.signed("PUT", f"/{bucket}/k", b"secret", **wrong)
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_encryption_is_asked_for_once(s3, bucket, refused):
    """Another algorithm, or a client's key and the server's own at the same time."""
    with refused(("InvalidEncryptionAlgorithmError", "InvalidArgument"), 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", SSECustomerAlgorithm="AES128", SSECustomerKey=KEY)
    with refused("InvalidArgument", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256", **sse())
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_checksums_are_of_what_was_sent(s3, bucket, refused):
    """Content-MD5 and checksums cover the client's bytes, not the encrypted ones; they come back on reads."""
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    with refused("BadDigest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"secret", ContentMD5=wrong, **sse())
    right = base64.b64encode(hashlib.sha256(b"secret").digest()).decode()
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret", ChecksumSHA256=right, **sse())
    assert s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED", **sse())["ChecksumSHA256"] == right


def test_copies(s3, bucket, refused):
    """Copies into, out of, and between keys. Danger: a copy shares the source's encrypted bytes, and no key opens it.
    Expected: each copy opens with the key it was made with, and only the source's key reads the source."""
    data = samples.blob(2 * MIB + 11, "sse copy")
    source = {"Bucket": bucket, "Key": "k"}
    s3.put_object(Bucket=bucket, Key="k", Body=data, Metadata={"m": "1"}, **sse())
    s3.put_object(Bucket=bucket, Key="plain", Body=data)
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key="x", CopySource=source)
    with refused(("InvalidRequest", "AccessDenied"), (400, 403)):
        s3.copy_object(Bucket=bucket, Key="x", CopySource=source, **source_sse(OTHER))
    copied = s3.copy_object(Bucket=bucket, Key="again", CopySource=source, **source_sse(), **sse(OTHER))
    assert copied["SSECustomerKeyMD5"] == md5(OTHER)
    assert read(s3, bucket, "again", **sse(OTHER)) == data
    assert s3.head_object(Bucket=bucket, Key="again", **sse(OTHER))["Metadata"] == {"m": "1"}
    s3.copy_object(Bucket=bucket, Key="opened", CopySource=source, **source_sse())
    assert read(s3, bucket, "opened") == data
    s3.copy_object(Bucket=bucket, Key="closed", CopySource={"Bucket": bucket, "Key": "plain"}, **sse())
    assert read(s3, bucket, "closed", **sse()) == data
    s3.copy_object(Bucket=bucket, Key="k", CopySource=source, **source_sse(), **sse(OTHER))
    assert read(s3, bucket, "k", **sse(OTHER)) == data, "a key is changed by a copy onto itself"


def test_multipart(s3, bucket, refused):
    """An upload with a key: each part brings it. A part uploaded twice, a copied part, and a range across parts."""
    parts = [samples.blob(5 * MIB + 3, "one"), samples.blob(5 * MIB, "two"), samples.blob(99, "three")]
    s3.put_object(Bucket=bucket, Key="source", Body=parts[1], **sse(OTHER))
    begun = s3.create_multipart_upload(Bucket=bucket, Key="k", **sse())
    assert (begun["SSECustomerAlgorithm"], begun["SSECustomerKeyMD5"]) == ("AES256", md5())
    place = {"Bucket": bucket, "Key": "k", "UploadId": begun["UploadId"]}
    with refused("InvalidRequest", 400):
        s3.upload_part(**place, PartNumber=1, Body=parts[0])
    with refused("InvalidRequest", 400):
        s3.upload_part(**place, PartNumber=1, Body=parts[0], **sse(OTHER))
    s3.upload_part(**place, PartNumber=1, Body=samples.blob(5 * MIB + 3, "first try"), **sse())
    one = s3.upload_part(**place, PartNumber=1, Body=parts[0], **sse())
    assert one["SSECustomerKeyMD5"] == md5()
    two = s3.upload_part_copy(**place, PartNumber=2, CopySource={"Bucket": bucket, "Key": "source"}, **source_sse(OTHER), **sse())
    three = s3.upload_part(**place, PartNumber=3, Body=parts[2], **sse())
    tags = [one["ETag"], two["CopyPartResult"]["ETag"], three["ETag"]]
    named = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": named})
    data = b"".join(parts)
    assert read(s3, bucket, "k", **sse()) == data
    edge = len(parts[0])
    assert read(s3, bucket, "k", Range=f"bytes={edge - 5}-{edge + 5}", **sse()) == data[edge - 5 : edge + 6]
    assert read(s3, bucket, "k", PartNumber=3, **sse()) == parts[2]
    with refused("InvalidRequest", 400):
        s3.get_object(Bucket=bucket, Key="k")


def test_an_upload_without_key_takes_none(s3, bucket, refused):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    with refused("InvalidRequest", 400):
        s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x", **sse())
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)


def test_everything_else_says_aes256(s3, bucket, refused):
    """Every object without a client's key is encrypted by the server (userguide/default-encryption-faq); a key service is refused
    where there is none."""
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ServerSideEncryption"] == "AES256"
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256")
    with refused(("NotImplemented", "InvalidArgument", "KMS.NotFoundException"), (400, 501)):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="none")
    with refused("InvalidArgument", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256", SSEKMSKeyId="none")
