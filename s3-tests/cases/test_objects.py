"""Objects: bytes in, the same bytes out. AWS: API_PutObject, API_GetObject, API_HeadObject, API_DeleteObject(s)."""

import dataclasses
import email.header
import datetime
import hashlib

import pytest
from botocore.exceptions import ClientError

import samples
import sigv4
from samples import KIB, MIB

# Around every border of the design: nothing, the smallest shard, a packed fragment (64 KiB), a stripe (1 MiB), a segment (64 MiB).
SIZES = [
    0, 1, 15, 31, 32, 33, 1000, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 192 * KIB + 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 3, 64 * MIB - 1,
    64 * MIB + 1,
]

NASTY_KEYS = [
    "plain", "with space", " leading and trailing ", "a+b", "a%20b", "%2e%2e/%2F", "..", ".", "../../../etc/passwd", "a/../b", "a//b", "/leading",
    "trailing/", "//", "a/b", "a/b/c", "quote'\"`", "<xml>&amp;</xml>", "?query=1&b=2#fragment", "semi;colon,comma:at@=$", "back\\slash", "tab\there",
    "new\nline", "naïve/ключ/鍵/🗝", "e\u0301 is not \u00e9", "\u202eright-to-left", "\ufffd", "\U0010fffd", "~tilde*(star)!", "con", "nul.txt", "k" * 1024,
    "é" * 512, "index.json.tmp",
]

METADATA = {"colour": "blue", "empty": "", "with-dash": "a, b; c=d", "spaces": "inner  spaces"}
HEADERS = {
    "ContentType": "text/plain; charset=utf-8", "CacheControl": "max-age=60", "ContentDisposition": 'attachment; filename="x.txt"',
    "ContentLanguage": "fr", "ContentEncoding": "zstd",
}


@pytest.mark.parametrize("size", SIZES)
def test_every_size_comes_back(s3, bucket, body_of, size):
    """Write at one peer, read at another, at sizes around each border of the coding. Danger: an off-by-one in stripes or padding.
    Expected: the same bytes, their MD5 as ETag, the right length in GET and HEAD."""
    data = samples.blob(size, "sizes")
    etag = f'"{samples.md5(data)}"'
    assert s3.put_object(Bucket=bucket, Key="k", Body=data)["ETag"] == etag
    answer = s3.get_object(Bucket=bucket, Key="k")
    assert hashlib.sha256(body_of(answer)).digest() == hashlib.sha256(data).digest()
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (answer["ContentLength"], answer["ETag"], head["ContentLength"], head["ETag"]) == (size, etag, size, etag)
    age = datetime.datetime.now(datetime.timezone.utc) - head["LastModified"]
    assert abs(age) < datetime.timedelta(minutes=5)
    assert head["AcceptRanges"] == "bytes"


@pytest.mark.parametrize("key", NASTY_KEYS)
def test_any_text_is_a_key(s3, bucket, body_of, refused, key):
    """A key is any UTF-8 up to 1,024 bytes (userguide/object-keys). Danger: a key taken for a path, or decoded twice.
    Expected: stored, read, listed and deleted under exactly that name; its neighbours are untouched."""
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.put_object(Bucket=bucket, Key="neighbour", Body=b"n")
    assert body_of(s3.get_object(Bucket=bucket, Key=key)) == key.encode()
    assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(key.encode())
    assert sorted(entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]) == sorted([key, "neighbour"])
    s3.delete_object(Bucket=bucket, Key=key)
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key=key)
    assert body_of(s3.get_object(Bucket=bucket, Key="neighbour")) == b"n"


def test_a_key_has_a_longest_length(s3, bucket, refused):
    """1,024 bytes of UTF-8, not characters. Expected: KeyTooLongError just beyond, for ASCII and for two-byte letters."""
    for key in ("k" * 1025, "é" * 513):
        with refused("KeyTooLongError", 400):
            s3.put_object(Bucket=bucket, Key=key, Body=b"x")


def test_nested_keys_live_side_by_side(s3, bucket, body_of):
    """`a`, `a/`, `a/b` and `a/b/c` are four objects. Danger: a store that maps keys to files cannot hold them."""
    keys = ["a", "a/", "a/b", "a/b/c"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in keys:
        assert body_of(s3.get_object(Bucket=bucket, Key=key)) == key.encode()


def test_headers_and_metadata_come_back(s3, bucket):
    """The standard headers and x-amz-meta-* of a PUT. Expected: GET and HEAD give each back; without a type binary/octet-stream."""
    expires = datetime.datetime(2031, 5, 4, 3, 2, 1, tzinfo=datetime.timezone.utc)
    s3.put_object(Bucket=bucket, Key="full", Body=b"x", Metadata=METADATA, Expires=expires, **HEADERS)
    s3.put_object(Bucket=bucket, Key="bare", Body=b"x")
    for read in (s3.get_object, s3.head_object):
        answer = read(Bucket=bucket, Key="full")
        assert {name: answer[name] for name in HEADERS} == HEADERS
        assert answer["ResponseMetadata"]["HTTPHeaders"]["expires"] == "Sun, 04 May 2031 03:02:01 GMT"
        assert answer["Metadata"] == METADATA
        assert read(Bucket=bucket, Key="bare")["ContentType"] == "binary/octet-stream"


def test_metadata_given_twice(target, s3, bucket):
    """userguide/UsingMetadata: values of one name are one list. Expected: both, in order, under a signature that covers them so."""
    server = target.server
    put = server.request("PUT", f"/{bucket}/k", x_amz_meta_colour="red,blue")
    request = server.credentials.authorize(put, sigv4.UNSIGNED)
    lines = request.headers | {"x-amz-meta-colour": "red\r\nx-amz-meta-colour: blue", "content-length": "1"}
    answer = server.send(dataclasses.replace(request, headers=lines), b"x")
    assert answer.status == 200, str(answer)
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"colour": "red,blue"}


def test_metadata_has_a_limit(s3, bucket, refused):
    """2 KB of user metadata, names and values together (userguide/UsingMetadata). Expected: at the limit stored, beyond it
    MetadataTooLarge and no object."""
    s3.put_object(Bucket=bucket, Key="at", Body=b"x", Metadata={"n": "v" * 2000})
    with refused("MetadataTooLarge", 400):
        s3.put_object(Bucket=bucket, Key="beyond", Body=b"x", Metadata={"n": "v" * 2100})
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="beyond")


def test_overwriting_replaces_everything(s3, bucket, body_of, rounds):
    """The same key again and again, longer, shorter, with and without metadata. Danger: a mixture of two objects.
    Expected: always the last one whole, at every peer."""
    for turn in range(rounds(20, 300)):
        data = samples.blob((turn * 7919) % (300 * KIB), turn)
        metadata = {"turn": str(turn)} if turn % 2 else {}
        s3.put_object(Bucket=bucket, Key="k", Body=data, Metadata=metadata)
        answer = s3.get_object(Bucket=bucket, Key="k")
        assert (body_of(answer), answer["Metadata"]) == (data, metadata)


def test_what_is_not_there(s3, bucket, refused):
    """Reading a missing key is NoSuchKey; deleting one is success (API_DeleteObject), as often as one likes."""
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key="missing")
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="missing")
    for _ in range(2):
        assert s3.delete_object(Bucket=bucket, Key="missing")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_many_deletes_in_one_request(s3, bucket):
    """API_DeleteObjects: up to 1,000 keys, missing ones count as deleted, Quiet tells errors only. Danger: one bad key stops the rest."""
    present = [f"dir/{number:03}" for number in range(40)] + ["<&>", "a b+c", "ключ"]
    for key in present:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    asked = [{"Key": key} for key in present + ["missing"]]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": asked})
    assert sorted(entry["Key"] for entry in answer["Deleted"]) == sorted(present + ["missing"])
    assert not answer.get("Errors")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": asked, "Quiet": True})
    assert not quiet.get("Deleted") and not quiet.get("Errors")


def test_too_many_deletes_in_one_request(s3, bucket, refused, body_of):
    """1,001 keys. Expected: MalformedXML, and none of them deleted."""
    s3.put_object(Bucket=bucket, Key="k0", Body=b"x")
    with refused("MalformedXML", 400):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"k{number}"} for number in range(1001)]})
    assert body_of(s3.get_object(Bucket=bucket, Key="k0")) == b"x"


RANGED_SIZE = 3 * MIB + 7
RANGES = [
    ("bytes=0-0", (0, 1)), ("bytes=0-", (0, RANGED_SIZE)), ("bytes=-1", (RANGED_SIZE - 1, RANGED_SIZE)), ("bytes=1-1", (1, 2)),
    ("bytes=65535-65536", (65535, 65537)), (f"bytes={MIB - 1}-{MIB}", (MIB - 1, MIB + 1)), (f"bytes={MIB}-{2 * MIB - 1}", (MIB, 2 * MIB)),
    (f"bytes={3 * MIB}-", (3 * MIB, RANGED_SIZE)), (f"bytes=5-{RANGED_SIZE * 2}", (5, RANGED_SIZE)), (f"bytes=-{RANGED_SIZE * 2}", (0, RANGED_SIZE)),
    (f"bytes={RANGED_SIZE - 1}-", (RANGED_SIZE - 1, RANGED_SIZE)),
]


@pytest.fixture
def ranged(s3, bucket) -> bytes:
    data = samples.blob(RANGED_SIZE, "ranged")
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    return data


def test_ranges(s3, bucket, body_of, ranged, rng, rounds):
    """RFC 9110, 14: first-last, open and suffix ranges, clipped at the end, over stripe borders and at random.
    Expected: 206, exactly those bytes, a true Content-Range."""
    asked = list(RANGES)
    for _ in range(rounds(60, 1000)):
        first, last = sorted((rng.randrange(RANGED_SIZE), rng.randrange(RANGED_SIZE)))
        asked.append((f"bytes={first}-{last}", (first, last + 1)))
    for header, (start, end) in asked:
        answer = s3.get_object(Bucket=bucket, Key="k", Range=header)
        assert body_of(answer) == ranged[start:end], header
        assert answer["ContentRange"] == f"bytes {start}-{end - 1}/{RANGED_SIZE}", header
        assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["ContentLength"]) == (206, end - start)


def test_ranges_that_cannot_be_met(s3, bucket, refused, body_of, ranged):
    """A start beyond the end, an empty suffix, any range of an empty object: InvalidRange. A range with last before first, or in another
    unit, is no range at all: AWS answers the whole object; PALM's front end refuses it as InvalidArgument. Never a part of it."""
    for header in (f"bytes={RANGED_SIZE}-", f"bytes={RANGED_SIZE + 10}-{RANGED_SIZE + 20}", "bytes=-0"):
        with refused("InvalidRange", 416):
            s3.get_object(Bucket=bucket, Key="k", Range=header)
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    with refused("InvalidRange", 416):
        s3.get_object(Bucket=bucket, Key="empty", Range="bytes=0-0")
    for header in ("bytes=5-4", "lines=1-2"):
        try:
            answer = s3.get_object(Bucket=bucket, Key="k", Range=header)
        except ClientError as refusal:
            assert refusal.response["Error"]["Code"] == "InvalidArgument"
            continue
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert len(body_of(answer)) == RANGED_SIZE


def test_a_download_goes_on_only_with_the_same_object(target, s3, bucket):
    """If-Range (RFC 9110, section 13.1.5), as browsers send it. Danger: the object was replaced meanwhile and a file is made of both. Expected: the
    rest where tag or date are those of the object, else all of it, for GET and HEAD."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    known = s3.head_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPHeaders"]
    same = [known["etag"], known["last-modified"]]
    for named in [*same, '"other"', "W/" + known["etag"], "Sat, 29 Oct 1994 19:43:31 GMT", ""]:
        for method in ("GET", "HEAD"):
            answer = target.server.signed(method, f"/{bucket}/k", range="bytes=6-", if_range=named)
            status, body = (206, b"6789") if named in same else (200, b"0123456789")
            assert (answer.status, answer.headers["content-length"]) == (status, str(len(body))), named
            assert answer.body == (body if method == "GET" else b""), named


def test_head_of_a_range(s3, bucket, ranged):
    """API_HeadObject with Range: 206 and the length of the range."""
    answer = s3.head_object(Bucket=bucket, Key="k", Range="bytes=10-19")
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["ContentLength"]) == (206, 10)


def test_conditional_reads(s3, bucket, refused):
    """API_GetObject: If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, and which of two wins (RFC 9110, 13.2.2)."""
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    before, after = modified - datetime.timedelta(hours=1), modified + datetime.timedelta(seconds=1)
    other = '"00000000000000000000000000000000"'
    for read in (s3.get_object, s3.head_object):
        def ask(read=read, **conditions):
            return read(Bucket=bucket, Key="k", **conditions)["ResponseMetadata"]["HTTPStatusCode"]

        assert ask(IfMatch=etag) == 200
        assert ask(IfNoneMatch=other) == 200
        assert ask(IfModifiedSince=before) == 200
        assert ask(IfUnmodifiedSince=after) == 200
        assert ask(IfMatch=etag, IfUnmodifiedSince=before) == 200
        for status, conditions in [
            (412, {"IfMatch": other}), (304, {"IfNoneMatch": etag}), (304, {"IfModifiedSince": modified}),
            (412, {"IfUnmodifiedSince": before}), (304, {"IfNoneMatch": etag, "IfModifiedSince": before}),
        ]:
            with refused(("PreconditionFailed", str(status)), status):
                ask(**conditions)


def test_conditional_writes(s3, bucket, refused, body_of):
    """userguide/conditional-writes: If-None-Match:* creates once, If-Match replaces the version it names. Danger: a lost update."""
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    assert body_of(s3.get_object(Bucket=bucket, Key="k")) == b"1"
    second = s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=first)["ETag"]
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=first)
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=bucket, Key="missing", Body=b"3", IfMatch=first)
    assert body_of(s3.get_object(Bucket=bucket, Key="k")) == b"2"
    s3.delete_object(Bucket=bucket, Key="k")
    s3.put_object(Bucket=bucket, Key="k", Body=b"4", IfNoneMatch="*")
    assert second != first


def test_conditional_delete(s3, bucket, refused):
    """userguide/conditional-deletes: If-Match on DELETE. Danger: the delete of one writer removes another's newer object."""
    old = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    new = s3.put_object(Bucket=bucket, Key="k", Body=b"2")["ETag"]
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket=bucket, Key="k", IfMatch=old)
    s3.head_object(Bucket=bucket, Key="k")
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=new)
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="k")


def test_an_expiry_that_is_no_date_is_answered_as_it_is(target, s3, bucket):
    """API_GetObject, response-expires: it sets the header Expires. Expected: what was asked for, as a stored Expires that is no date is
    answered too; nothing for who signs wrongly."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    answer = target.server.signed("GET", f"/{bucket}/k", query=[("response-expires", "whenever")])
    assert (answer.status, answer.body, answer.headers["expires"]) == (200, b"data", "whenever")
    presigned = target.server.credentials.presign(target.server.request("GET", f"/{bucket}/k", [("response-expires", "whenever")]))
    assert target.server.send(presigned).headers["expires"] == "whenever"
    tampered = dataclasses.replace(presigned, query=[(name, "never" if name == "response-expires" else value) for name, value in presigned.query])
    assert target.server.send(tampered).code == "SignatureDoesNotMatch"


def test_a_reader_can_choose_response_headers(s3, bucket):
    """API_GetObject, response-* parameters: a download link sets its own type and file name. Expected: sent back instead of the stored."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="text/plain")
    answer = s3.get_object(
        Bucket=bucket, Key="k", ResponseContentType="application/pdf", ResponseContentDisposition='attachment; filename="a.pdf"',
        ResponseCacheControl="no-store",
    )
    assert answer["ContentType"] == "application/pdf"
    assert answer["ContentDisposition"] == 'attachment; filename="a.pdf"'
    assert answer["CacheControl"] == "no-store"


def test_every_answer_has_a_request_id(s3, bucket, refused):
    """x-amz-request-id ties a complaint to the log. Expected: on success and on refusal, never the same twice."""
    seen = [s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"] for _ in range(3)]
    with refused("NoSuchKey", 404) as caught:
        s3.get_object(Bucket=bucket, Key="missing")
    seen.append(caught.value.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"])
    assert len(set(seen)) == 4 and all(seen)


def test_metadata_beyond_ascii(target, bucket):
    """User metadata in UTF-8. Expected: it comes back as RFC 2047 writes it, as headers are ASCII (userguide/UsingMetadata)."""
    answer = target.server.signed("PUT", f"/{bucket}/k", b"x", **{"x-amz-meta-name": "Zoë", "x-amz-meta-plain": "a b"})
    assert answer.status == 200, answer
    headers = target.server.signed("HEAD", f"/{bucket}/k").headers
    decoded = str(email.header.make_header(email.header.decode_header(headers["x-amz-meta-name"])))
    assert (decoded, headers["x-amz-meta-plain"]) == ("Zoë", "a b")


def test_website_redirects_lead_somewhere(s3, bucket, refused):
    """x-amz-website-redirect-location begins with a slash or a scheme (API_PutObject)."""
    for target in ("/other", "http://example.com/", "https://example.com/"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", WebsiteRedirectLocation=target)
        assert s3.head_object(Bucket=bucket, Key="k")["WebsiteRedirectLocation"] == target
    with refused("InvalidRedirectLocation", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", WebsiteRedirectLocation="other")
