"""The hand-written signer against AWS's published examples (sigv4-header-based-auth, sigv4-query-string-auth, sigv4-streaming)."""

import datetime

import sigv4

CREDENTIALS = sigv4.Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOW = datetime.datetime(2013, 5, 24, tzinfo=datetime.timezone.utc)
HOST = "examplebucket.s3.amazonaws.com"


def signature(request: sigv4.Request) -> str:
    return request.headers["authorization"].rsplit("=", 1)[1]


def test_get_object_example():
    request = sigv4.Request("GET", "/test.txt", {"host": HOST, "range": "bytes=0-9"})
    signed = CREDENTIALS.authorize(request, sigv4.EMPTY_SHA256, NOW)
    assert signature(signed) == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"


def test_get_bucket_listing_example():
    request = sigv4.Request("GET", "/", {"host": HOST}, [("max-keys", "2"), ("prefix", "J")])
    signed = CREDENTIALS.authorize(request, sigv4.EMPTY_SHA256, NOW)
    assert signature(signed) == "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"


def test_presigned_example():
    signed = CREDENTIALS.presign(sigv4.Request("GET", "/test.txt", {"host": HOST}), 86400, NOW)
    assert signed.query[-1] == ("X-Amz-Signature", "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


def test_streaming_example():
    headers = {
        "host": "s3.amazonaws.com", "x-amz-storage-class": "REDUCED_REDUNDANCY", "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": "66560", "content-length": "66824",
    }
    request = CREDENTIALS.authorize(sigv4.Request("PUT", "/examplebucket/chunkObject.txt", headers), sigv4.STREAMING, NOW)
    assert signature(request) == "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    body = CREDENTIALS.signed_chunks(request, [b"a" * 65536, b"a" * 1024])
    assert len(body) == 66824
    assert body.startswith(b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n")
    assert b"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" in body
    assert body.endswith(b"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n")
