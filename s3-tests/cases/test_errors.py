"""Each error by the request that causes it: status, code and the fields of its XML. AWS: API/ErrorResponses.

Errors that need more than one request (a lost race, a full pool, a quorum that is away) are in the files of their families.
"""

import dataclasses
import datetime
import xml.etree.ElementTree as ElementTree

import pytest

import samples
import sigv4
from samples import MIB

KEY = "there"
LONG = "k" * 1025
UPLOAD = "no-such-upload"
COMPLETE = "<CompleteMultipartUpload><Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>"


def signed(method, path, body=b"", query=None, **options):
    """A request of the table: signed, with the bucket's name in place of `{bucket}`."""
    return lambda server, bucket: server.signed(method, path.format(bucket=bucket), body, query, **options)


def other_credentials(**changes):
    """A GET by somebody else."""
    def send(server, bucket):
        other = dataclasses.replace(server.credentials, **changes)
        return server.send(other.authorize(server.request("GET", f"/{bucket}/{KEY}"), sigv4.EMPTY_SHA256))
    return send


def unsigned(server, bucket):
    return server.send(server.request("GET", f"/{bucket}/{KEY}"))


def late(server, bucket):
    return server.signed("GET", f"/{bucket}/{KEY}", now=sigv4.utc_now() - datetime.timedelta(minutes=16))


def without_length(server, bucket):
    request = server.credentials.authorize(server.request("PUT", f"/{bucket}/k"), sigv4.UNSIGNED)
    request = dataclasses.replace(request, headers=request.headers | {"transfer-encoding": "chunked"})
    return server.send(request, b"5\r\nhello\r\n0\r\n\r\n")


def chunked(body, decoded_length, **headers):
    """An aws-chunked PUT of these bytes."""
    def send(server, bucket):
        request = server.request("PUT", f"/{bucket}/k", content_encoding="aws-chunked", x_amz_decoded_content_length=str(decoded_length), **headers)
        return server.send(server.credentials.authorize(request, sigv4.STREAMING_UNSIGNED_TRAILER), body)
    return send


def too_large(server, bucket):
    """The head alone: the refusal comes before a body of 6 TiB."""
    request = server.credentials.authorize(server.request("PUT", f"/{bucket}/k"), sigv4.UNSIGNED)
    request = dataclasses.replace(request, headers=request.headers | {"content-length": str(6 * 2**40)})
    return server.send(request)


def upload(server, bucket, key="k"):
    answer = server.signed("POST", f"/{bucket}/{key}", query=[("uploads", "")])
    return ElementTree.fromstring(answer.body).findtext("{*}UploadId")


def completed(parts, numbers):
    """An upload of these parts, completed by these part numbers."""
    def send(server, bucket):
        upload_id = upload(server, bucket)
        etags = {
            number: server.signed("PUT", f"/{bucket}/k", data, [("partNumber", str(number)), ("uploadId", upload_id)]).headers["etag"]
            for number, data in parts.items()
        }
        listed = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etags.get(number, chr(34) * 2)}</ETag></Part>" for number in numbers)
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        answer = server.signed("POST", f"/{bucket}/k", body, [("uploadId", upload_id)])
        server.signed("DELETE", f"/{bucket}/k", query=[("uploadId", upload_id)])
        return answer
    return send


ONE_PART = COMPLETE.format(1, "x").encode()
SMALL = samples.blob(1000, "small")
VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"

# Code, status, and what causes it.
CASES = {
    "AccessDenied": (403, unsigned),
    "AuthorizationQueryParametersError": ((400, 403), lambda server, bucket: server.send(
        server.credentials.presign(server.request("GET", f"/{bucket}/{KEY}"), expires_s=8 * 24 * 3600))),
    "BadDigest": (400, signed("PUT", "/{bucket}/k", SMALL, content_md5=samples.base64_md5(b"other"))),
    "BadDigest setting": (400, signed("PUT", "/{bucket}", VERSIONING, [("versioning", "")], content_md5=samples.base64_md5(b"other"))),
    "BadDigest setting's checksum": (400, signed("PUT", "/{bucket}", VERSIONING, [("versioning", "")], x_amz_checksum_crc32="AAAAAA==")),
    "BucketNotEmpty": (409, signed("DELETE", "/{bucket}")),
    "EntityTooLarge": (400, too_large),
    "EntityTooSmall": (400, completed({1: SMALL, 2: SMALL}, [1, 2])),
    "IncompleteBody": (400, chunked(b"3e8\r\n" + SMALL[:500], 1000, x_amz_trailer="x-amz-checksum-crc32")),
    "InvalidAccessKeyId": (403, other_credentials(access_key="AKIDOESNOTEXIST00000")),
    "InvalidArgument": (400, signed("GET", "/{bucket}", query=[("max-keys", "-1")])),
    "InvalidArgument max-keys is no number": (400, signed("GET", "/{bucket}", query=[("max-keys", "blah")])),
    "InvalidArgument encryption of a read": (400, signed("GET", "/{bucket}/" + KEY, x_amz_server_side_encryption="AES256")),
    "InvalidArgument version of a PUT": (400, signed("PUT", "/{bucket}/" + KEY, SMALL, [("versionId", "null")])),
    "InvalidArgument part number": (400, signed("PUT", "/{bucket}/k", SMALL, [("partNumber", "10001"), ("uploadId", UPLOAD)])),
    "InvalidArgument copy source": (400, signed("PUT", "/{bucket}/k", x_amz_copy_source="nothing")),
    "InvalidBucketName": (400, signed("PUT", "/No_Such_NAME")),
    "InvalidDigest": (400, signed("PUT", "/{bucket}/k", SMALL, content_md5="AAAA")),
    "InvalidPart": (400, completed({1: SMALL}, [2])),
    "InvalidPartOrder": (400, completed({1: samples.blob(5 * MIB, "part"), 2: SMALL}, [2, 1])),
    "InvalidRange": (416, signed("GET", "/{bucket}/" + KEY, range="bytes=100-")),
    "InvalidRequest two checksums": (400, signed("PUT", "/{bucket}/k", SMALL, x_amz_checksum_crc32="AAAAAA==", x_amz_checksum_crc32c="AAAAAA==")),
    "InvalidRequest copy onto itself": (400, lambda server, bucket: server.signed("PUT", f"/{bucket}/{KEY}", x_amz_copy_source=f"/{bucket}/{KEY}")),
    "KeyTooLongError": (400, signed("PUT", "/{bucket}/" + LONG, SMALL)),
    "MalformedXML": (400, signed("POST", "/{bucket}", b"<Delete><Object>", [("delete", "")], content_md5=samples.base64_md5(b"<Delete><Object>"))),
    "MalformedXML no parts": (400, lambda server, bucket: server.signed(
        "POST", f"/{bucket}/k", b"<CompleteMultipartUpload/>", [("uploadId", upload(server, bucket))])),
    "MetadataTooLarge": (400, signed("PUT", "/{bucket}/k", SMALL, x_amz_meta_long="v" * 2100)),
    "MissingContentLength": (411, without_length),
    "NoSuchBucket": (404, signed("GET", "/no-such-bucket-here")),
    "NoSuchBucket delete": (404, signed("DELETE", "/no-such-bucket-here")),
    "NoSuchKey": (404, signed("GET", "/{bucket}/missing")),
    "NoSuchUpload": (404, signed("POST", "/{bucket}/k", ONE_PART, [("uploadId", UPLOAD)])),
    "NoSuchUpload abort": (404, signed("DELETE", "/{bucket}/k", query=[("uploadId", UPLOAD)])),
    "NoSuchUpload part": (404, signed("PUT", "/{bucket}/k", SMALL, [("partNumber", "1"), ("uploadId", UPLOAD)])),
    "NotImplemented": (501, signed("GET", "/{bucket}", query=[("inventory", "")])),
    "PreconditionFailed": (412, signed("PUT", "/{bucket}/" + KEY, SMALL, if_none_match="*")),
    "RequestTimeTooSkewed": (403, late),
    "SignatureDoesNotMatch": (403, other_credentials(secret_key="wrong")),
    "XAmzContentSHA256Mismatch": (400, signed("PUT", "/{bucket}/k", SMALL, payload_hash=sigv4.sha256(b"other"))),
    "XAmzContentSHA256Mismatch setting": (400, signed("PUT", "/{bucket}", VERSIONING, [("versioning", "")], payload_hash=sigv4.sha256(b"other"))),
    "XAmzContentSHA256Mismatch tags": (400, signed("PUT", "/{bucket}/" + KEY, b"<Tagging/>", [("tagging", "")], payload_hash=sigv4.sha256(b"other"))),
}


@pytest.mark.parametrize("name", CASES)
def test_an_error_is_exact(target, s3, bucket, name):
    """One request for each error. Danger: an SDK decides by status and code whether to try again, and people by the rest.
    Expected: the code and status of AWS's list; XML with Code, Message, Resource and RequestId, the last as in the header; nothing stored."""
    s3.put_object(Bucket=bucket, Key=KEY, Body=b"ten bytes.")
    status, cause = CASES[name]
    answer = cause(target.server, bucket)
    assert answer.code == name.split()[0] and answer.status in (status if isinstance(status, tuple) else (status,)), str(answer)
    assert answer.headers["content-type"].startswith("application/xml")
    error = ElementTree.fromstring(answer.body)
    assert error.tag == "Error" and error.findtext("Message") and error.findtext("Resource")
    assert error.findtext("RequestId") == answer.headers["x-amz-request-id"]
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [KEY]


@pytest.mark.parametrize("subresource", ["acl", "location", "logging", "notification", "object-lock", "policyStatus", "requestPayment", "uploads", "versioning", "versions"])
def test_a_setting_that_cannot_be_deleted(target, s3, bucket, subresource):
    """DELETE of what S3 has no DELETE for, on an empty bucket and on an object. Danger: the bucket or the object is deleted in its place.
    Expected: 405, and both are there."""
    answer = target.server.signed("DELETE", f"/{bucket}", query=[(subresource, "")])
    assert (answer.status, answer.code) == (405, "MethodNotAllowed"), str(answer)
    s3.put_object(Bucket=bucket, Key=KEY, Body=b"kept")
    for method in ("DELETE", "PUT") if subresource != "acl" else ("DELETE",):
        answer = target.server.signed(method, f"/{bucket}/{KEY}", b"lost" if method == "PUT" else b"", [(subresource, "")])
        assert (answer.status, answer.code) == (405, "MethodNotAllowed"), str(answer)
    assert s3.get_object(Bucket=bucket, Key=KEY)["Body"].read() == b"kept"


@pytest.mark.parametrize("path, status", [("/{bucket}/missing", 404), ("/no-such-bucket-here", 404), ("/no-such-bucket-here/k", 404), ("/{bucket}/" + LONG, 400)])
def test_a_refused_head_has_no_body(target, bucket, path, status):
    """API_HeadObject: an error of a HEAD is its status alone. Danger: bytes after the head, which the client takes for the next answer.
    Expected: the status, a request id, and the connection as good as before."""
    server = target.server
    with server.connect() as connection:
        for _ in range(2):
            request = server.credentials.authorize(server.request("HEAD", path.format(bucket=bucket)), sigv4.EMPTY_SHA256)
            connection.sendall(request.head())
            answer = server.read_answer(connection, "HEAD")
            assert (answer.status, answer.body) == (status, b"") and answer.headers["x-amz-request-id"]


def test_every_answer_has_an_id_of_its_own(target, s3, bucket):
    """x-amz-request-id names a request in the log. Expected: on success and failure, and never the same twice."""
    paths = [f"/{bucket}", f"/{bucket}/missing", "/"] * 5
    ids = {target.server.signed("GET", path).headers["x-amz-request-id"] for path in paths}
    assert len(ids) == len(paths)
