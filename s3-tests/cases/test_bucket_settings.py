"""The plain settings of buckets, and what PALM has not. AWS: API_PutBucketTagging, API_GetBucketEncryption, API_GetBucketLocation,
API_GetBucketRequestPayment, API_GetBucketAccelerateConfiguration, API_GetBucketReplication, RESTCommonResponseHeaders."""

import pytest

# What tools such as Terraform ask of each bucket before they touch it, and what a bucket that was just made answers.
NOT_SET = {
    "get_bucket_tagging": "NoSuchTagSet",
    "get_bucket_cors": "NoSuchCORSConfiguration",
    "get_bucket_website": "NoSuchWebsiteConfiguration",
    "get_bucket_encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "get_bucket_replication": "ReplicationConfigurationNotFoundError",
}

SETTERS = {
    "put_bucket_tagging": {"Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}},
    "put_bucket_cors": {"CORSConfiguration": {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}},
    "put_bucket_website": {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "index.html"}}},
    "put_bucket_encryption": {
        "ServerSideEncryptionConfiguration": {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    },
}
DELETERS = ["delete_bucket_tagging", "delete_bucket_cors", "delete_bucket_website", "delete_bucket_encryption"]

SELECT = b"""<SelectObjectContentRequest xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Expression>SELECT * FROM S3Object</Expression>
<ExpressionType>SQL</ExpressionType><InputSerialization><JSON><Type>LINES</Type></JSON></InputSerialization><OutputSerialization><JSON/></OutputSerialization>
</SelectObjectContentRequest>"""

# Features that are not wanted: each must say so rather than pretend.
UNWANTED = {
    "select": ("POST", "/k", [("select", ""), ("select-type", "2")], SELECT),
    "restore": ("POST", "/k", [("restore", "")], b"<RestoreRequest/>"),
    "torrent": ("GET", "/k", [("torrent", "")], b""),
    "get-inventory": ("GET", "", [("inventory", ""), ("id", "1")], b""),
    "list-inventory": ("GET", "", [("inventory", "")], b""),
    "get-analytics": ("GET", "", [("analytics", ""), ("id", "1")], b""),
    "list-analytics": ("GET", "", [("analytics", "")], b""),
    "get-metrics": ("GET", "", [("id", "1"), ("metrics", "")], b""),
    "list-metrics": ("GET", "", [("metrics", "")], b""),
    "get-tiering": ("GET", "", [("id", "1"), ("intelligent-tiering", "")], b""),
    "list-tiering": ("GET", "", [("intelligent-tiering", "")], b""),
    "delete-inventory": ("DELETE", "", [("id", "1"), ("inventory", "")], b""),
    "delete-metrics": ("DELETE", "", [("id", "1"), ("metrics", "")], b""),
    "put-accelerate": (
        "PUT", "", [("accelerate", "")],
        b'<AccelerateConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></AccelerateConfiguration>',
    ),
    "put-requester-pays": (
        "PUT", "", [("requestPayment", "")],
        b'<RequestPaymentConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Payer>Requester</Payer></RequestPaymentConfiguration>',
    ),
    "put-replication": (
        "PUT", "", [("replication", "")],
        b"<ReplicationConfiguration><Role>r</Role><Rule><Status>Enabled</Status><Destination><Bucket>arn:aws:s3:::b</Bucket></Destination></Rule>"
        b"</ReplicationConfiguration>",
    ),
}


@pytest.mark.parametrize("operation", NOT_SET)
def test_a_fresh_bucket_has_no_settings(s3, bucket, refused, operation):
    """What was never set is told by its own error. Danger: a tool takes an empty answer for a setting. Expected: 404 with the error's code."""
    with refused(NOT_SET[operation], 404):
        getattr(s3, operation)(Bucket=bucket)


def test_a_fresh_bucket_has_defaults(s3, bucket):
    """Settings that every bucket has. Expected: AWS's answers for a bucket where nobody changed them."""
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


@pytest.mark.parametrize("operation", [*NOT_SET, *SETTERS, *DELETERS, "get_bucket_request_payment", "get_bucket_accelerate_configuration"])
def test_settings_need_a_bucket(s3, refused, operation):
    """Settings of a bucket that is not there. Danger: it is made by its settings. Expected: NoSuchBucket."""
    with refused("NoSuchBucket", 404):
        getattr(s3, operation)(Bucket="no-such-bucket-for-settings", **SETTERS.get(operation, {}))


def test_tags_of_a_bucket(s3, bucket, refused):
    """Tags are put, replaced and deleted, each time at another peer. Danger: an old set shines through. Expected: what was put last, in order."""
    first = [{"Key": "Hello", "Value": "World"}, {"Key": "a b", "Value": ""}, {"Key": "ünï", "Value": "+-=._:/@"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": first})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == first
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": first[:1]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == first[:1]
    assert s3.delete_bucket_tagging(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=bucket)
    s3.delete_bucket_tagging(Bucket=bucket)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ([("a", "1"), ("a", "2")], "InvalidTag"), ([("k" * 129, "1")], "InvalidTag"), ([("k", "v" * 257)], "InvalidTag"),
        ([("aws:x", "1")], "InvalidTag"), ([("k<", "1")], "InvalidTag"), ([(str(i), "") for i in range(51)], "BadRequest"),
    ],
)
def test_wrong_tags_are_refused(s3, bucket, refused, tags, code):
    """The limits of userguide/CostAllocTagging. Expected: refused, and nothing of it kept."""
    with refused((code, "InvalidTag", "BadRequest"), 400):
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": key, "Value": value} for key, value in tags]})
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=bucket)


@pytest.mark.parametrize("bucket_key", [True, False])
def test_default_encryption(s3, bucket, refused, bucket_key):
    """Default encryption with keys of S3 itself (API_PutBucketEncryption). Expected: given back as put; objects answer AES256."""
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": bucket_key}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    got = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert len(got) == 1 and got[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert got[0]["BucketKeyEnabled"] == bucket_key
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ServerSideEncryption"] == "AES256"
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"
    assert s3.delete_bucket_encryption(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("ServerSideEncryptionConfigurationNotFoundError", 404):
        s3.get_bucket_encryption(Bucket=bucket)


def test_keys_of_a_key_service_are_refused(s3, bucket, refused):
    """Default encryption with a key service that is not configured. Danger: objects seem to be under the client's key. Expected: 501."""
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/key"}}
    with refused("NotImplemented", 501):
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def test_a_location_is_kept(s3, make_bucket):
    """A bucket made with a LocationConstraint (API_GetBucketLocation). Expected: it is given back."""
    name = make_bucket(CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-central-1"


@pytest.mark.parametrize("query", ["tagging", "cors", "website", "encryption"])
@pytest.mark.parametrize("body", [b"<Unknown/>", b"<Tagging><TagSet>", b"no xml", b"<!DOCTYPE x [<!ENTITY a 'b'>]><Tagging>&a;</Tagging>"])
def test_bad_xml_is_told(target, bucket, query, body):
    """A configuration that is not what it should be (ErrorResponses: MalformedXML). Danger: 500, or a default is taken. Expected: 400."""
    answer = target.server.signed("PUT", f"/{bucket}", body, [(query, "")])
    assert (answer.status, answer.code) == (400, "MalformedXML"), answer


def test_bad_xml_makes_no_bucket(target, s3, refused):
    """CreateBucket with a body that is no configuration. Expected: MalformedXML, and no bucket."""
    answer = target.server.signed("PUT", "/bucket-of-bad-xml", b"<CreateBucketConfiguration><Location")
    assert (answer.status, answer.code) == (400, "MalformedXML"), answer
    with refused("NoSuchBucket", 404):
        s3.head_bucket(Bucket="bucket-of-bad-xml")


@pytest.mark.parametrize("name", UNWANTED)
def test_what_is_not_wanted_says_so(target, bucket, name):
    """Features out of scope. Danger: a client believes it has them, or retries a 500 for ever. Expected: 501 NotImplemented as XML."""
    method, path, query, body = UNWANTED[name]
    answer = target.server.signed(method, f"/{bucket}{path}", body, query)
    assert (answer.status, answer.code) == (501, "NotImplemented"), answer


def test_settings_are_bounded_together(s3, bucket, refused):
    """The largest rules one may put, as often as one may. Danger: a bucket whose settings are read with every request grows without end.
    Expected: refused with 400 at some size, and what was there before is still there."""
    small = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=small)
    rule = {"AllowedMethods": ["GET"], "AllowedOrigins": [f"http://{index}.{'x' * 200}.test" for index in range(80)]}
    with refused(("InvalidRequest", "MalformedXML", "MaxMessageLengthExceeded"), 400):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule] * 100})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == small["CORSRules"]
