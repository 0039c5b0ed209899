"""What a peer writes down: its log in JSON, the request id that ties lines to answers, and the audit log."""

import json
import urllib.request

import pytest

import sigv4
from console import Console
from palm_cluster import Pool, eventually

pytestmark = pytest.mark.own_pool

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    root = tmp_path_factory.mktemp("audited")
    settings = {"log.audit": str(root / "audit"), "log.audit_writes": "true", "log.format": "json", "log.level": "debug", "access_log.every": "1s"}
    with Pool.form(root / "pool", 1, settings=settings) as pool:
        yield pool, root / "audit"


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_change_is_in_the_audit_log(audited):
    """Invitations, keys with a given secret, uploads, deletions and refusals, and questions that change nothing. Danger: an act that nobody can be asked
    about, or a log that gives secrets away. Expected: a line for each change, with who, what and how it ended; no line for questions; no secret."""
    pool, audit = audited
    peer = pool.peers[0]
    peer.invite()
    key = peer.ask("key create", "--access-key", "GIVEN", "--secret-key", "given-by-its-owner")
    peer.status()
    peer.members()
    server = sigv4.Server(peer.endpoint, sigv4.Credentials(pool.access_key, pool.secret_key))
    ids = [server.signed(*request).headers["x-amz-request-id"] for request in (("PUT", "/audited"), ("PUT", "/audited/k", b"x"), ("DELETE", "/none/k"))]
    assert server.signed("GET", "/audited/k").status == 200
    lines = eventually(lambda: [line for line in lines_of(audit) if line.get("request_id") == ids[-1]] and lines_of(audit), 20, "the last line")
    acts = [line["act"] for line in lines if "act" in line]
    assert acts == ["invite", "keys"] and all(line["who"] == "socket" and line["status"] == 200 for line in lines if "act" in line)
    writes = [(line["request_id"], line["method"], line["path"], line["status"], line["access_key"]) for line in lines if "request_id" in line]
    expected = zip(ids, ("PUT", "PUT", "DELETE"), ("/audited", "/audited/k", "/none/k"), (200, 200, 404), strict=True)
    assert writes == [(*line, pool.access_key) for line in expected]
    assert lines[-1]["code"] == "NoSuchBucket" and lines[-1]["from"] == "127.0.0.1"
    text = audit.read_text()
    assert not any(secret in text for secret in (pool.secret_key, key["secret_key"], "palm1"))
    assert audit.stat().st_mode & 0o077 == 0


def test_requests_of_the_console_count_as_others(audited):
    """Objects are put, read and asked for in vain at the console. Danger: who works there is in no figures, no access log and no audit. Expected:
    each request and its bytes are counted once, the write is in the audit log and all are in the bucket's, by the key that is logged in."""
    pool, audit = audited
    peer = pool.peers[0]
    client = peer.client()
    for name in ("watched", "logs"):
        client.create_bucket(Bucket=name)
    client.put_bucket_logging(Bucket="watched", BucketLoggingStatus={"LoggingEnabled": {"TargetBucket": "logs", "TargetPrefix": "of/"}})
    console = Console(peer)
    assert console.login(pool.access_key, pool.secret_key)[0] == 200
    counted = {
        f'palm_s3_requests_total{{code_class="{end}",operation="{name}"}}': 1
        for name, end in (("PutObject", "2xx"), ("GetObject", "2xx"), ("GetObject", "4xx"))
    } | {"palm_s3_received_bytes_total": 1234, 'palm_s3_request_duration_seconds_count{operation="PutObject"}': 1}
    before = peer.metrics()
    assert console.ask("PUT", "/console/s3/watched/at-the-console", b"x" * 1234)[0] == 200
    assert console.ask("GET", "/console/s3/watched/at-the-console")[2] == b"x" * 1234
    assert console.ask("GET", "/console/s3/watched/none")[0] == 404

    def grown() -> bool:
        now = peer.metrics()
        return {name: now.get(name, 0) - before.get(name, 0) for name in counted} == counted and now["palm_s3_requests_in_flight"] == 0

    eventually(grown, 20, "they are counted")
    sent = peer.metrics()["palm_s3_sent_bytes_total"] - before["palm_s3_sent_bytes_total"]
    assert 1234 < sent < 4096, "the object and an error's XML"
    written = lambda: [line for line in lines_of(audit) if line.get("path") == "/watched/at-the-console"]  # noqa: E731
    assert [line["access_key"] for line in eventually(written, 20, "a line of the write")] == [pool.access_key]

    def logged() -> bool:
        keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="logs").get("Contents", [])]
        text = "".join(client.get_object(Bucket="logs", Key=key)["Body"].read().decode() for key in keys)
        return all(words in text for words in ("REST.PUT.OBJECT at-the-console", "REST.GET.OBJECT at-the-console", "REST.GET.OBJECT none"))

    eventually(logged, 60, "lines in the bucket's access log")


def test_log_lines_are_json_and_name_their_request(audited):
    """Expected: every line of the log is JSON, and those of a request have the id that its answer has, and the trace that the client named."""
    pool, _ = audited
    peer = pool.peers[0]
    request = urllib.request.Request(f"{peer.endpoint}/nothing/here", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    request_id = refused.value.headers["x-amz-request-id"]
    of_request = lambda: [line for line in lines_of(peer.log) if line.get("span", {}).get("request_id") == request_id]  # noqa: E731
    answered = eventually(of_request, 20, "a line of the request")
    assert {line["span"]["trace_id"] for line in answered} == {TRACE}
    assert any(line.get("status") == refused.value.code for line in answered)
