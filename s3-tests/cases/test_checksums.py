"""Integrity as the client sees it. AWS: userguide/checking-object-integrity; Content-MD5 of API_PutObject.

The adapter below our S3 room verifies none of these by itself, so each is tested in both directions: right ones are kept and told,
wrong ones are refused and leave nothing.
"""

import pytest

import samples
import sigv4
from samples import MIB

ALGORITHMS = sorted(samples.DIGESTS)
DATA = samples.blob(200_001, "checksums")


def assert_nothing_stored(s3, bucket, refused):
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="k")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_right_header_checksums_are_kept(s3, bucket, algorithm):
    """x-amz-checksum-* in a header. Expected: accepted, told back by PUT and, with ChecksumMode, by HEAD and GET, as FULL_OBJECT."""
    name, value = f"Checksum{algorithm}", samples.checksum(algorithm, DATA)
    assert s3.put_object(Bucket=bucket, Key="k", Body=DATA, **{name: value})[name] == value
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head[name], head["ChecksumType"]) == (value, "FULL_OBJECT")
    answer = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (answer[name], answer["Body"].read()) == (value, DATA)
    assert name not in s3.head_object(Bucket=bucket, Key="k")


def test_an_object_without_a_checksum_gets_one(target, s3, bucket):
    """A client that declares none. Expected: CRC64NVME of the whole object, told back by PUT, HEAD and GetObjectAttributes, and kept by a copy."""
    value = samples.checksum("CRC64NVME", DATA)
    answer = target.server.signed("PUT", f"/{bucket}/k", DATA)
    assert (answer.headers["x-amz-checksum-crc64nvme"], answer.headers["x-amz-checksum-type"]) == (value, "FULL_OBJECT")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"})
    for key in ("k", "copy"):
        head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == (value, "FULL_OBJECT")
    told = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum"])["Checksum"]
    assert told == {"ChecksumCRC64NVME": value, "ChecksumType": "FULL_OBJECT"}


def test_unknown_algorithms_are_refused(target, s3, bucket, refused):
    """Danger: a client's wish for integrity is dropped unseen. Expected: InvalidRequest, and nothing stored."""
    for header in ("x-amz-sdk-checksum-algorithm", "x-amz-checksum-md6"):
        answer = target.server.signed("PUT", f"/{bucket}/k", DATA, **{header: "MD6"})
        assert (answer.status, answer.code) == (400, "InvalidRequest")
    with refused("InvalidRequest", 400):
        s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="MD6")
    assert_nothing_stored(s3, bucket, refused)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wrong_header_checksums_are_refused(s3, bucket, refused, algorithm):
    """The body was damaged on its way. Expected: BadDigest and nothing stored; a value of the wrong length InvalidRequest."""
    with refused("BadDigest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=DATA, **{f"Checksum{algorithm}": samples.checksum(algorithm, b"other")})
    with refused("InvalidRequest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=DATA, **{f"Checksum{algorithm}": "c2hvcnQ="})
    assert_nothing_stored(s3, bucket, refused)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_refused_overwrite_keeps_the_old_object(s3, bucket, refused, algorithm):
    """A damaged overwrite. Danger: the old object gone and the new one refused. Expected: the old bytes."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    with refused("BadDigest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=DATA, **{f"Checksum{algorithm}": samples.checksum(algorithm, b"other")})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"


def send_with_trailer(target, bucket, algorithm, value, signed: bool, data: bytes = DATA, key: str = "k"):
    """PUTs in aws-chunked framing with the checksum after the body."""
    server = target.server
    trailer = {f"x-amz-checksum-{algorithm.lower()}": value}
    chunks = [data[start : start + 64 * 1024] for start in range(0, len(data), 64 * 1024)]
    headers = {"content-encoding": "aws-chunked", "x-amz-trailer": next(iter(trailer)), "x-amz-decoded-content-length": str(len(data))}
    request = server.request("PUT", f"/{bucket}/{key}", **headers)
    payload = sigv4.STREAMING_TRAILER if signed else sigv4.STREAMING_UNSIGNED_TRAILER
    request = server.credentials.authorize(request, payload)
    body = server.credentials.signed_chunks(request, chunks, trailer) if signed else sigv4.unsigned_chunks(chunks, trailer)
    return server.send(request, body)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_trailing_checksums(target, s3, bucket, refused, algorithm, signed):
    """The SDKs of 2025 and later send the checksum as a trailer (sigv4-streaming-trailers). Expected: a wrong one is BadDigest and leaves
    nothing, a right one is stored, and neither the framing nor `aws-chunked` shows in the object."""
    refusal = send_with_trailer(target, bucket, algorithm, samples.checksum(algorithm, b"other"), signed)
    assert (refusal.status, refusal.code) == (400, "BadDigest"), str(refusal)
    assert_nothing_stored(s3, bucket, refused)
    value = samples.checksum(algorithm, DATA)
    answer = send_with_trailer(target, bucket, algorithm, value, signed)
    assert answer.status == 200, str(answer)
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (got["Body"].read(), got[f"Checksum{algorithm}"]) == (DATA, value)
    assert "aws-chunked" not in got.get("ContentEncoding", "")


@pytest.mark.parametrize("size", [0, 1, 65536, 5 * MIB + 1])
def test_trailers_at_many_sizes(target, s3, bucket, size):
    """Chunk borders and the empty body."""
    data = samples.blob(size, "trailer")
    answer = send_with_trailer(target, bucket, "CRC32", samples.checksum("CRC32", data), signed=size % 2 == 0, data=data)
    assert answer.status == 200, str(answer)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data


def test_content_md5(target, s3, bucket, refused):
    """Content-MD5 (RFC 1864). Expected: right accepted, wrong BadDigest, malformed InvalidDigest; nothing stored by the last two."""
    server = target.server
    for value, code in [(samples.base64_md5(b"other"), "BadDigest"), ("bm90IGFuIG1kNQ==", "InvalidDigest"), ("%%%", "InvalidDigest")]:
        answer = server.signed("PUT", f"/{bucket}/k", DATA, content_md5=value)
        assert (answer.status, answer.code) == (400, code), str(answer)
    assert_nothing_stored(s3, bucket, refused)
    answer = server.signed("PUT", f"/{bucket}/k", DATA, content_md5=samples.base64_md5(DATA))
    assert answer.status == 200, str(answer)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == DATA


def test_content_md5_of_a_part(target, s3, bucket):
    """The same for UploadPart. Expected: BadDigest, and the part does not exist."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    query = [("partNumber", "1"), ("uploadId", upload)]
    answer = target.server.signed("PUT", f"/{bucket}/k", DATA, query, content_md5=samples.base64_md5(b"other"))
    assert (answer.status, answer.code) == (400, "BadDigest"), str(answer)
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)


def test_a_wrong_payload_hash(target, s3, bucket, refused):
    """x-amz-content-sha256 names other bytes than came. Expected: XAmzContentSHA256Mismatch, nothing stored; an overwrite too."""
    answer = target.server.signed("PUT", f"/{bucket}/k", DATA, payload_hash=sigv4.sha256(b"other"))
    assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch"), str(answer)
    assert_nothing_stored(s3, bucket, refused)


def test_two_checksums_are_one_too_many(target, s3, bucket, refused):
    """API_PutObject: at most one x-amz-checksum-* per request. Expected: InvalidRequest, nothing stored."""
    headers = {f"x-amz-checksum-{name.lower()}": samples.checksum(name, DATA) for name in ("CRC32", "SHA256")}
    answer = target.server.signed("PUT", f"/{bucket}/k", DATA, **headers)
    assert (answer.status, answer.code) == (400, "InvalidRequest"), str(answer)
    assert_nothing_stored(s3, bucket, refused)
