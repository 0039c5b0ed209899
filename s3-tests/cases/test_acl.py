"""ACLs, ownership and the public access block. AWS: userguide/acl-overview, userguide/about-object-ownership,
userguide/access-control-block-public-access, API_PutBucketAcl, API_PutObjectAcl."""

import uuid

import pytest
from botocore.exceptions import ClientError

ALL = "http://acs.amazonaws.com/groups/global/AllUsers"
SIGNED = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"


def grants(answer) -> set[tuple]:
    """Who is granted what: an id or a group's URI, and the permission."""
    return {(grant["Grantee"].get("ID") or grant["Grantee"]["URI"], grant["Permission"]) for grant in answer["Grants"]}


def works(call, **arguments) -> bool:
    """Whether a call is let through; refused, it must be as AccessDenied."""
    try:
        call(**arguments)
    except ClientError as answered:
        assert answered.response["ResponseMetadata"]["HTTPStatusCode"] == 403, answered
        return False
    return True


@pytest.fixture
def shared(s3, make_bucket):
    """A bucket that everybody may write to."""
    bucket = make_bucket()
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    return bucket


def test_the_default_is_private(s3, bucket, owner):
    """Expected: everything to the owner, who is told by canonical id and display name."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for answer in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="k")):
        assert answer["Owner"] == {"ID": owner.canonical_id, "DisplayName": owner.account}
        assert grants(answer) == {(owner.canonical_id, "FULL_CONTROL")}
        assert answer["Grants"][0]["Grantee"]["Type"] == "CanonicalUser"


@pytest.mark.parametrize("canned, more", [
    ("private", set()),
    ("public-read", {(ALL, "READ")}),
    ("public-read-write", {(ALL, "READ"), (ALL, "WRITE")}),
    ("authenticated-read", {(SIGNED, "READ")}),
])
def test_canned_lists(s3, bucket, make_bucket, owner, canned, more):
    """acl-overview, "Canned ACL". Put afterwards, with the object, with the upload, with the copy and with the bucket: the same."""
    expected = {(owner.canonical_id, "FULL_CONTROL")} | more
    s3.put_bucket_acl(Bucket=bucket, ACL=canned)
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == expected
    assert grants(s3.get_bucket_acl(Bucket=make_bucket(ACL=canned))) == expected
    s3.put_object(Bucket=bucket, Key="put", Body=b"x", ACL=canned)
    s3.put_object(Bucket=bucket, Key="later", Body=b"x")
    s3.put_object_acl(Bucket=bucket, Key="later", ACL=canned)
    s3.copy_object(Bucket=bucket, Key="copied", CopySource={"Bucket": bucket, "Key": "put"}, ACL=canned)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", ACL=canned)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload=parts)
    for key in ("put", "later", "copied", "parts"):
        assert grants(s3.get_object_acl(Bucket=bucket, Key=key)) == expected, key


def test_a_copy_is_private(s3, bucket, owner):
    """API_CopyObject: "the ACL is not preserved". Danger: a copy of a public object is public without anybody's wish."""
    s3.put_object(Bucket=bucket, Key="public", Body=b"x", ACL="public-read")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "public"})
    assert grants(s3.get_object_acl(Bucket=bucket, Key="copy")) == {(owner.canonical_id, "FULL_CONTROL")}


def test_what_lists_of_objects_do(s3, bucket, people, other):
    """A table of canned lists and who reads then. Danger: READ on a bucket lets its objects be read. Expected: each list by itself."""
    anonymous = people.client()
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert works(anonymous.list_objects_v2, Bucket=bucket)
    for canned, expected in {
        "private": (False, False), "public-read": (True, True), "authenticated-read": (False, True),
        "bucket-owner-full-control": (False, False),
    }.items():
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL=canned)
        got = tuple(works(client.get_object, Bucket=bucket, Key="k") for client in (anonymous, other.client))
        assert got == expected, canned
        assert not works(other.client.put_object, Bucket=bucket, Key="k", Body=b"y")
        assert not works(other.client.get_object_acl, Bucket=bucket, Key="k")


def test_grants_by_header(s3, bucket, owner, other):
    """x-amz-grant-*: only what was named is granted. Expected: in the list, and in what the other account can do."""
    them = f'id="{other.canonical_id}"'
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", GrantRead=them, GrantReadACP=them, GrantWriteACP=them)
    expected = {(other.canonical_id, permission) for permission in ("READ", "READ_ACP", "WRITE_ACP")}
    assert grants(s3.get_object_acl(Bucket=bucket, Key="k")) == expected
    assert works(other.client.get_object, Bucket=bucket, Key="k")
    assert grants(other.client.get_object_acl(Bucket=bucket, Key="k")) == expected
    assert works(other.client.put_object_acl, Bucket=bucket, Key="k", GrantFullControl=f"{them}, id={owner.canonical_id}")
    s3.put_bucket_acl(Bucket=bucket, GrantWrite=f'{them}, uri="{SIGNED}"', GrantFullControl=f"id={owner.canonical_id}")
    assert works(other.client.put_object, Bucket=bucket, Key="theirs", Body=b"x")
    assert not works(other.client.list_objects_v2, Bucket=bucket)


def test_grants_by_document(s3, bucket, other):
    """The XML that GetBucketAcl gave, with one grant more, is put back. Expected: as it was given."""
    listed = s3.get_bucket_acl(Bucket=bucket)
    document = {"Owner": listed["Owner"], "Grants": [*listed["Grants"], {
        "Grantee": {"Type": "CanonicalUser", "ID": other.canonical_id}, "Permission": "READ",
    }]}
    s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=document)
    answer = s3.get_bucket_acl(Bucket=bucket)
    assert (other.canonical_id, "READ") in grants(answer)
    assert answer["Grants"][1]["Grantee"]["DisplayName"] == other.account
    assert works(other.client.list_objects_v2, Bucket=bucket)


def test_an_account_is_found_by_its_name_as_address(s3, bucket, people, refused):
    """Grants by e-mail address. PALM's accounts have no address but their name, which may be one."""
    name = f"{uuid.uuid4().hex[:8]}@example.com"
    somebody = people.other(name)
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]

    def put(address: str):
        grantee = {"Type": "AmazonCustomerByEmail", "EmailAddress": address}
        s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Owner": owner, "Grants": [{"Grantee": grantee, "Permission": "READ"}]})

    put(name)
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == {(somebody.canonical_id, "READ")}
    with refused("UnresolvableGrantByEmailAddress", 400):
        put("nobody@example.com")


def test_wrong_lists_are_refused(s3, bucket, other, refused):
    """Danger: a list that means nothing replaces one that did. Expected: 400 by kind, and the list as it was."""
    before = s3.get_bucket_acl(Bucket=bucket)
    read = lambda grantee: {"Owner": before["Owner"], "Grants": [{"Grantee": grantee, "Permission": "READ"}]}
    put = lambda document: s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=document)
    with refused("InvalidArgument", 400):
        put(read({"Type": "CanonicalUser", "ID": "nobody"}))
    with refused("InvalidArgument", 400):
        put(read({"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/Nobody"}))
    with refused("MalformedACLError", 400):
        put({"Owner": before["Owner"], "Grants": [{"Grantee": {"Type": "Group", "URI": ALL}, "Permission": "FLY"}]})
    with refused("AccessDenied", 403):
        put({"Owner": {"ID": other.canonical_id}, "Grants": before["Grants"]})
    with refused("InvalidArgument", 400):
        s3.put_bucket_acl(Bucket=bucket, ACL="public-ish")
    with refused("InvalidRequest", 400):
        s3.put_bucket_acl(Bucket=bucket, ACL="private", GrantRead=f"id={other.canonical_id}")
    with refused("MissingSecurityHeader", 400):
        s3.put_bucket_acl(Bucket=bucket)
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == grants(before)


def test_who_uploads_owns(s3, shared, owner, other):
    """Another account puts an object into a bucket (about-object-ownership, "Object writer"). Expected: it is its writer's; the bucket's
    owner may delete it and not read it; with bucket-owner-full-control it may do all."""
    other.client.put_object(Bucket=shared, Key="theirs", Body=b"x")
    answer = other.client.get_object_acl(Bucket=shared, Key="theirs")
    assert answer["Owner"]["ID"] == other.canonical_id
    assert grants(answer) == {(other.canonical_id, "FULL_CONTROL")}
    listed = s3.list_objects_v2(Bucket=shared, FetchOwner=True)["Contents"][0]
    assert listed["Owner"] == {"ID": other.canonical_id, "DisplayName": other.account}
    assert not works(s3.get_object, Bucket=shared, Key="theirs")
    assert works(s3.delete_object, Bucket=shared, Key="theirs")
    for canned, permission in (("bucket-owner-read", "READ"), ("bucket-owner-full-control", "FULL_CONTROL")):
        other.client.put_object(Bucket=shared, Key="given", Body=b"x", ACL=canned)
        assert (owner.canonical_id, permission) in grants(other.client.get_object_acl(Bucket=shared, Key="given"))
        assert works(s3.get_object, Bucket=shared, Key="given")


def test_ownership_controls(s3, shared, owner, other, refused):
    """PutBucketOwnershipControls. Expected: preferred gives objects with full control to the bucket's owner; enforced gives it all, takes no
    list and heeds none; a bucket with a list cannot become enforced."""
    rules = lambda name: {"Rules": [{"ObjectOwnership": name}]}
    put = lambda name: s3.put_bucket_ownership_controls(Bucket=shared, OwnershipControls=rules(name))
    with refused("OwnershipControlsNotFoundError", 404):
        s3.get_bucket_ownership_controls(Bucket=shared)
    put("BucketOwnerPreferred")
    assert s3.get_bucket_ownership_controls(Bucket=shared)["OwnershipControls"] == rules("BucketOwnerPreferred")
    other.client.put_object(Bucket=shared, Key="given", Body=b"x", ACL="bucket-owner-full-control")
    assert s3.get_object_acl(Bucket=shared, Key="given")["Owner"]["ID"] == owner.canonical_id
    other.client.put_object(Bucket=shared, Key="kept", Body=b"x")
    assert not works(s3.get_object, Bucket=shared, Key="kept")
    with refused("InvalidBucketAclWithObjectOwnership", 400):
        put("BucketOwnerEnforced")
    s3.put_bucket_acl(Bucket=shared, ACL="private")
    put("BucketOwnerEnforced")
    assert works(s3.get_object, Bucket=shared, Key="kept")
    for call, arguments in ((s3.put_bucket_acl, {"ACL": "public-read"}), (s3.put_object, {"Key": "k", "Body": b"x", "ACL": "public-read"}),
                            (s3.put_object_acl, {"Key": "kept", "ACL": "public-read"})):
        with refused("AccessControlListNotSupported", 400):
            call(Bucket=shared, **arguments)
    s3.put_object(Bucket=shared, Key="k", Body=b"x", ACL="bucket-owner-full-control")
    s3.delete_bucket_ownership_controls(Bucket=shared)
    with refused("OwnershipControlsNotFoundError", 404):
        s3.get_bucket_ownership_controls(Bucket=shared)
    with refused("MalformedXML", 400):
        put("Nobody")


def test_a_bucket_may_begin_enforced(s3, make_bucket, refused):
    """x-amz-object-ownership with CreateBucket. Expected: kept; a list beside it is refused."""
    bucket = make_bucket(ObjectOwnership="BucketOwnerEnforced")
    rule = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"][0]
    assert rule == {"ObjectOwnership": "BucketOwnerEnforced"}
    with refused("InvalidBucketAclWithObjectOwnership", 400):
        make_bucket(ObjectOwnership="BucketOwnerEnforced", ACL="public-read")


def test_public_lists_can_be_blocked_and_ignored(s3, bucket, people, refused):
    """BlockPublicAcls refuses new ones, IgnorePublicAcls makes those that are there nothing."""
    anonymous = people.client()
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    block = lambda **switches: s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=switches)
    block(BlockPublicAcls=True)
    assert works(anonymous.get_object, Bucket=bucket, Key="k")
    for call, arguments in ((s3.put_bucket_acl, {}), (s3.put_object_acl, {"Key": "k"}), (s3.put_object, {"Key": "new", "Body": b"x"})):
        for canned in ("public-read", "public-read-write", "authenticated-read"):
            with refused("AccessDenied", 403):
                call(Bucket=bucket, ACL=canned, **arguments)
    s3.put_object(Bucket=bucket, Key="new", Body=b"x", ACL="private")
    block(IgnorePublicAcls=True)
    assert not works(anonymous.get_object, Bucket=bucket, Key="k")
    assert not works(anonymous.list_objects_v2, Bucket=bucket)
    s3.delete_public_access_block(Bucket=bucket)
    assert works(anonymous.get_object, Bucket=bucket, Key="k")


def test_anonymous_uploads_are_the_bucket_owners(s3, shared, people, owner, body_of):
    """Nobody signs an upload into a public bucket. Danger: an object that nobody can take away. Expected: the bucket owner's."""
    people.client().put_object(Bucket=shared, Key="found", Body=b"x")
    assert s3.get_object_acl(Bucket=shared, Key="found")["Owner"]["ID"] == owner.canonical_id
    assert body_of(s3.get_object(Bucket=shared, Key="found")) == b"x"


def test_buckets_are_their_accounts(s3, bucket, other, refused):
    """Two accounts. Expected: each lists its own buckets; another's name is BucketAlreadyExists."""
    mine = f"theirs-{uuid.uuid4().hex[:12]}"
    other.client.create_bucket(Bucket=mine)
    assert [entry["Name"] for entry in other.client.list_buckets()["Buckets"]] == [mine]
    assert other.client.list_buckets()["Owner"] == {"ID": other.canonical_id, "DisplayName": other.account}
    assert mine not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    with refused("BucketAlreadyExists", 409):
        other.client.create_bucket(Bucket=bucket)
    other.client.delete_bucket(Bucket=mine)
