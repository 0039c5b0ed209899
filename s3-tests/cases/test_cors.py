"""What pages of other origins may do. AWS: userguide/ManageCorsUsing, RESTOPTIONSobject, API_PutBucketCors, API_CORSRule."""

import pytest

RULE = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*suffix"]}


@pytest.fixture
def rules(s3, bucket):
    return lambda *rules: s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": list(rules)})


@pytest.fixture
def ask(target, bucket):
    """Sends a request to the bucket as a browser does, unsigned; status, allowed origin and allowed methods of the answer."""

    def send(method, origin=None, wants=None, key="", headers=None, whole=False):
        server = target.server
        named = {"origin": origin, "access_control_request_method": wants, "access_control_request_headers": headers}
        request = server.request(method, f"/{bucket}{key}", **{name: value for name, value in named.items() if value is not None})
        answer = server.send(request)
        allowed = answer.headers.get("access-control-allow-origin"), answer.headers.get("access-control-allow-methods")
        return answer if whole else (answer.status, *allowed)

    return send


def test_rules_are_kept(s3, bucket, rules, refused):
    """Rules are put, read and deleted. Expected: every field comes back."""
    full = {
        "ID": "one", "AllowedMethods": ["PUT", "GET"], "AllowedOrigins": ["http://*.example.org"], "AllowedHeaders": ["x-amz-*"],
        "ExposeHeaders": ["ETag", "x-amz-version-id"], "MaxAgeSeconds": 3000,
    }
    rules(full, RULE)
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == [full, RULE]
    assert s3.delete_bucket_cors(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchCORSConfiguration", 404):
        s3.get_bucket_cors(Bucket=bucket)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"AllowedMethods": ["PATCH"], "AllowedOrigins": ["*"]}, "InvalidRequest"),
        ({"AllowedMethods": ["GET"], "AllowedOrigins": ["*.a.*"]}, "InvalidRequest"),
        ({"AllowedMethods": ["GET"], "AllowedOrigins": ["*"], "AllowedHeaders": ["*x*"]}, "InvalidRequest"),
        ({"AllowedMethods": ["GET"], "AllowedOrigins": ["*"], "ExposeHeaders": ["x-*"]}, "InvalidRequest"),
        ({"AllowedMethods": ["GET"], "AllowedOrigins": ["*"], "ID": "i" * 256}, "InvalidArgument"),
    ],
)
def test_wrong_rules_are_refused(rules, refused, rule, code):
    """API_CORSRule. Expected: refused with AWS's code."""
    with refused(code, 400):
        rules(rule)


def test_no_rules_are_no_configuration(rules, refused):
    with refused("MalformedXML", 400):
        rules()


def test_a_preflight_says_what_it_asks(ask, rules):
    """A preflight without its two headers (RESTOPTIONSobject). Expected: 400, and 403 where the bucket has no rules."""
    assert ask("OPTIONS", "foo.suffix", "GET")[0] == 403
    rules(RULE)
    assert ask("OPTIONS") == (400, None, None)
    assert ask("OPTIONS", "foo.suffix") == (400, None, None)
    assert ask("OPTIONS", "foo.suffix", "PATCH")[0] == 400
    assert ask("OPTIONS", "foo.suffix", "GET", key="/k") == (200, "foo.suffix", "GET")
    assert ask("OPTIONS", "foo.suffix", "PUT") == (403, None, None)
    assert ask("OPTIONS", "foo.bar", "GET") == (403, None, None)


def test_origins_match_with_one_star(ask, rules):
    """Wildcards in origins. Danger: a page at an origin that only looks alike reads what it should not. Expected: exact but for the star."""
    rules(RULE, *({"AllowedMethods": [method], "AllowedOrigins": [origin]} for method, origin in [("GET", "start*end"), ("GET", "prefix*"), ("PUT", "*.put")]))
    for origin in ["foo.suffix", "startend", "start1end", "prefix", "prefix.suffix"]:
        assert ask("OPTIONS", origin, "GET") == (200, origin, "GET"), origin
    for origin in ["foo.bar", "0start12end", "bla.prefix", "Foo.SUFFIX"]:
        assert ask("OPTIONS", origin, "GET")[0] == 403, origin
    assert ask("OPTIONS", "foo.put", "PUT") == (200, "foo.put", "PUT")
    assert ask("OPTIONS", "foo.put", "GET")[0] == 403


def test_headers_must_be_allowed(ask, rules):
    """Access-Control-Request-Headers. Expected: each must be allowed, in any case; what may be sent and read is told."""
    rules({"AllowedMethods": ["PUT"], "AllowedOrigins": ["*"], "AllowedHeaders": ["x-amz-*", "Content-Type"], "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 60})
    answer = ask("OPTIONS", "http://a", "PUT", headers="X-Amz-Date, content-type", whole=True)
    assert answer.status == 200
    headers = answer.headers
    assert headers["access-control-allow-origin"] == "*" and "access-control-allow-credentials" not in headers
    assert {name.strip().lower() for name in headers["access-control-allow-headers"].split(",")} == {"x-amz-date", "content-type"}
    assert (headers["access-control-expose-headers"], headers["access-control-max-age"]) == ("ETag", "60")
    assert "Origin" in headers["vary"] and "x-amz-request-id" in headers
    assert ask("OPTIONS", "http://a", "PUT", headers="x-amz-date, authorization")[0] == 403


def test_answers_carry_the_headers(target, s3, bucket, ask, rules):
    """Requests themselves, good and bad. Danger: a page cannot read an error, and its user sees nothing. Expected: the rule's headers on every
    answer of the bucket to an origin that a rule names; none for others; the answer itself does not change."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    rules(RULE)
    server = target.server
    answer = server.signed("GET", f"/{bucket}/k", origin="foo.suffix")
    assert answer.status == 200 and answer.body == b"x"
    assert answer.headers["access-control-allow-origin"] == "foo.suffix"
    assert answer.headers["access-control-allow-credentials"] == "true"
    missing = server.signed("GET", f"/{bucket}/none", origin="foo.suffix")
    assert (missing.status, missing.headers["access-control-allow-origin"]) == (404, "foo.suffix")
    assert ask("GET", "foo.suffix", key="/k") == (403, "foo.suffix", "GET")
    assert ask("PUT", "foo.suffix", key="/k") == (403, None, None)
    assert "access-control-allow-origin" not in server.signed("GET", f"/{bucket}/k", origin="foo.bar").headers
    assert "access-control-allow-origin" not in server.signed("GET", f"/{bucket}/k").headers


def test_a_preflight_of_a_presigned_request(target, bucket, rules):
    """A page uploads with a presigned URL: its preflight has the same query. Expected: the signature is not looked at, the rules are."""
    rules({"AllowedMethods": ["PUT"], "AllowedOrigins": ["http://page"]})
    server = target.server
    put = server.credentials.presign(server.request("PUT", f"/{bucket}/k"))
    preflight = server.request("OPTIONS", f"/{bucket}/k", put.query, origin="http://page", access_control_request_method="PUT")
    answer = server.send(preflight)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "http://page")


def test_a_preflight_of_nothing(target):
    """Preflights of a bucket that is not there, and of the service. Expected: NoSuchBucket, and no 5xx."""
    server = target.server
    headers = {"origin": "http://page", "access_control_request_method": "GET"}
    answer = server.send(server.request("OPTIONS", "/no-such-bucket-for-cors", **headers))
    assert (answer.status, answer.code) == (404, "NoSuchBucket")
    assert server.send(server.request("OPTIONS", "/", **headers)).status in (400, 403, 405)
