"""What HTTP itself asks of a server. AWS: ErrorResponses, RESTCommonResponseHeaders, API_GetObject; RFC 9110 and RFC 9112."""

import re
import time

import pytest

import sigv4


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [("PATCH", "/{bucket}/k", []), ("PUT", "/", []), ("DELETE", "/", []), ("POST", "/{bucket}/k", []), ("FOO", "/{bucket}", [])],
)
def test_methods_that_a_resource_has_not(target, bucket, method, path, query):
    """A method that the resource does not know (ErrorResponses). Expected: 405 MethodNotAllowed, as XML with the request's id."""
    answer = target.server.signed(method, path.format(bucket=bucket), b"", query)
    assert (answer.status, answer.code) == (405, "MethodNotAllowed"), answer
    assert answer.headers["x-amz-request-id"].encode() in answer.body


def test_overrides_are_for_those_who_sign(target, s3, bucket):
    """response-* parameters (API_GetObject, "Overriding response headers"). Danger: a public text file is made a page of this host by whoever
    makes the link. Expected: signed requests have them, anonymous ones 400 InvalidRequest."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    query = [("response-content-type", "text/html")]
    server = target.server
    assert server.signed("GET", f"/{bucket}/k", query=query).headers["content-type"] == "text/html"
    answer = server.send(server.request("GET", f"/{bucket}/k", query))
    assert (answer.status, answer.code) == (400, "InvalidRequest"), answer


READS = {
    "date": {"if_modified_since": "yesterday"}, "since": {"if_unmodified_since": "1994-10-29"}, "range": {"range": "bytes=a-b"},
    "ranges": {"range": "bytes=0-0,2-2"}, "unit": {"range": "lines=1-2"}, "all": {"range": "x", "if_modified_since": "x", "if_unmodified_since": "x"},
}


@pytest.mark.parametrize("name", READS)
def test_senseless_headers_are_passed_over(target, s3, bucket, name):
    """Dates that are none and ranges that are none or several (RFC 9110, 13.1.3 and 14.2). Danger: a player or a cache gets 400 for ever; or the
    way around lets somebody in who may not. Expected: the whole object, for who signed; in headers and in the URL."""
    s3.put_object(Bucket=bucket, Key="a b", Body=b"whole")
    server = target.server
    for method in ["GET", "HEAD"]:
        answer = server.signed(method, f"/{bucket}/a b", **READS[name])
        assert (answer.status, answer.body) == (200, b"whole" if method == "GET" else b""), answer
    presigned = server.credentials.presign(server.request("GET", f"/{bucket}/a b", **READS[name]))
    answer = server.send(presigned)
    assert (answer.status, answer.body) == (200, b"whole"), answer
    wrong = sigv4.Credentials(server.credentials.access_key, "not the secret")
    request = server.request("GET", f"/{bucket}/a b", **READS[name])
    assert server.send(wrong.authorize(request, sigv4.EMPTY_SHA256)).code == "SignatureDoesNotMatch"
    assert server.send(wrong.presign(request)).code == "SignatureDoesNotMatch"
    assert server.send(request).status == 403
    missing = server.signed("GET", f"/{bucket}/none", **READS[name])
    assert (missing.status, missing.code) == (404, "NoSuchKey")


def test_a_date_that_makes_sense_still_counts(target, s3, bucket):
    """A good condition beside a senseless header. Expected: it is obeyed."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    tag = s3.head_object(Bucket=bucket, Key="k")["ETag"]
    assert target.server.signed("GET", f"/{bucket}/k", if_none_match=tag, range="bytes=x").status == 304
    assert target.server.signed("GET", f"/{bucket}/k", if_match='"other"', if_modified_since="x").status == 412


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/no-such-bucket-for-http", "/no-such-bucket-for-http/k"])
def test_every_answer_has_its_ids(target, method, path):
    """Unsigned requests of every method everywhere. Danger: an operator cannot find the request. Expected: 4xx with both ids; HEAD has no body."""
    answer = target.server.send(target.server.request(method, path))
    assert answer.headers["x-amz-request-id"] and answer.headers["x-amz-id-2"]
    if (method, path, answer.status) == ("GET", "/", 200):
        assert b"<Name>" not in answer.body, "nobody has no buckets"
        return
    assert 400 <= answer.status < 500, answer
    if method == "HEAD":
        assert answer.body == b""
    else:
        assert re.search(rb"<Code>\w+</Code>.*<RequestId>" + answer.headers["x-amz-request-id"].encode(), answer.body, re.DOTALL), answer


def test_a_body_is_waited_for_with_continue(target, s3, bucket, body_of):
    """Expect: 100-continue (RFC 9110, 10.1.1). Expected: 100 before the body is sent, for who may; the error at once for who may not."""
    server = target.server
    request = server.request("PUT", f"/{bucket}/k", expect="100-continue", content_length="4")
    with server.connect() as connection:
        connection.sendall(server.credentials.authorize(request, sigv4.sha256(b"data")).head())
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        connection.sendall(b"data")
        assert server.read_answer(connection).status == 200
    assert body_of(s3.get_object(Bucket=bucket, Key="k")) == b"data"
    with server.connect() as connection:
        connection.sendall(request.head())
        assert connection.recv(4096).startswith(b"HTTP/1.1 403")


HEADS = {
    "no-http": b"hello\r\n\r\n", "no-version": b"GET /\r\n\r\n", "bad-version": b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
    "bad-header": b"GET / HTTP/1.1\r\nhost x\r\n\r\n", "folded": b"GET / HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n",
    "large": b"GET / HTTP/1.1\r\nhost: x\r\nx-large: " + b"x" * 200_000 + b"\r\n\r\n",
    "many": b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"x-%d: 1\r\n" % number for number in range(5000)) + b"\r\n",
    "two-lengths": b"PUT /b/k HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    "length-and-chunks": b"PUT /b/k HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad-length": b"PUT /b/k HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", "bad-escape": b"GET /b/%zz%ff HTTP/1.1\r\nhost: x\r\n\r\n",
    "two-hosts": b"GET /b HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", "raw-bytes": b"GET /b/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", HEADS)
def test_malformed_heads(target, s3, bucket, name):
    """Heads that are no HTTP, or too much of it. Danger: a crash, a 5xx, or a request smuggled behind another. Expected: 4xx or the end of the
    connection, promptly, and the server goes on."""
    began = time.monotonic()
    with target.server.connect() as connection:
        connection.sendall(HEADS[name])
        answer = connection.recv(65536)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert time.monotonic() - began < 20
    s3.head_bucket(Bucket=bucket)
