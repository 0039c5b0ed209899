"""Headers that are missing, empty, wrong, twice or bent. AWS: API/RESTCommonRequestHeaders; RFC 9112, 6.1 and 11.2 (request smuggling)."""

import dataclasses

import pytest

import sigv4

DATA = b"ten bytes."


def send(target, method, path, body=b"", without=(), changed=(), **headers):
    """A signed request from which headers are then taken away or to which others are given: those are not signed."""
    server = target.server
    request = server.credentials.authorize(server.request(method, path, **headers), sigv4.sha256(body))
    kept = {name: value for name, value in request.headers.items() if name not in without}
    return server.send(dataclasses.replace(request, headers=kept | dict(changed)), body)


# What is changed, and the status and code that answer it. A code of None: HTTP itself is broken, so the answer need not be S3's.
BROKEN = {
    "authorization empty": ({"authorization": ""}, 403, "AccessDenied"),
    "authorization of version 2": ({"authorization": "AWS AKIDEXAMPLE:c2lnbmF0dXJl"}, 400, "InvalidRequest"),
    "authorization of nobody": ({"authorization": "AWS HAHAHA"}, 400, "InvalidArgument"),
    "authorization of the web": ({"authorization": "Bearer token"}, 400, "InvalidArgument"),
    "authorization cut short": ({"authorization": "AWS4-HMAC-SHA256 Credential="}, 400, "AuthorizationHeaderMalformed"),
    "date empty": ({"x-amz-date": ""}, 403, "AccessDenied"),
    "date no date": ({"x-amz-date": "Bad Date"}, 403, "AccessDenied"),
    "date of another day": ({"x-amz-date": "20100707T215304Z"}, 403, ("SignatureDoesNotMatch", "RequestTimeTooSkewed")),
    "date before the epoch": ({"x-amz-date": "19500707T215304Z"}, 403, ("SignatureDoesNotMatch", "RequestTimeTooSkewed", "AccessDenied")),
    "date far ahead": ({"x-amz-date": "99990707T215304Z"}, 403, ("SignatureDoesNotMatch", "RequestTimeTooSkewed")),
    "length negative": ({"content-length": "-1"}, 400, None),
    "length empty": ({"content-length": ""}, 400, None),
    "length no number": ({"content-length": "ten"}, 400, None),
    "type unprintable": ({"content-type": "\x08"}, 400, None),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("path", ["/{bucket}/k", "/{bucket}-new"], ids=["object", "bucket"])
def test_a_broken_header(target, s3, bucket, path, name):
    """PUT of an object and of a bucket. Expected: AWS's refusal, nothing made."""
    changed, status, codes = BROKEN[name]
    answer = send(target, "PUT", path.format(bucket=bucket), changed=changed)
    assert answer.status == status, str(answer)
    assert codes is None or answer.code in ((codes,) if isinstance(codes, str) else codes), str(answer)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert f"{bucket}-new" not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]


@pytest.mark.parametrize("without, status, code", [
    ("authorization", 403, "AccessDenied"), ("x-amz-date", 403, "AccessDenied"), ("x-amz-content-sha256", 400, "InvalidRequest"),
])
def test_a_missing_header(target, bucket, without, status, code):
    """One header of a signed PUT is left out. Expected: AWS's refusal."""
    answer = send(target, "PUT", f"/{bucket}/k", DATA, without=(without,))
    assert (answer.status, answer.code) == (status, code), str(answer)


@pytest.mark.parametrize("digest, code", [
    ("", "InvalidDigest"), ("YWJyYWNhZGFicmE=", "InvalidDigest"), ("not base64", "InvalidDigest"), ("rL0Y20xC+Fzt72VPzMSk2A==", "BadDigest"),
])
def test_a_digest_that_is_none(target, bucket, digest, code):
    """Content-MD5 empty, too short, no base64, another's. Expected: InvalidDigest for what cannot be one, BadDigest for what is wrong."""
    answer = send(target, "PUT", f"/{bucket}/k", DATA, content_md5=digest)
    assert (answer.status, answer.code) == (400, code), str(answer)


@pytest.mark.parametrize("header", [
    {"content-type": ""}, {"content-type": "text/plain"}, {"user-agent": ""}, {"expect": "200"}, {"expect": ""}, {"date": "Bad Date"}, {"date": ""},
    {"x-unknown": "v" * 1000}, {"connection": "close"}, {"accept-encoding": "gzip, br"}, {"origin": "http://elsewhere.example"}, {"te": "trailers"},
], ids=str)
def test_headers_that_do_not_matter(target, s3, bucket, header):
    """Empty, odd or unknown ones that are not signed. Expected: taken, stored."""
    assert send(target, "PUT", f"/{bucket}/k", DATA, changed=header).status == 200
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == DATA


def test_header_names_in_any_case(target, s3, bucket):
    """HTTP's header names have no case, user metadata's neither. Expected: stored under the lower case."""
    server = target.server
    request = server.credentials.authorize(server.request("PUT", f"/{bucket}/k", x_amz_meta_Colour="Blue"), sigv4.sha256(DATA))
    shouted = {name.upper(): value for name, value in request.headers.items()} | {"CONTENT-LENGTH": str(len(DATA))}
    assert server.send(dataclasses.replace(request, headers=shouted), DATA).status == 200
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"colour": "Blue"}


SMUGGLED = {
    "two lengths": "content-length: 10\r\ncontent-length: 60\r\n",
    "a list of lengths": "content-length: 10, 60\r\n",
    "length and chunks": "content-length: 60\r\ntransfer-encoding: chunked\r\n",
    "chunks twice": "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
    "chunks by another name": "transfer-encoding: xchunked\r\n",
    "a signed plus": "content-length: +10\r\n",
    "space before the colon": "content-length : 10\r\n",
    "a bare return": "content-length: 10\r\nx-bare: a\rb\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_a_smuggled_request(target, s3, bucket, name):
    """A head whose length two readers understand differently, with a second request hidden in its body. Danger: behind a proxy the second
    one is answered to another client. Expected: one answer at most before the connection ends, and never one to the hidden request."""
    s3.put_object(Bucket=bucket, Key="hidden", Body=b"for others")
    server = target.server
    request = server.credentials.authorize(server.request("PUT", f"/{bucket}/k"), sigv4.UNSIGNED)
    head = request.head()[:-2] + SMUGGLED[name].encode() + b"\r\n"
    hidden = server.credentials.authorize(server.request("GET", f"/{bucket}/hidden"), sigv4.EMPTY_SHA256)
    body = b"0\r\n\r\n12345" if "chunk" in name or "length and" in name else DATA
    answers = b""
    with server.connect() as connection:
        connection.settimeout(5)
        connection.sendall(head + body + hidden.head())
        try:
            while part := connection.recv(65536):
                answers += part
        except (TimeoutError, ConnectionError):
            pass
    assert b"for others" not in answers, answers[:300]
    assert answers.count(b"HTTP/1.1 ") <= 1 and not answers.startswith(b"HTTP/1.1 5"), answers[:300]
