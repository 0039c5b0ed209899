"""Browser forms. AWS: RESTObjectPOST, sigv4-HTTPPOSTConstructPolicy, sigv4-authentication-HTTPPOST, HTTPPOSTForms."""

import base64
import datetime
import hashlib
import hmac
import json
import urllib.parse

import pytest

import sigv4

BOUNDARY = "9431149156168"
TAGGING = "<Tagging><TagSet><Tag><Key>team</Key><Value>red + blue</Value></Tag></TagSet></Tagging>"


def body_of_form(fields, file=("file", "foo.txt", b"bar")) -> bytes:
    """The fields in their order, then the file, as browsers write them."""
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields]
    if file:
        name, filename, data = file
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: text/html\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class Form:
    """A form for a bucket, of which tests spoil single pieces."""

    def __init__(self, target, bucket):
        self.target, self.bucket = target, bucket
        self.file = b"bar"
        self.filename = "foo.txt"
        self.fields = [("key", "foo.txt"), ("acl", "private"), ("Content-Type", "text/plain")]
        self.conditions = [
            {"bucket": bucket}, ["starts-with", "$key", "foo"], {"acl": "private"}, ["starts-with", "$Content-Type", "text/plain"],
            ["content-length-range", 0, 1024],
        ]
        self.expiration = (sigv4.utc_now() + datetime.timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.document = None

    def policy(self, more=()) -> str:
        document = self.document or {"expiration": self.expiration, "conditions": [*self.conditions, *more]}
        return base64.b64encode(json.dumps(document).encode()).decode()

    def sign_v4(self, secret=None) -> list:
        now = sigv4.utc_now()
        credentials = sigv4.Credentials(self.target.access_key, secret or self.target.secret_key)
        signs = {
            "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": f"{credentials.access_key}/{credentials.scope(now)}",
            "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}",
        }
        policy = self.policy([{name: value} for name, value in signs.items()])
        return [*self.fields, *signs.items(), ("policy", policy), ("x-amz-signature", credentials.sign(now, policy))]

    def sign_v2(self, access_key=None, secret=None) -> list:
        policy = self.policy()
        digest = hmac.new((secret or self.target.secret_key).encode(), policy.encode(), hashlib.sha1).digest()
        signs = [("AWSAccessKeyId", access_key or self.target.access_key), ("signature", base64.b64encode(digest).decode()), ("policy", policy)]
        return [*self.fields, *signs]

    def post(self, fields, file=True, path=None):
        server = self.target.server
        request = server.request("POST", path or f"/{self.bucket}", content_type=f"multipart/form-data; boundary={BOUNDARY}")
        return server.send(request, body_of_form(fields, ("file", self.filename, self.file) if file else None))


@pytest.fixture
def form(target, bucket):
    return Form(target, bucket)


@pytest.fixture
def stored(s3, bucket, body_of):
    return lambda key="foo.txt": body_of(s3.get_object(Bucket=bucket, Key=key))


@pytest.fixture(params=["sign_v4", "sign_v2"])
def sign(request, form):
    """Signs the form by either version; scripts still use the older."""
    return getattr(form, request.param)


def test_a_signed_form_uploads(s3, bucket, form, sign, stored):
    """A form with a policy. Expected: 204 without a body, the ETag and where it went; the object has what the fields say."""
    answer = form.post(sign())
    assert (answer.status, answer.body) == (204, b""), answer
    assert answer.headers["etag"] == f'"{hashlib.md5(b"bar").hexdigest()}"'
    assert answer.headers["location"].endswith(f"/{bucket}/foo.txt")
    assert stored() == b"bar"
    assert s3.head_object(Bucket=bucket, Key="foo.txt")["ContentType"] == "text/plain"


def test_names_of_fields_have_no_case(form, stored):
    """Fields and conditions in any case. Expected: as if in lower case."""
    form.fields = [("kEy", "foo.txt"), ("aCl", "private"), ("Content-Type", "text/plain")]
    form.conditions = [
        {"bUcKeT": form.bucket}, ["StArTs-WiTh", "$KeY", "foo"], {"AcL": "private"}, ["StArTs-WiTh", "$CoNtEnT-TyPe", "text/plain"],
        ["content-length-range", 0, 1024],
    ]
    fields = [("pOLICy" if name == "policy" else name, value) for name, value in form.sign_v2()]
    assert form.post(fields).status == 204
    assert stored() == b"bar"


def test_the_file_names_the_key(form, stored):
    """${filename} in the key. Expected: the name without any path, in the condition on the key too."""
    form.fields[0] = ("key", "${filename}")
    form.filename = "C:\\\\files\\\\foo.txt"
    assert form.post(form.sign_v4()).status == 204
    assert stored() == b"bar"


@pytest.mark.parametrize(("asked", "status"), [("200", 200), ("201", 201), ("204", 204), ("404", 204), ("", 204)])
def test_success_is_told_as_asked(form, asked, status):
    """success_action_status. Expected: 200, 201 with a document, or 204 for all else."""
    form.fields.append(("success_action_status", asked))
    form.conditions.append(["starts-with", "$success_action_status", ""])
    answer = form.post(form.sign_v4())
    assert answer.status == status, answer
    if status == 201:
        assert b"<Key>foo.txt</Key>" in answer.body and f"<Bucket>{form.bucket}</Bucket>".encode() in answer.body
        assert b"<ETag>" in answer.body and b"<Location>http" in answer.body
    else:
        assert answer.body == b""


@pytest.mark.parametrize("field", ["success_action_redirect", "redirect"])
def test_a_browser_is_sent_on(form, field):
    """success_action_redirect. Expected: 303 to the page, which is told bucket, key and ETag; what is no URL is passed over."""
    form.fields.append((field, "http://page.example/done"))
    form.conditions.append(["eq", f"${field}", "http://page.example/done"])
    answer = form.post(form.sign_v4())
    page, _, query = answer.headers["location"].partition("?")
    told = dict(urllib.parse.parse_qsl(query))
    assert (answer.status, page) == (303, "http://page.example/done")
    assert told == {"bucket": form.bucket, "key": "foo.txt", "etag": f'"{hashlib.md5(b"bar").hexdigest()}"'}
    form.fields[-1], form.conditions[-1] = (field, "javascript:x"), {field: "javascript:x"}
    assert form.post(form.sign_v4()).status == 204


def test_metadata_tags_and_checksums(s3, bucket, form):
    """What else fields say. Expected: kept as if a PUT had said it, and a wrong checksum refused."""
    digest = base64.b64encode(hashlib.sha256(b"bar").digest()).decode()
    form.fields += [("x-amz-meta-foo", "barclamp"), ("tagging", TAGGING), ("x-amz-checksum-sha256", digest), ("x-ignore-foo", "bar"), ("Cache-Control", "no-cache")]
    form.conditions += [["starts-with", "$x-amz-meta-foo", "bar"], ["starts-with", "$tagging", ""], ["starts-with", "$cache-control", ""]]
    answer = form.post(form.sign_v4())
    assert answer.status == 204, answer
    head = s3.head_object(Bucket=bucket, Key="foo.txt")
    assert (head["Metadata"], head["CacheControl"]) == ({"foo": "barclamp"}, "no-cache")
    assert s3.get_object_tagging(Bucket=bucket, Key="foo.txt")["TagSet"] == [{"Key": "team", "Value": "red + blue"}]
    form.file = b"baz"
    answer = form.post(form.sign_v4())
    assert (answer.status, answer.code) == (400, "BadDigest"), answer


def without(fields, *names):
    return [(name, value) for name, value in fields if name not in names]


@pytest.mark.parametrize(
    ("names", "status"),
    [(["signature"], 400), (["policy"], 400), (["AWSAccessKeyId"], 400), (["key"], 400), (["x-amz-meta-foo"], 403)],
)
def test_what_is_missing(form, stored, s3, bucket, refused, names, status):
    """A form without one of its fields. Danger: what is half signed counts as not signed at all, or as signed. Expected: refused, nothing stored."""
    form.fields.append(("x-amz-meta-foo", "bar"))
    form.conditions.append({"x-amz-meta-foo": "bar"})
    answer = form.post(without(form.sign_v2(), *names))
    assert answer.status == status, answer
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="foo.txt")


def test_no_file(form):
    answer = form.post(form.sign_v4(), file=False)
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_a_wrong_signature(form, sign):
    """Signed with another secret. Expected: SignatureDoesNotMatch."""
    answer = form.post(sign(secret="another"))
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")


def test_an_unknown_key(form):
    answer = form.post(form.sign_v2(access_key="AKIANOBODYKNOWSTHIS1"))
    assert (answer.status, answer.code) == (403, "InvalidAccessKeyId")


def test_a_policy_signed_for_another_form(form):
    """The policy of a signed form is exchanged. Expected: SignatureDoesNotMatch."""
    signed = form.sign_v4()
    form.conditions = [["starts-with", "$key", ""]]
    exchanged = [(name, form.policy() if name == "policy" else value) for name, value in signed]
    assert form.post(exchanged).code == "SignatureDoesNotMatch"


CHANGES = {
    "key": ("key", "other.txt"), "acl": ("acl", "public-read"), "type": ("Content-Type", "text/html"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_fields_obey_the_policy(form, name):
    """Fields are changed after signing. Danger: whoever has the form uploads what was not allowed. Expected: 403 AccessDenied."""
    field, value = CHANGES[name]
    fields = [(known, value if known == field else old) for known, old in form.sign_v4()]
    answer = form.post(fields)
    assert (answer.status, answer.code) == (403, "AccessDenied"), answer
    assert b'Policy Condition failed: ["' in answer.body, "clients look for the condition as it stands in the policy"


def test_fields_must_be_named(form):
    """A field more than the policy names. Expected: 403, unless its name begins with x-ignore-."""
    assert form.post([*form.sign_v4(), ("x-amz-meta-extra", "1")]).status == 403
    assert form.post([*form.sign_v4(), ("x-amz-website-redirect-location", "/x")]).status == 403
    assert form.post([*form.sign_v4(), ("x-ignore-extra", "1")]).status == 204


def test_the_bucket_must_be_named(form):
    """A policy for no bucket, and one for another. Expected: 403."""
    bucket = form.conditions.pop(0)
    assert form.post(form.sign_v2()).status == 403
    form.conditions.insert(0, bucket | {"bucket": "another"})
    assert form.post(form.sign_v2()).status == 403


def test_a_form_is_no_copy(s3, bucket, form, stored):
    """A field that would be a copy's header, named by the policy. Danger: the signer's own objects are read. Expected: no copy is made."""
    s3.put_object(Bucket=bucket, Key="secret", Body=b"secret")
    form.fields.append(("x-amz-copy-source", f"/{bucket}/secret"))
    form.conditions.append(["starts-with", "$x-amz-copy-source", ""])
    form.post(form.sign_v4())
    assert stored() == b"bar"


@pytest.mark.parametrize(("size", "code"), [(9, "EntityTooSmall"), (10, None), (20, None), (21, "EntityTooLarge")])
def test_lengths_are_bounded(form, size, code):
    """content-length-range. Expected: both ends included."""
    form.conditions[-1] = ["content-length-range", 10, 20]
    form.file = b"x" * size
    answer = form.post(form.sign_v4())
    assert (answer.status, answer.code) == ((400, code) if code else (204, "")), answer


DOCUMENTS = {
    "expired": lambda form: {"expiration": "2020-01-01T00:00:00Z", "conditions": form.conditions},
    "bad-date": lambda form: {"expiration": "2030-01-01 00:00:00+00:00", "conditions": form.conditions},
    "no-expiration": lambda form: {"conditions": form.conditions},
    "no-conditions": lambda form: {"expiration": form.expiration},
    "expiration-case": lambda form: {"EXPIRATION": form.expiration, "conditions": form.conditions},
    "conditions-case": lambda form: {"expiration": form.expiration, "CONDITIONS": form.conditions},
    "empty-condition": lambda form: {"expiration": form.expiration, "conditions": [{}]},
    "one-length": lambda form: {"expiration": form.expiration, "conditions": [*form.conditions[:-1], ["content-length-range", 0]]},
    "negative-length": lambda form: {"expiration": form.expiration, "conditions": [*form.conditions[:-1], ["content-length-range", -1, 0]]},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_wrong_policies(form, name):
    """Policies that are over or are none (sigv4-HTTPPOSTConstructPolicy). Expected: 403 when over, otherwise 400."""
    form.document = DOCUMENTS[name](form)
    assert form.post(form.sign_v2()).status == (403 if name == "expired" else 400)


@pytest.mark.parametrize(("condition", "status"), [({"s3:signatureversion": "AWS"}, {"sign_v2": 403, "sign_v4": 204}), ({"s3:authType": "POST"}, {"sign_v2": 403, "sign_v4": 403})])
def test_policies_see_how_a_form_is_signed(s3, bucket, form, condition, status):
    """A bucket that denies the older signature, or forms (API/bucket-policy-s3-sigv4-conditions). Danger: a form seems to be signed otherwise.
    Expected: exactly those are denied."""
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*", "Condition": {"StringEquals": condition}}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    for name, expected in status.items():
        answer = form.post(getattr(form, name)())
        assert answer.status == expected, (name, answer)


def test_forms_are_for_buckets(form):
    """A form sent to an object or to the service. Expected: 405."""
    for path in [f"/{form.bucket}/key", "/"]:
        answer = form.post(form.sign_v4(), path=path)
        assert (answer.status, answer.code) == (405, "MethodNotAllowed"), answer


def test_a_path_adds_nothing_to_the_key(form, target, s3, refused):
    """A form for any bucket is sent to `bucket%2Fadmin`. Danger: what decodes to a bucket and a folder puts the file beside the policy's keys.
    Expected: refused, nothing stored."""
    form.conditions[0] = ["starts-with", "$bucket", ""]
    server = target.server
    request = server.request("POST", "/", content_type=f"multipart/form-data; boundary={BOUNDARY}")
    body = body_of_form(form.sign_v4())
    head = request.head().replace(b"POST / ", f"POST /{form.bucket}%2Fadmin ".encode())
    with server.connect() as connection:
        connection.sendall(head[:-2] + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        answer = server.read_answer(connection)
    assert 400 <= answer.status < 500, answer
    assert s3.list_objects_v2(Bucket=form.bucket)["KeyCount"] == 0


def test_an_unsigned_form_is_anonymous(form, s3, bucket, refused):
    """A form without a policy to a private bucket. Expected: AccessDenied, nothing stored."""
    answer = form.post(form.fields)
    assert (answer.status, answer.code) == (403, "AccessDenied")
    with refused("NoSuchKey", 404):
        s3.head_object(Bucket=bucket, Key="foo.txt")


def test_anybody_may_where_anybody_may_write(form, make_bucket, s3, body_of):
    """A form without a policy to a bucket that all may write to (HTTPPOSTForms). Expected: stored."""
    form.bucket = make_bucket(ACL="public-read-write")
    form.fields[1] = ("acl", "public-read")
    form.fields.append(("tagging", TAGGING))
    answer = form.post(form.fields)
    assert answer.status == 204, answer
    assert s3.get_object_tagging(Bucket=form.bucket, Key="foo.txt")["TagSet"] == [{"Key": "team", "Value": "red + blue"}]
    assert body_of(s3.get_object(Bucket=form.bucket, Key="foo.txt")) == b"bar"


def test_a_form_larger_than_memory_allows_streams(form, stored):
    """A form with a file of many chunks. Expected: stored whole."""
    form.file = bytes(range(256)) * 20_000
    form.conditions[-1] = ["content-length-range", 0, 10_000_000]
    assert form.post(form.sign_v4()).status == 204
    assert stored() == form.file


def test_malformed_forms(target, bucket):
    """Bodies that are no form. Expected: 4xx, each told, none a 5xx."""
    server = target.server
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    for content_type, body in [(kind, b""), (kind, b"no form"), ("multipart/form-data", body_of_form([])), (kind, body_of_form([])[:-20]), (kind, b"--" + BOUNDARY.encode() + b"\r\n\r\n\r\n")]:
        answer = server.send(server.request("POST", f"/{bucket}", content_type=content_type), body)
        assert 400 <= answer.status < 500 and answer.code, answer
