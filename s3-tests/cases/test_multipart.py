"""Multipart uploads. AWS: userguide/mpuoverview, API_CreateMultipartUpload, API_UploadPart(Copy), API_CompleteMultipartUpload."""

import hashlib

import pytest

import samples
from samples import KIB, MIB

PART = 5 * MIB


class Upload:
    """One multipart upload under test: remembers its parts as a client does."""

    def __init__(self, s3, bucket, key="k", **arguments):
        self.s3, self.where = s3, {"Bucket": bucket, "Key": key}
        self.id = s3.create_multipart_upload(**self.where, **arguments)["UploadId"]
        self.parts: dict[int, dict] = {}

    def put(self, number: int, data: bytes, **arguments) -> dict:
        answer = self.s3.upload_part(**self.where, UploadId=self.id, PartNumber=number, Body=data, **arguments)
        sums = {name: value for name, value in answer.items() if name.startswith("Checksum") and name != "ChecksumType"}
        self.parts[number] = {"PartNumber": number, "ETag": answer["ETag"], **sums}
        return answer

    def complete(self, parts: list[dict] | None = None, **arguments) -> dict:
        parts = [self.parts[number] for number in sorted(self.parts)] if parts is None else parts
        return self.s3.complete_multipart_upload(**self.where, UploadId=self.id, MultipartUpload={"Parts": parts}, **arguments)

    def abort(self):
        self.s3.abort_multipart_upload(**self.where, UploadId=self.id)


def read(s3, bucket, key="k") -> bytes:
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def test_parts_come_in_any_order_and_with_gaps(s3, bucket, refused):
    """Parts 9, 1 and 4, each through another peer. Danger: order of arrival taken for order of parts; the object visible too early.
    Expected: nothing before complete, then the parts in order of number, the ETag md5-of-md5s-3, the headers given at the start."""
    upload = Upload(s3, bucket, ContentType="text/x-palm", Metadata={"a": "b"})
    data = {1: samples.blob(PART, 1), 4: samples.blob(PART + 1, 4), 9: samples.blob(77, 9)}
    for number in (9, 1, 4):
        upload.put(number, data[number])
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="k")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    etag = samples.multipart_etag([data[1], data[4], data[9]])
    assert upload.complete()["ETag"] == etag
    answer = s3.get_object(Bucket=bucket, Key="k")
    assert answer["Body"].read() == data[1] + data[4] + data[9]
    assert (answer["ETag"], answer["ContentType"], answer["Metadata"]) == (etag, "text/x-palm", {"a": "b"})
    assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_one_part_of_any_size(s3, bucket):
    """The last part, so the only one, may be small or empty. Expected: an object whose ETag ends in -1."""
    for size in (0, 1, 100 * KIB):
        upload = Upload(s3, bucket, f"one-{size}")
        data = samples.blob(size)
        upload.put(1, data)
        assert upload.complete()["ETag"] == samples.multipart_etag([data])
        assert read(s3, bucket, f"one-{size}") == data


def test_a_part_sent_again_replaces_the_first(s3, bucket, refused):
    """A client repeats part 1 with other bytes. Danger: the old bytes, or both. Expected: the last ones; the old ETag is InvalidPart."""
    upload = Upload(s3, bucket)
    upload.put(1, samples.blob(PART, "old"))
    old = dict(upload.parts[1])
    upload.put(1, samples.blob(PART, "new"))
    upload.put(2, b"end")
    with refused("InvalidPart", 400):
        upload.complete([old, upload.parts[2]])
    upload.complete()
    assert read(s3, bucket) == samples.blob(PART, "new") + b"end"


def test_parts_left_out_are_not_in_the_object(s3, bucket):
    """Complete names parts 1 and 3 of three. Expected: those two only."""
    upload = Upload(s3, bucket)
    for number in (1, 2, 3):
        upload.put(number, samples.blob(PART, number))
    upload.complete([upload.parts[1], upload.parts[3]])
    assert read(s3, bucket) == samples.blob(PART, 1) + samples.blob(PART, 3)


def test_wrong_completions_are_refused_and_harmless(s3, bucket, refused):
    """API_CompleteMultipartUpload, errors: wrong order, wrong ETag, a part that was never sent, no parts, a part that is too small.
    Expected: each its code, no object, and the upload can still be completed rightly."""
    upload = Upload(s3, bucket)
    upload.put(1, samples.blob(PART, 1))
    upload.put(2, b"small")
    upload.put(3, b"end")
    upload.put(4, samples.blob(PART, 4))
    one, two, three, four = (upload.parts[number] for number in (1, 2, 3, 4))
    for code, parts in [
        ("InvalidPartOrder", [four, one]),
        ("InvalidPartOrder", [one, one]),
        ("InvalidPart", [{"PartNumber": 1, "ETag": '"00000000000000000000000000000000"'}]),
        ("InvalidPart", [one, {"PartNumber": 7, "ETag": three["ETag"]}]),
        ("EntityTooSmall", [one, two, three]),
        ("MalformedXML", []),
    ]:
        with refused(code, 400):
            upload.complete(parts)
        with refused("NoSuchKey", 404):
            s3.head_object(Bucket=bucket, Key="k")
    upload.complete([one, three])
    assert read(s3, bucket) == samples.blob(PART, 1) + b"end"


def test_completing_twice_is_the_same_answer(s3, bucket):
    """A client lost the first answer and asks again (API_CompleteMultipartUpload: idempotent). Danger: NoSuchUpload for a success.
    Expected: the same ETag, and the object unchanged."""
    upload = Upload(s3, bucket)
    upload.put(1, b"once")
    first = upload.complete()
    assert upload.complete()["ETag"] == first["ETag"]
    assert read(s3, bucket) == b"once"


def test_an_aborted_upload_is_gone(s3, bucket, refused):
    """API_AbortMultipartUpload. Expected: parts, completion and a second abort all say NoSuchUpload; the listing is empty."""
    upload = Upload(s3, bucket)
    upload.put(1, b"x")
    upload.abort()
    for attempt in (lambda: upload.put(2, b"y"), upload.complete, lambda: s3.list_parts(**upload.where, UploadId=upload.id)):
        with refused("NoSuchUpload", 404):
            attempt()
    assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads")
    with refused("NoSuchUpload", 404):
        s3.upload_part(**upload.where, UploadId="made-up", PartNumber=1, Body=b"x")


def test_part_numbers_are_1_to_10000(s3, bucket, refused):
    upload = Upload(s3, bucket)
    for number in (0, 10001, -1):
        with refused("InvalidArgument", 400):
            upload.put(number, b"x")
    upload.put(10000, b"last")
    upload.complete()
    assert read(s3, bucket) == b"last"


def test_two_uploads_to_one_key(s3, bucket):
    """Two clients upload to one key at once. Danger: parts mixed. Expected: the later completion is the object, whole."""
    first, second = Upload(s3, bucket), Upload(s3, bucket)
    assert first.id != second.id
    first.put(1, samples.blob(PART, "first"))
    second.put(1, samples.blob(PART, "second"))
    first.put(2, b"1")
    second.put(2, b"2")
    second.complete()
    assert read(s3, bucket) == samples.blob(PART, "second") + b"2"
    first.complete()
    assert read(s3, bucket) == samples.blob(PART, "first") + b"1"


def test_conditional_completion(s3, bucket, refused):
    """userguide/conditional-writes: If-None-Match:* is judged at complete, not at create."""
    upload = Upload(s3, bucket)
    upload.put(1, b"late")
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"early")["ETag"]
    with refused("PreconditionFailed", 412):
        upload.complete(IfNoneMatch="*")
    assert read(s3, bucket) == b"early"
    again = Upload(s3, bucket)
    again.put(1, b"replaced")
    again.complete(IfMatch=etag)
    assert read(s3, bucket) == b"replaced"


def test_listing_parts(s3, bucket):
    """API_ListParts: sizes, ETags, pages by MaxParts and PartNumberMarker."""
    upload = Upload(s3, bucket)
    for number in (8, 2, 5, 1, 9):
        upload.put(number, samples.blob(number * 100, number))
    seen, marker = [], 0
    for _ in range(10):
        page = s3.list_parts(**upload.where, UploadId=upload.id, MaxParts=2, PartNumberMarker=marker)
        seen += [(part["PartNumber"], part["Size"], part["ETag"]) for part in page["Parts"]]
        if not page["IsTruncated"]:
            break
        marker = page["NextPartNumberMarker"]
    assert seen == [(number, number * 100, upload.parts[number]["ETag"]) for number in (1, 2, 5, 8, 9)]


def test_listing_uploads(s3, bucket):
    """API_ListMultipartUploads: by key, then by start; prefix, delimiter and pages by key and upload id."""
    uploads = [Upload(s3, bucket, key) for key in ("b/1", "a", "b/2", "a", "c")]
    expected = sorted((upload.where["Key"], upload.id) for upload in uploads)
    seen, arguments = [], {}
    for _ in range(10):
        page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=2, **arguments)
        seen += [(entry["Key"], entry["UploadId"]) for entry in page.get("Uploads", [])]
        if not page["IsTruncated"]:
            break
        arguments = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
    assert sorted(seen) == expected and [key for key, _ in seen] == [key for key, _ in expected]
    folded = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [entry["Prefix"] for entry in folded["CommonPrefixes"]] == ["b/"]
    assert [entry["Key"] for entry in folded["Uploads"]] == ["a", "a", "c"]
    assert [entry["Key"] for entry in s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")["Uploads"]] == ["b/1", "b/2"]
    # "If upload-id-marker is not specified, only the keys lexicographically greater than the specified key-marker will be included."
    for marker, keys in [("a", ["b/1", "b/2", "c"]), ("b/1", ["b/2", "c"]), ("b", ["b/1", "b/2", "c"]), ("c", [])]:
        page = s3.list_multipart_uploads(Bucket=bucket, KeyMarker=marker)
        assert [entry["Key"] for entry in page.get("Uploads", [])] == keys, marker


def test_copying_parts(s3, bucket, refused):
    """API_UploadPartCopy of a whole object and of ranges, over stripe borders. A range beyond the source is refused."""
    source = samples.blob(12 * MIB + 5, "source")
    s3.put_object(Bucket=bucket, Key="source", Body=source)
    upload = Upload(s3, bucket, "copied")
    where = {**upload.where, "UploadId": upload.id, "CopySource": {"Bucket": bucket, "Key": "source"}}
    parts = []
    for number, asked in [(1, None), (2, f"bytes=1000-{6 * MIB}"), (3, f"bytes={12 * MIB}-{12 * MIB + 4}")]:
        answer = s3.upload_part_copy(**where, PartNumber=number, **({"CopySourceRange": asked} if asked else {}))
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    with refused("InvalidRange", 416):
        s3.upload_part_copy(**where, PartNumber=4, CopySourceRange=f"bytes=0-{13 * MIB}")
    for senseless in ("0-2", "bytes=0", "bytes=hello-world", "bytes=0-bar", "bytes=hello-", "bytes=0-2,3-5"):
        with refused("InvalidArgument", 400):
            s3.upload_part_copy(**where, PartNumber=4, CopySourceRange=senseless)
    upload.complete(parts)
    expected = source + source[1000 : 6 * MIB + 1] + source[12 * MIB :]
    assert hashlib.sha256(read(s3, bucket, "copied")).digest() == hashlib.sha256(expected).digest()


def test_half_a_part_is_none(target, s3, bucket):
    """PUT with a part number and no upload, or the other way round, by a client that lost the other half. Danger: it is taken for PutObject, and the
    part replaces the object. Expected: InvalidArgument, and the object as it was."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"whole")
    for half in ("partNumber", "uploadId"):
        answer = target.server.signed("PUT", f"/{bucket}/k", b"part", query=[(half, "1")])
        assert (answer.status, answer.code) == (400, "InvalidArgument"), half
    assert read(s3, bucket, "k") == b"whole"


def test_uploads_tell_who_began_them(s3, bucket):
    """API_ListMultipartUploads, API_ListParts. Expected: the initiator is the bucket's owner, by id and by name."""
    upload = Upload(s3, bucket)
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]
    listed = s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]
    parts = s3.list_parts(**upload.where, UploadId=upload.id)
    assert all(answer[who] == owner for answer in (listed, parts) for who in ("Owner", "Initiator"))


def test_ranges_over_part_borders(s3, bucket, rng, rounds):
    """Reads that start in one part and end in another. Expected: as if it were one object."""
    parts = [samples.blob(size, size) for size in (PART, PART + 12345, 3 * KIB)]
    upload = Upload(s3, bucket)
    for number, data in enumerate(parts, 1):
        upload.put(number, data)
    upload.complete()
    whole = b"".join(parts)
    asked = [(PART - 1, PART), (PART, PART), (2 * PART + 12344, 2 * PART + 12345), (0, len(whole) - 1)]
    asked += [tuple(sorted((rng.randrange(len(whole)), rng.randrange(len(whole))))) for _ in range(rounds(20, 300))]
    for first, last in asked:
        answer = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}")
        assert answer["Body"].read() == whole[first : last + 1], (first, last)


def test_reading_one_part(s3, bucket, refused):
    """API_GetObject, partNumber: that part alone, 206, x-amz-mp-parts-count. Parts are counted as completed: 1, 2, …"""
    upload = Upload(s3, bucket)
    upload.put(1, samples.blob(PART, 1))
    upload.put(2, samples.blob(123, 2))
    upload.complete()
    for number, data in [(1, samples.blob(PART, 1)), (2, samples.blob(123, 2))]:
        answer = s3.get_object(Bucket=bucket, Key="k", PartNumber=number)
        assert answer["Body"].read() == data
        assert (answer["PartsCount"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (2, 206)
        assert s3.head_object(Bucket=bucket, Key="k", PartNumber=number)["ContentLength"] == len(data)
    with refused(("InvalidPartNumber", "InvalidPart", "InvalidRange"), (400, 416)):
        s3.get_object(Bucket=bucket, Key="k", PartNumber=3)


@pytest.mark.parametrize("algorithm", sorted(samples.DIGESTS.keys() - {"CRC64NVME"}))
def test_composite_checksums(s3, bucket, algorithm):
    """userguide/checking-object-integrity: the checksum of the parts' checksums, ended with -N, told by complete, HEAD and GET."""
    upload = Upload(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType="COMPOSITE")
    parts = [samples.blob(PART, algorithm), b"the end"]
    for number, data in enumerate(parts, 1):
        given = samples.checksum(algorithm, data)  # of MD5 botocore computes none
        assert upload.put(number, data, **{f"Checksum{algorithm}": given})[f"Checksum{algorithm}"] == given
    expected = samples.composite_checksum(algorithm, parts)
    completed = upload.complete()
    assert (completed[f"Checksum{algorithm}"], completed["ChecksumType"]) == (expected, "COMPOSITE")
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head[f"Checksum{algorithm}"], head["ChecksumType"]) == (expected, "COMPOSITE")


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_full_object_checksums(s3, bucket, refused, algorithm):
    """A CRC of the whole object, joined from those of its parts. Danger: a client's wrong total accepted.
    Expected: BadDigest for a wrong one, the true one told afterwards."""
    upload = Upload(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT")
    parts = [samples.blob(PART, algorithm), samples.blob(PART + 17, algorithm), b"the end"]
    for number, data in enumerate(parts, 1):
        upload.put(number, data, ChecksumAlgorithm=algorithm)
    name, expected = f"Checksum{algorithm}", samples.checksum(algorithm, b"".join(parts))
    with refused("BadDigest", 400):
        upload.complete(ChecksumType="FULL_OBJECT", **{name: samples.checksum(algorithm, b"other")})
    # "If the checksum type doesn't match the checksum type that was specified during CreateMultipartUpload, it'll result in a BadDigest error."
    with refused("BadDigest", 400):
        upload.complete(ChecksumType="COMPOSITE")
    completed = upload.complete(ChecksumType="FULL_OBJECT", **{name: expected})
    assert (completed[name], completed["ChecksumType"]) == (expected, "FULL_OBJECT")
    answer = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert answer[name] == expected
    assert answer["Body"].read() == b"".join(parts)


def test_a_wrong_part_checksum_is_refused(s3, bucket, refused):
    """A part whose CRC does not fit, and a completion that names another CRC than the part's. Expected: BadDigest, InvalidPart."""
    upload = Upload(s3, bucket, ChecksumAlgorithm="CRC32", ChecksumType="COMPOSITE")
    with refused("BadDigest", 400):
        upload.put(1, b"data", ChecksumCRC32=samples.checksum("CRC32", b"other"))
    assert "Parts" not in s3.list_parts(**upload.where, UploadId=upload.id)
    upload.put(1, b"data", ChecksumCRC32=samples.checksum("CRC32", b"data"))
    with refused(("InvalidPart", "BadDigest"), 400):
        upload.complete([upload.parts[1] | {"ChecksumCRC32": samples.checksum("CRC32", b"other")}])
    upload.complete()


FULL, PARTS = "FULL_OBJECT", "COMPOSITE"


@pytest.mark.parametrize(
    ("algorithm", "kinds", "default"),
    [
        ("CRC32", {FULL, PARTS}, PARTS),
        ("CRC32C", {FULL, PARTS}, PARTS),
        ("CRC64NVME", {FULL}, FULL),
        ("SHA1", {PARTS}, PARTS),
        ("SHA256", {PARTS}, PARTS),
        ("SHA512", {PARTS}, PARTS),
        ("MD5", {PARTS}, PARTS),
        ("XXHASH64", {PARTS}, PARTS),
        ("XXHASH3", {PARTS}, PARTS),
        ("XXHASH128", {PARTS}, PARTS),
    ],
)
def test_which_algorithm_goes_with_which_kind(s3, bucket, refused, algorithm, kinds, default):
    """Checksum type by algorithm (userguide/checking-object-integrity, table "Full object and composite checksum types")."""
    place = {"Bucket": bucket, "Key": "k"}
    for kind in (FULL, PARTS):
        if kind not in kinds:
            with refused("InvalidRequest", 400):
                s3.create_multipart_upload(**place, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    for asked in [None, *sorted(kinds)]:
        given = {"ChecksumType": asked} if asked else {}
        begun = s3.create_multipart_upload(**place, ChecksumAlgorithm=algorithm, **given)
        assert (begun["ChecksumAlgorithm"], begun["ChecksumType"]) == (algorithm, asked or default)
        upload = {**place, "UploadId": begun["UploadId"]}
        field = f"Checksum{algorithm}"
        part = s3.upload_part(**upload, PartNumber=1, Body=b"part", **{field: samples.checksum(algorithm, b"part")})
        named = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"], field: part[field]}]}
        done = s3.complete_multipart_upload(**upload, MultipartUpload=named)
        assert done["ChecksumType"] == (asked or default)
        head = s3.head_object(**place, ChecksumMode="ENABLED")
        assert (head[field], head["ChecksumType"]) == (done[field], asked or default)
        assert head[field].endswith("-1") == ((asked or default) == PARTS)
