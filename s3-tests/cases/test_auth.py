"""Who may speak. AWS: sigv4-auth-using-authorization-header, sigv4-query-string-auth, userguide/ErrorResponses."""

import dataclasses
import datetime

import pytest
from botocore.exceptions import ClientError

import samples
import sigv4
from palm_cluster import s3_client

HOUR = datetime.timedelta(hours=1)


def every_operation(client, bucket):
    """One of each family: none of them may be forgotten by the check."""
    return [
        lambda: client.list_buckets(),
        lambda: client.create_bucket(Bucket="strangers-bucket"),
        lambda: client.list_objects_v2(Bucket=bucket),
        lambda: client.get_object(Bucket=bucket, Key="secret"),
        lambda: client.put_object(Bucket=bucket, Key="planted", Body=b"x"),
        lambda: client.delete_object(Bucket=bucket, Key="secret"),
        lambda: client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "secret"}]}),
        lambda: client.copy_object(Bucket=bucket, Key="planted", CopySource={"Bucket": bucket, "Key": "secret"}),
        lambda: client.create_multipart_upload(Bucket=bucket, Key="planted"),
        lambda: client.list_multipart_uploads(Bucket=bucket),
        lambda: client.delete_bucket(Bucket=bucket),
        lambda: client.get_bucket_policy(Bucket=bucket),
    ]


@pytest.fixture
def secret(s3, bucket):
    """An object that must be as it was after the test, alone in its bucket."""
    s3.put_object(Bucket=bucket, Key="secret", Body=b"secret")
    yield
    assert s3.get_object(Bucket=bucket, Key="secret")["Body"].read() == b"secret"
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["secret"]
    assert "strangers-bucket" not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]


def test_a_wrong_secret(target, bucket, secret, refused):
    """The right key id with another secret. Expected: SignatureDoesNotMatch for every operation, nothing changed."""
    client = s3_client(target.endpoints[0], target.access_key, "wrong" + target.secret_key[5:])
    for attempt in every_operation(client, bucket):
        with refused("SignatureDoesNotMatch", 403):
            attempt()


def test_an_unknown_key(target, bucket, secret, refused):
    """A key id that was never made. Expected: InvalidAccessKeyId for every operation."""
    client = s3_client(target.endpoints[0], "AKIDOESNOTEXIST00000", target.secret_key)
    for attempt in every_operation(client, bucket):
        with refused("InvalidAccessKeyId", 403):
            attempt()


def test_refusals_say_what_to_check(target, bucket):
    """ErrorResponses: people look for these sentences. Expected: AWS's words for an unknown key, a wrong secret and XML that is none."""
    for keys, words in [
        (("AKIDOESNOTEXIST00000", target.secret_key), "The AWS Access Key Id you provided does not exist in our records."),
        ((target.access_key, "wrong" + target.secret_key[5:]), "Check your key and signing method."),
    ]:
        with pytest.raises(ClientError, match=words):
            s3_client(target.endpoints[0], *keys).list_objects_v2(Bucket=bucket)
    answer = target.server.signed("PUT", f"/{bucket}", b"<no/>", [("tagging", "")])
    assert (answer.status, answer.code) == (400, "MalformedXML"), answer
    assert b"The XML you provided was not well-formed or did not validate against our published schema" in answer.body


def test_no_signature_at_all(target, bucket, secret):
    """Anonymous requests, as a browser sends them. Expected: AccessDenied for each, on every peer; and nobody's list of buckets is empty
    (AWS redirects to its own website there)."""
    for endpoint in target.endpoints:
        server = sigv4.Server(endpoint, target.server.credentials)
        attempts = [
            ("GET", f"/{bucket}", [], b""), ("GET", f"/{bucket}/secret", [], b""), ("PUT", f"/{bucket}/planted", [], b"x"),
            ("DELETE", f"/{bucket}/secret", [], b""), ("POST", f"/{bucket}/planted", [("uploads", "")], b""), ("PUT", "/strangers-bucket", [], b""),
        ]
        for method, path, query, body in attempts:
            answer = server.send(server.request(method, path, query), body)
            assert (answer.status, answer.code) == (403, "AccessDenied"), f"{method} {path}: {answer}"
        answer = server.send(server.request("GET", "/", []), b"")
        assert (answer.status, b"<Bucket>" in answer.body) in [(200, False), (403, False), (307, False)], answer


def test_a_signature_covers_what_it_signs(target, bucket, secret):
    """A signed request is changed on its way: path, query, method, a signed header. Expected: SignatureDoesNotMatch each time."""
    server = target.server
    good = server.credentials.authorize(server.request("GET", f"/{bucket}/secret", x_amz_meta_note="a"), sigv4.EMPTY_SHA256)
    assert server.send(good).status == 200
    changed = [
        sigv4.dataclasses.replace(good, path=f"/{bucket}/other"),
        sigv4.dataclasses.replace(good, query=[("versionId", "x")]),
        sigv4.dataclasses.replace(good, method="DELETE"),
        sigv4.dataclasses.replace(good, headers=good.headers | {"x-amz-meta-note": "b"}),
    ]
    for request in changed:
        answer = server.send(request)
        assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch"), f"{request.method} {request.target}: {answer}"


def test_broken_authorization_headers(target, bucket, secret):
    """Headers that no client sends. Danger: a panic, or a default that lets them in. Expected: a refusal, never
    2xx or 5xx."""
    server = target.server
    good = server.credentials.authorize(server.request("GET", f"/{bucket}/secret"), sigv4.EMPTY_SHA256).headers["authorization"]
    broken = [
        "", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=", good.replace("aws4_request", "aws5_request"), good.replace("/s3/", "/ec2/"),
        good.replace("SignedHeaders=host;", "SignedHeaders="), good[:-1], good + "0", good.replace("Signature=", "Signature=zz"),
        good.replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512"), "Basic dXNlcjpwYXNz", "Bearer token", "AWS key:signature", "\u00ff" * 3000, good * 40,
    ]
    for header in broken:
        request = server.credentials.authorize(server.request("GET", f"/{bucket}/secret"), sigv4.EMPTY_SHA256)
        request = sigv4.dataclasses.replace(request, headers=request.headers | {"authorization": header.encode().decode("latin-1")})
        answer = server.send(request)
        assert 400 <= answer.status < 500, f"{header[:80]!r}: {answer}"


@pytest.mark.parametrize("skew", [-HOUR, HOUR, -16 * HOUR / 60, 16 * HOUR / 60], ids=["hour-late", "hour-early", "16min-late", "16min-early"])
def test_a_clock_that_is_off(target, bucket, secret, skew):
    """A client whose clock is more than 15 minutes off, or a captured request played again later. Expected: RequestTimeTooSkewed."""
    answer = target.server.signed("GET", f"/{bucket}/secret", now=sigv4.utc_now() + skew)
    assert (answer.status, answer.code) == (403, "RequestTimeTooSkewed"), str(answer)


def test_a_clock_that_is_nearly_right(target, bucket, secret):
    """Five minutes either way are fine."""
    for skew in (-HOUR / 12, HOUR / 12):
        assert target.server.signed("GET", f"/{bucket}/secret", now=sigv4.utc_now() + skew).status == 200


@pytest.mark.parametrize(
    ("scope", "status", "code"),
    [
        ({"region": "eu-nowhere-7"}, 200, ""),
        ({"service": "ec2"}, 400, "AuthorizationHeaderMalformed"),
        ({"service": ""}, 400, "AuthorizationHeaderMalformed"),
    ],
)
def test_credential_scopes(target, bucket, scope, status, code):
    """AWS: sigv4-auth-using-authorization-header. Any region will do, as a pool has but one; signatures for other services will not."""
    server = target.server
    server.credentials = dataclasses.replace(server.credentials, **scope)
    answer = server.signed("GET", f"/{bucket}")
    assert (answer.status, answer.code) == (status, code), answer


def test_scopes_with_another_end(target, bucket):
    """The scope does not end as it must. Expected: AuthorizationHeaderMalformed, not a wrong signature."""
    server = target.server
    signed = server.credentials.authorize(server.request("GET", f"/{bucket}"), sigv4.EMPTY_SHA256)
    wrong = signed.headers["authorization"].replace("aws4_request", "aws5_request")
    answer = server.send(dataclasses.replace(signed, headers=signed.headers | {"authorization": wrong}))
    assert (answer.status, answer.code) == (400, "AuthorizationHeaderMalformed"), answer


def test_a_credential_of_another_day(target, bucket):
    """The credential's day is not the date's. Expected: AuthorizationHeaderMalformed, which says so."""
    server = target.server
    signed = server.credentials.authorize(server.request("GET", f"/{bucket}"), sigv4.EMPTY_SHA256)
    day = signed.headers["x-amz-date"][:8]
    wrong = signed.headers["authorization"].replace(f"/{day}/", "/20200101/")
    answer = server.send(dataclasses.replace(signed, headers=signed.headers | {"authorization": wrong}))
    assert (answer.status, answer.code) == (400, "AuthorizationHeaderMalformed"), answer
    assert b"Date is not the same as X-Amz-Date" in answer.body


def test_presigned_links_of_other_mechanisms(target, bucket):
    """Another algorithm, another service, something missing. Expected: what is wrong with the link, and not that nobody may do that."""
    server = target.server
    link = server.credentials.presign(server.request("GET", f"/{bucket}"))
    for name, wrong in (("X-Amz-Algorithm", "AWS4-HMAC-SHA512"), ("X-Amz-Credential", f"{server.credentials.access_key}/20260101/us-east-1/ec2/aws4_request")):
        changed = [(key, wrong if key == name else value) for key, value in link.query]
        answer = server.send(dataclasses.replace(link, query=changed))
        assert (answer.status, answer.code) == (400, "AuthorizationQueryParametersError"), answer
    for name, _ in link.query:
        answer = server.send(dataclasses.replace(link, query=[pair for pair in link.query if pair[0] != name]))
        assert (answer.status, answer.code) == (400, "AuthorizationQueryParametersError"), f"{name}: {answer}"


def test_a_payload_hash_that_is_none(target, bucket):
    """x-amz-content-sha256 is neither a hash nor one of AWS's words. Expected: InvalidArgument."""
    answer = target.server.signed("PUT", f"/{bucket}/k", b"x", payload_hash="garbage")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_presigned_links(target, s3, bucket, secret):
    """A link made by one peer's client works at any, for its method alone. Expected: bytes for GET; a refusal when bent."""
    server = target.server
    link = server.credentials.presign(server.request("GET", f"/{bucket}/secret"))
    assert server.send(link).body == b"secret"
    for bent in (
        sigv4.dataclasses.replace(link, method="DELETE"),
        sigv4.dataclasses.replace(link, path=f"/{bucket}/other"),
        sigv4.dataclasses.replace(link, query=link.query[:-1] + [("X-Amz-Signature", "0" * 64)]),
        sigv4.dataclasses.replace(link, query=link.query + [("response-content-type", "text/html")]),
        sigv4.dataclasses.replace(link, query=[(name, "86400" if name == "X-Amz-Expires" else value) for name, value in link.query]),
    ):
        answer = server.send(bent)
        assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch"), str(answer)


def test_presigned_links_expire(target, bucket, secret):
    """Expected: AccessDenied after the end; a lifetime over seven days is refused (AuthorizationQueryParametersError)."""
    server = target.server
    late = server.credentials.presign(server.request("GET", f"/{bucket}/secret"), expires_s=60, now=sigv4.utc_now() - HOUR)
    answer = server.send(late)
    assert (answer.status, answer.code) == (403, "AccessDenied"), str(answer)
    forever = server.credentials.presign(server.request("GET", f"/{bucket}/secret"), expires_s=8 * 24 * 3600)
    answer = server.send(forever)
    assert answer.status in (400, 403) and answer.code == "AuthorizationQueryParametersError", str(answer)


def test_presigned_upload(target, s3, bucket):
    """A stranger uploads with a link (userguide/PresignedUrlUploadObject). Expected: stored."""
    server = target.server
    link = server.credentials.presign(server.request("PUT", f"/{bucket}/uploaded"))
    assert server.send(link, b"by link").status == 200
    assert s3.get_object(Bucket=bucket, Key="uploaded")["Body"].read() == b"by link"


def test_a_presigned_upload_cannot_become_a_copy(target, s3, bucket, secret):
    """The hole of older S3 adapters: a presigned PUT with an added, unsigned x-amz-copy-source copied any object to where the link's
    holder could read it. Expected: refused, or stored as the plain body; never the secret."""
    server = target.server
    link = server.credentials.presign(server.request("PUT", f"/{bucket}/stolen"))
    answer = server.send(sigv4.dataclasses.replace(link, headers=link.headers | {"x-amz-copy-source": f"/{bucket}/secret"}))
    stolen = s3.list_objects_v2(Bucket=bucket, Prefix="stolen").get("Contents", [])
    assert 400 <= answer.status < 500 and not stolen, str(answer)


def test_unsigned_amz_headers_are_refused(target, bucket, secret):
    """sigv4: every x-amz-* header must be signed. The same attack on header authentication. Expected: AccessDenied."""
    server = target.server
    request = server.credentials.authorize(server.request("PUT", f"/{bucket}/stolen"), sigv4.EMPTY_SHA256)
    request = sigv4.dataclasses.replace(request, headers=request.headers | {"x-amz-copy-source": f"/{bucket}/secret"})
    answer = server.send(request)
    assert (answer.status, answer.code) == (403, "AccessDenied"), str(answer)


def test_signed_chunks_are_checked_one_by_one(target, s3, bucket, refused):
    """STREAMING-AWS4-HMAC-SHA256-PAYLOAD: a byte of the second chunk is flipped. Expected: SignatureDoesNotMatch, nothing stored."""
    server, data = target.server, samples.blob(150_000, "chunks")
    chunks = [data[:65536], data[65536:131072], data[131072:]]
    request = server.request("PUT", f"/{bucket}/k", content_encoding="aws-chunked", x_amz_decoded_content_length=str(len(data)))
    request = server.credentials.authorize(request, sigv4.STREAMING)
    body = bytearray(server.credentials.signed_chunks(request, chunks))
    body[100_000] ^= 1
    answer = server.send(request, bytes(body))
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch"), str(answer)
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="k")
    body[100_000] ^= 1
    assert server.send(request, bytes(body)).status == 200
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data
