"""Bucket policies. AWS: userguide/bucket-policies, userguide/amazon-s3-policy-keys, API_PutBucketPolicy, API_GetBucketPolicyStatus."""

import json

import pytest
from botocore.exceptions import ClientError

from people import allow, deny, document, on

TAGS = "k=v&team=red"


@pytest.fixture
def put_policy(s3, bucket):
    """Puts a policy of these statements on the test's bucket."""
    return lambda *statements: s3.put_bucket_policy(Bucket=bucket, Policy=document(*statements))


def refused_of(call, *args, **kwargs) -> str | None:
    """The code a call is refused with; None where it is let through."""
    try:
        call(*args, **kwargs)
    except ClientError as answered:
        return answered.response["Error"]["Code"]
    return None


def test_a_policys_life(s3, bucket, refused):
    """Put, read back, replaced, deleted, each at another peer. Danger: a client that compares (Terraform) sees its own text changed, or a
    peer still tells the old one. Expected: the bytes that were put; NoSuchBucketPolicy before and after; 204 for both changes."""
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)
    text = document(allow("s3:GetObject", on(bucket)[1], Principal="*"))
    for written in (text, text.replace("GetObject", "PutObject"), " " .join([text[:-1], "}"])):
        assert s3.put_bucket_policy(Bucket=bucket, Policy=written)["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == written
    assert s3.delete_bucket_policy(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)
    s3.delete_bucket_policy(Bucket=bucket)


@pytest.mark.parametrize("wrong", [
    "", "no json", "[]", "{}", json.dumps({"Version": "2012-10-17"}), json.dumps({"Version": "2012-10-17", "Statement": []}),
    json.dumps({"Version": "2011-01-01", "Statement": []}),
])
def test_what_is_no_policy_is_refused(s3, bucket, refused, wrong):
    """Danger: a policy that denies nothing is taken for one that does. Expected: MalformedPolicy."""
    with refused(("MalformedPolicy", "MissingRequestBodyError"), 400):
        s3.put_bucket_policy(Bucket=bucket, Policy=wrong)


def test_a_policy_is_about_its_bucket(s3, bucket, refused):
    """Expected: MalformedPolicy for another bucket's ARN, unknown actions and principals, NotPrincipal with Allow, and 20 KB."""
    good = allow("s3:GetObject", on(bucket)[1], Principal="*")
    bad = [
        good | {"Resource": "arn:aws:s3:::another/*"}, good | {"Action": "s3:Fly"}, good | {"Principal": {"AWS": "arn:aws:iam::1:user/*"}},
        good | {"Effect": "Maybe"}, good | {"Sid": "x" * 20480}, good | {"Condition": {"Matches": {"s3:prefix": "x"}}},
        {key: value for key, value in good.items() if key != "Principal"} | {"NotPrincipal": {"AWS": "123456789012"}},
    ]
    for statement in bad:
        with refused("MalformedPolicy", 400):
            s3.put_bucket_policy(Bucket=bucket, Policy=document(statement))


def test_another_account_cannot_put_a_policy(s3, bucket, other, put_policy, refused):
    """API_PutBucketPolicy: who may, and is of another account, gets 405; who may not gets 403."""
    with refused("AccessDenied", 403):
        other.client.get_bucket_policy(Bucket=bucket)
    put_policy(allow("s3:*", on(bucket), Principal={"AWS": other.arn}))
    for call in (other.client.get_bucket_policy, other.client.delete_bucket_policy):
        with refused("MethodNotAllowed", 405):
            call(Bucket=bucket)
    with refused("MethodNotAllowed", 405):
        other.client.put_bucket_policy(Bucket=bucket, Policy=document(allow("s3:*", on(bucket), Principal="*")))


def test_the_owner_cannot_lock_itself_out(s3, bucket, put_policy, refused):
    """A policy denies everybody everything. Danger: nobody could ever take it away. Expected: the account's own key still may."""
    put_policy(deny("s3:*", on(bucket), Principal="*"))
    with refused(("AccessDenied", "403"), 403):
        s3.head_bucket(Bucket=bucket)
    s3.get_bucket_policy(Bucket=bucket)
    s3.delete_bucket_policy(Bucket=bucket)
    s3.head_bucket(Bucket=bucket)


def test_a_public_bucket_is_read_by_anybody(s3, bucket, people, other, put_policy, body_of, refused):
    """The usual public website policy. Expected: anonymous and other accounts read, and can do nothing else."""
    s3.put_object(Bucket=bucket, Key="page", Body=b"hello")
    anonymous = people.client()
    with refused("AccessDenied", 403):
        anonymous.get_object(Bucket=bucket, Key="page")
    put_policy(allow("s3:GetObject", on(bucket)[1], Principal="*"))
    for reader in (anonymous, other.client):
        assert body_of(reader.get_object(Bucket=bucket, Key="page")) == b"hello"
        for refused_call in (reader.list_objects_v2, reader.get_bucket_acl):
            with refused("AccessDenied", 403):
                refused_call(Bucket=bucket)
        with refused("AccessDenied", 403):
            reader.put_object(Bucket=bucket, Key="mine", Body=b"")


def test_who_may_not_list_is_not_told_what_is_missing(s3, bucket, people, put_policy, refused):
    """API_GetObject, "Permissions": 404 with s3:ListBucket, else 403. Danger: keys are found out by guessing."""
    anonymous = people.client()
    put_policy(allow("s3:GetObject", on(bucket)[1], Principal="*"))
    for call in (anonymous.get_object, anonymous.head_object):
        with refused("AccessDenied", 403):
            call(Bucket=bucket, Key="none")
    put_policy(allow(["s3:GetObject", "s3:ListBucket"], on(bucket), Principal="*"))
    for call in (anonymous.get_object, anonymous.head_object):
        with refused("NoSuchKey", 404):
            call(Bucket=bucket, Key="none")
    with refused("NoSuchBucket", 404):
        anonymous.get_object(Bucket=bucket + "-none", Key="none")


# Condition of a Deny, what makes it hold, and what does not: arguments of put_object.
PUT_CONDITIONS = {
    "acl": ({"StringLike": {"s3:x-amz-acl": "public*"}}, {"ACL": "public-read"}, {"ACL": "private"}),
    "encryption": ({"Null": {"s3:x-amz-server-side-encryption": "true"}}, {}, {"ServerSideEncryption": "AES256"}),
    "request tag": ({"StringNotEquals": {"s3:RequestObjectTag/team": "red"}}, {"Tagging": "team=blue"}, {"Tagging": TAGS}),
    "tag keys": ({"ForAnyValue:StringEquals": {"s3:RequestObjectTagKeys": "secret"}}, {"Tagging": "secret=1"}, {"Tagging": TAGS}),
    "class": ({"StringEquals": {"s3:x-amz-storage-class": "STANDARD_IA"}}, {"StorageClass": "STANDARD_IA"}, {"StorageClass": "STANDARD"}),
    "grant": ({"StringLike": {"s3:x-amz-grant-read": "*AllUsers*"}},
              {"GrantRead": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'}, {}),
    "if-none-match": ({"Null": {"s3:if-none-match": "true"}}, {}, {"IfNoneMatch": "*"}),
    "redirect": ({"Null": {"s3:x-amz-website-redirect-location": "false"}}, {"WebsiteRedirectLocation": "/x"}, {}),
}


@pytest.mark.parametrize("name", PUT_CONDITIONS)
def test_conditions_on_uploads(s3, bucket, people, put_policy, name):
    """userguide/amazon-s3-policy-keys. Danger: a key that the server does not supply makes a Deny silent. Expected: held and not held."""
    condition, held, other_arguments = PUT_CONDITIONS[name]
    put_policy(deny("s3:PutObject", on(bucket)[1], Principal="*", Condition=condition))
    user = people.user(allow("s3:*")).client
    assert refused_of(user.put_object, Bucket=bucket, Key="held", Body=b"x", **held) == "AccessDenied"
    assert refused_of(user.put_object, Bucket=bucket, Key="not", Body=b"x", **other_arguments) is None


def test_conditions_on_what_is_there(s3, bucket, people, other, put_policy):
    """s3:ExistingObjectTag. Expected: only what has the tag is let through, and its tag can be changed only as it was before."""
    s3.put_object(Bucket=bucket, Key="open", Body=b"x", Tagging="security=public")
    s3.put_object(Bucket=bucket, Key="closed", Body=b"x", Tagging="security=private")
    tagged = {"StringEquals": {"s3:ExistingObjectTag/security": "public"}}
    put_policy(allow(["s3:GetObject", "s3:GetObjectTagging", "s3:PutObjectTagging"], on(bucket)[1], Principal="*", Condition=tagged))
    for call in (other.client.get_object, other.client.get_object_tagging, people.client().get_object):
        assert refused_of(call, Bucket=bucket, Key="open") is None
        assert refused_of(call, Bucket=bucket, Key="closed") == "AccessDenied"
    closed = {"TagSet": [{"Key": "security", "Value": "private"}]}
    assert refused_of(other.client.put_object_tagging, Bucket=bucket, Key="open", Tagging=closed) is None
    assert refused_of(other.client.get_object, Bucket=bucket, Key="open") == "AccessDenied"


def test_conditions_on_tags_in_a_body(s3, bucket, other, put_policy):
    """s3:RequestObjectTag of PutObjectTagging, whose tags are in the body. Danger: only headers are looked at."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    red = {"StringEquals": {"s3:RequestObjectTag/team": "red"}}
    put_policy(allow("s3:PutObjectTagging", on(bucket)[1], Principal="*", Condition=red))
    for team, code in (("red", None), ("blue", "AccessDenied")):
        tagging = {"TagSet": [{"Key": "team", "Value": team}]}
        assert refused_of(other.client.put_object_tagging, Bucket=bucket, Key="k", Tagging=tagging) == code


def test_conditions_on_listings(s3, bucket, other, put_policy):
    """s3:prefix, s3:delimiter, s3:max-keys: the home directories of userguide/example-policies-s3."""
    home = {"StringLike": {"s3:prefix": "home/alt/*"}, "StringEquals": {"s3:delimiter": "/"}, "NumericLessThanEquals": {"s3:max-keys": "10"}}
    put_policy(allow("s3:ListBucket", on(bucket)[0], Principal="*", Condition=home))
    listing = {"Bucket": bucket, "Prefix": "home/alt/x", "Delimiter": "/", "MaxKeys": 10}
    assert refused_of(other.client.list_objects_v2, **listing) is None
    assert refused_of(other.client.list_objects, **listing) is None
    for change in ({"Prefix": "home/else/"}, {"Delimiter": "-"}, {"MaxKeys": 11}):
        assert refused_of(other.client.list_objects_v2, **(listing | change)) == "AccessDenied", change
    assert refused_of(other.client.list_objects_v2, Bucket=bucket) == "AccessDenied"


def test_conditions_on_the_connection(s3, bucket, other, put_policy):
    """aws:SourceIp and aws:SecureTransport. The tests come over loopback, without TLS or with."""
    for network, code in (("127.0.0.0/8", None), ("10.0.0.0/8", "AccessDenied")):
        put_policy(allow("s3:ListBucket", on(bucket)[0], Principal="*", Condition={"IpAddress": {"aws:SourceIp": network}}))
        assert refused_of(other.client.list_objects_v2, Bucket=bucket) == code
    put_policy(allow("s3:ListBucket", on(bucket)[0], Principal="*", Condition={"Bool": {"aws:SecureTransport": "true"}}))
    assert refused_of(other.client.list_objects_v2, Bucket=bucket) == "AccessDenied"


def test_conditions_on_copies(s3, bucket, other, put_policy):
    """s3:x-amz-copy-source and the source's own permission. Danger: what cannot be read is copied to where it can."""
    s3.put_object(Bucket=bucket, Key="public/a", Body=b"x")
    s3.put_object(Bucket=bucket, Key="private/a", Body=b"x")
    put_policy(
        allow("s3:GetObject", f"arn:aws:s3:::{bucket}/public/*", Principal="*"),
        allow("s3:PutObject", on(bucket)[1], Principal="*", Condition={"StringLike": {"s3:x-amz-copy-source": f"{bucket}/public/*"}}),
    )
    copy = other.client.copy_object
    assert refused_of(copy, Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "public/a"}) is None
    assert refused_of(copy, Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "private/a"}) == "AccessDenied"
    put_policy(allow("s3:PutObject", on(bucket)[1], Principal="*"))
    assert refused_of(copy, Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "private/a"}) == "AccessDenied"


def test_each_key_of_a_mass_deletion_is_decided(s3, bucket, other, put_policy):
    """DeleteObjects by who may delete some keys. Expected: those are gone, an error for each other, 200 for the whole."""
    for key in ("mine/a", "yours/a"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    put_policy(allow("s3:DeleteObject", f"arn:aws:s3:::{bucket}/mine/*", Principal="*"))
    answer = other.client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "mine/a"}, {"Key": "yours/a"}]})
    assert [entry["Key"] for entry in answer["Deleted"]] == ["mine/a"]
    assert [(entry["Key"], entry["Code"]) for entry in answer["Errors"]] == [("yours/a", "AccessDenied")]
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["yours/a"]


@pytest.mark.parametrize("statement, public", [
    ({"Principal": "*"}, True),
    ({"Principal": {"AWS": "*"}}, True),
    ({"Principal": {"AWS": "123456789012"}}, False),
    ({"Principal": "*", "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/32"}}}, False),
    ({"Principal": "*", "Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}}, True),
])
def test_whether_a_policy_is_public(s3, bucket, put_policy, statement, public):
    """userguide/access-control-block-public-access, "The meaning of public"."""
    assert not s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    put_policy(allow("s3:ListBucket", on(bucket)[0], **statement))
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] == public


def test_public_policies_can_be_blocked(s3, bucket, people, other, put_policy, refused):
    """BlockPublicPolicy refuses them, RestrictPublicBuckets makes them nothing for others
    (userguide/access-control-block-public-access)."""
    block = lambda **switches: s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=switches)
    with refused("NoSuchPublicAccessBlockConfiguration", 404):
        s3.get_public_access_block(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    public = allow("s3:GetObject", on(bucket)[1], Principal="*")
    block(BlockPublicPolicy=True)
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": False, "IgnorePublicAcls": False, "BlockPublicPolicy": True, "RestrictPublicBuckets": False,
    }
    with refused("AccessDenied", 403):
        put_policy(public)
    put_policy(allow("s3:GetObject", on(bucket)[1], Principal={"AWS": other.arn}))
    s3.delete_public_access_block(Bucket=bucket)
    put_policy(public)
    people.client().get_object(Bucket=bucket, Key="k")
    block(RestrictPublicBuckets=True)
    for stranger in (people.client(), other.client):
        with refused("AccessDenied", 403):
            stranger.get_object(Bucket=bucket, Key="k")
    s3.get_object(Bucket=bucket, Key="k")


def test_the_expected_owner_is_checked(s3, bucket, owner, other, refused):
    """x-amz-expected-bucket-owner (userguide/bucket-owner-condition): an account number, or 403 before anything is done."""
    s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=owner.number)
    with refused("AccessDenied", 403):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ExpectedBucketOwner=other.number)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ExpectedBucketOwner=owner.number)
    source = {"Bucket": bucket, "Key": "k"}
    with refused("AccessDenied", 403):
        s3.copy_object(Bucket=bucket, Key="c", CopySource=source, ExpectedSourceBucketOwner=other.number)
    s3.copy_object(Bucket=bucket, Key="c", CopySource=source, ExpectedSourceBucketOwner=owner.number)
