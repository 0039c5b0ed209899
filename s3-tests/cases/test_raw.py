"""What no good client sends: broken framing, lies about length, silence, unknown operations. All through plain sockets."""

import dataclasses
import socket
import time

import pytest

import samples
import sigv4

DATA = samples.blob(100_000, "raw")


def chunked_put(server, bucket, body: bytes, decoded_length: int, key="k"):
    """A signed-header, unsigned-payload aws-chunked PUT with any body bytes."""
    request = server.request(
        "PUT", f"/{bucket}/{key}", content_encoding="aws-chunked", x_amz_trailer="x-amz-checksum-crc32",
        x_amz_decoded_content_length=str(decoded_length),
    )
    return server.send(server.credentials.authorize(request, sigv4.STREAMING_UNSIGNED_TRAILER), body)


def trailer(data=DATA):
    return {"x-amz-checksum-crc32": samples.checksum("CRC32", data)}


@pytest.fixture
def nothing_stored(s3, bucket, refused):
    yield
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="k")


BROKEN_FRAMING = {
    "no-chunks": b"", "not-hex": b"zz\r\n" + DATA, "size-too-large": b"ffffffffffffffff\r\n" + DATA, "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "no-crlf-after-chunk": b"5\r\nhello0\r\n\r\n", "cut-in-chunk": b"fff\r\nshort", "no-last-chunk": b"5\r\nhello\r\n", "endless-size-line": b"0" * 70_000,
    "lf-only": b"5\nhello\n0\n\n",
}


@pytest.mark.parametrize("name", BROKEN_FRAMING)
def test_broken_chunk_framing(target, bucket, nothing_stored, name):
    """Danger: a panic, a hang, or half a body stored. Expected: a 4xx, nothing stored."""
    answer = chunked_put(target.server, bucket, BROKEN_FRAMING[name], len(DATA) if "hello" not in str(BROKEN_FRAMING[name]) else 5)
    assert 400 <= answer.status < 500, str(answer)


@pytest.mark.parametrize("lie", [-1, 1, 5_000_000, -len(DATA)])
def test_a_decoded_length_that_lies(target, bucket, nothing_stored, lie):
    """x-amz-decoded-content-length says another size than the chunks hold. Expected: 400, nothing stored."""
    answer = chunked_put(target.server, bucket, sigv4.unsigned_chunks([DATA], trailer()), len(DATA) + lie)
    assert answer.status == 400, str(answer)


def test_a_missing_trailer(target, bucket, nothing_stored):
    """The trailer that x-amz-trailer announced does not come. Expected: 400, nothing stored."""
    answer = chunked_put(target.server, bucket, sigv4.unsigned_chunks([DATA], {}), len(DATA))
    assert answer.status == 400, str(answer)


def test_no_length_at_all(target, bucket, nothing_stored):
    """API_PutObject needs a length (MissingContentLength, 411). Expected: 411, nothing stored."""
    server = target.server
    request = server.credentials.authorize(server.request("PUT", f"/{bucket}/k"), sigv4.UNSIGNED)
    request = dataclasses.replace(request, headers=request.headers | {"transfer-encoding": "chunked"})
    answer = server.send(request, b"5\r\nhello\r\n0\r\n\r\n")
    assert (answer.status, answer.code) == (411, "MissingContentLength"), str(answer)


def test_a_body_that_ends_early(target, s3, bucket, nothing_stored):
    """The client promises 100,000 bytes, sends 60,000 and closes. Danger: a truncated object that looks whole.
    Expected: nothing visible, and the peer serves on."""
    server = target.server
    for _ in range(5):
        request = server.credentials.authorize(server.request("PUT", f"/{bucket}/k"), sigv4.UNSIGNED)
        request = dataclasses.replace(request, headers=request.headers | {"content-length": str(len(DATA))})
        with server.connect() as connection:
            connection.sendall(request.head() + DATA[:60_000])
    time.sleep(0.2)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_slow_but_honest_client(target, s3, bucket):
    """A body that drips in over two seconds. Expected: stored."""
    server, data = target.server, samples.blob(4000, "slow")
    request = server.credentials.authorize(server.request("PUT", f"/{bucket}/slow"), sigv4.UNSIGNED)
    request = dataclasses.replace(request, headers=request.headers | {"content-length": str(len(data))})
    with server.connect() as connection:
        connection.sendall(request.head())
        for start in range(0, len(data), 200):
            connection.sendall(data[start : start + 200])
            time.sleep(0.1)
        assert server.read_answer(connection, "PUT").status == 200
    assert s3.get_object(Bucket=bucket, Key="slow")["Body"].read() == data


def test_expect_continue(target, s3, bucket):
    """SDKs ask before they send a body. Expected: 100 Continue for a good request; a refusal comes without the body being read."""
    server = target.server
    for credentials, status in [(server.credentials, 200), (dataclasses.replace(server.credentials, secret_key="wrong"), 403)]:
        request = credentials.authorize(server.request("PUT", f"/{bucket}/asked", expect="100-continue"), sigv4.UNSIGNED)
        request = dataclasses.replace(request, headers=request.headers | {"content-length": "5"})
        with server.connect() as connection:
            connection.sendall(request.head())
            if status == 200:
                assert connection.recv(1024).startswith(b"HTTP/1.1 100")
                connection.sendall(b"hello")
            assert server.read_answer(connection, "PUT").status == status
    assert s3.get_object(Bucket=bucket, Key="asked")["Body"].read() == b"hello"


def test_expect_continue_of_nothing(target, s3, bucket):
    """An empty file sent as aws-cli 1 does, which asks before it sends no bytes. Danger: with the answer to that it misreads its next request
    on the connection, and waits a minute. Expected: a 100, or the connection ends."""
    server = target.server
    request = server.request("PUT", f"/{bucket}/nothing", expect="100-continue", content_length="0")
    with server.connect() as connection:
        connection.sendall(server.credentials.authorize(request, sigv4.sha256(b"")).head())
        told = connection.recv(4096).lower()
    assert told.startswith(b"http/1.1 100") or told.startswith(b"http/1.1 200") and b"\r\nconnection: close\r\n" in told, told
    assert s3.get_object(Bucket=bucket, Key="nothing")["Body"].read() == b""


def test_one_connection_many_requests(target, s3, bucket):
    """Keep-alive and pipelining: fifty requests down one socket before the first answer is read. Expected: fifty answers in order."""
    server = target.server
    for number in range(5):
        s3.put_object(Bucket=bucket, Key=str(number), Body=str(number).encode())
    with server.connect() as connection:
        for number in range(50):
            request = server.credentials.authorize(server.request("GET", f"/{bucket}/{number % 5}"), sigv4.EMPTY_SHA256)
            connection.sendall(request.head())
        reader = connection.makefile("rb")
        for number in range(50):
            assert reader.readline().startswith(b"HTTP/1.1 200")
            length = 0
            while (line := reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert reader.read(length) == str(number % 5).encode()


def test_xml_bombs_and_giants(target, s3, bucket):
    """Entity expansion, deep nesting, megabytes of XML. Danger: memory and seconds. Expected: MalformedXML (or 413) within a second."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    bomb = b'<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>'
    deep = b"<Delete>" * 50_000
    giant = b"<Delete>" + b"<Object><Key>k</Key></Object>" * 150_000 + b"</Delete>"
    for body in (bomb, deep, giant, b"", b"<Delete>", b"\xff\xfe\x00", b"<Delete><Object><Key>a\x00</Key></Object></Delete>"):
        started = time.monotonic()
        try:
            answer = target.server.signed("POST", f"/{bucket}", body, [("delete", "")], content_md5=samples.base64_md5(body))
            assert 400 <= answer.status < 500, f"{body[:60]!r}: {answer}"
        except ConnectionError:  # refused by its length, before it was all sent
            assert body is giant
        assert time.monotonic() - started < 5
    s3.head_object(Bucket=bucket, Key="k")


GARBAGE = [b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 100_000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + b"\r\n", b"\x16\x03\x01\x02\x00\x01"]


@pytest.mark.parametrize("index", range(len(GARBAGE)))
def test_garbage_on_the_port(target, s3, bucket, index):
    """Not HTTP at all. Expected: an HTTP refusal or a closed connection within seconds, and the peer serves on."""
    with target.server.connect() as connection:
        connection.settimeout(40)
        try:
            connection.sendall(GARBAGE[index])
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        except OSError:  # closed under our hands
            answer = b""
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505", b"HTTP/1.0 4")), answer[:100]
    s3.head_bucket(Bucket=bucket)


def test_idle_connections_do_not_block_others(target, s3, bucket):
    """Two hundred connections that say nothing, or half a header. Expected: others are served as before."""
    server = target.server
    idle = [server.connect() for _ in range(200)]
    try:
        for connection in idle[::2]:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: ")
        started = time.monotonic()
        for _ in range(10):
            s3.head_bucket(Bucket=bucket)
        assert time.monotonic() - started < 5
    finally:
        for connection in idle:
            connection.close()


def test_stalled_readers_do_not_block_others(target, s3, bucket):
    """Twelve clients ask one peer for a large object and then read nothing, as a laptop that goes to sleep does. Danger: what they do not
    take fills the buffers between the peers, and with them everybody's requests stand still. Expected: others are served as before."""
    s3.put_object(Bucket=bucket, Key="large", Body=samples.blob(64 * samples.MIB, "stalled"))
    s3.put_object(Bucket=bucket, Key="small", Body=DATA)
    server, stalled = sigv4.Server(target.any_endpoint(), target.server.credentials), []
    for _ in range(12):
        connection = server.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = server.credentials.authorize(server.request("GET", f"/{bucket}/large"), sigv4.EMPTY_SHA256)
        connection.sendall(request.head())
        stalled.append(connection)
    try:
        for connection in stalled:
            assert connection.recv(12) == b"HTTP/1.1 200"
        for turn in range(5):
            started = time.monotonic()
            assert server.signed("PUT", f"/{bucket}/turn-{turn}", DATA).status == 200
            answer = server.signed("GET", f"/{bucket}/small")
            assert (answer.status, answer.body) == (200, DATA), str(answer)[:300]
            assert server.signed("GET", f"/{bucket}", query=[("list-type", "2")]).status == 200
            assert time.monotonic() - started < 15, f"turn {turn} took {time.monotonic() - started:.1f} s"
    finally:
        for connection in stalled:
            connection.close()
