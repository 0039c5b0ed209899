"""Every operation by everybody: who does not own the bucket, or was denied, can do nothing; who was allowed can.

AWS: userguide/using-with-s3-policy-actions (which permissions an operation needs), IAM reference_policies_evaluation-logic (an explicit
deny wins, and what nothing allows is denied). The table below has each operation that PALM serves, with the least that lets it through.
"""

import dataclasses
import pathlib
import re
import uuid

import pytest
import urllib3
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from people import allow, deny, document, on

ROOT = pathlib.Path(__file__).resolve().parents[2]
PUT = "s3:PutObject"
TAGS = {"TagSet": [{"Key": "k", "Value": "v"}]}
LIFECYCLE = {"Rules": [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 1}}]}
CORS = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}
ENCRYPTION = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
BLOCK = {"BlockPublicAcls": False}
KEY = "there"


@dataclasses.dataclass
class World:
    """A bucket with an object in it and an upload under way."""

    bucket: str
    upload: str

    @property
    def at(self) -> dict:
        return {"Bucket": self.bucket, "Key": KEY}

    @property
    def source(self) -> dict:
        return {"Bucket": self.bucket, "Key": KEY}


def post(client, world):
    """A form needs no client: by whom it comes is in the fields it was signed with, or it is nobody."""
    if client.meta.config.signature_version is UNSIGNED:
        url, fields = f"{client.meta.endpoint_url}/{world.bucket}", {"key": "posted"}
    else:
        form = client.generate_presigned_post(Bucket=world.bucket, Key="posted")
        url, fields = form["url"], form["fields"]
    answer = urllib3.request("POST", url, fields=fields | {"file": ("file", b"x")}, timeout=30)
    if answer.status >= 300:
        code = (re.findall("<Code>(.*?)</Code>", answer.data.decode()) or [""])[0]
        raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": answer.status}}, "PostObject")


def delete_many(client, world):
    """Each key is decided by itself, and its refusal stands in the answer."""
    answer = client.delete_objects(Bucket=world.bucket, Delete={"Objects": [{"Key": KEY}]})
    if refused := answer.get("Errors"):
        raise ClientError({"Error": refused[0], "ResponseMetadata": {"HTTPStatusCode": 403}}, "DeleteObjects")


def rename(client, world):
    return client.rename_object(Bucket=world.bucket, Key="renamed", RenameSource=KEY)


def bucket(method, **arguments):
    return lambda client, world: getattr(client, method)(Bucket=world.bucket, **arguments)


def of_object(method, **arguments):
    return lambda client, world: getattr(client, method)(**world.at, **arguments)


# What PALM calls it: the call, and the permissions it needs. The call's name is boto3's unless said otherwise.
OPERATIONS = {
    "list_buckets": (lambda c, w: c.list_buckets(), ["s3:ListAllMyBuckets"]),
    "create_bucket": (lambda c, w: c.create_bucket(Bucket=f"made-{uuid.uuid4().hex[:12]}"), ["s3:CreateBucket"]),
    "head_bucket": (bucket("head_bucket"), ["s3:ListBucket"]),
    "delete_bucket": (bucket("delete_bucket"), ["s3:DeleteBucket"]),
    "get_bucket_location": (bucket("get_bucket_location"), ["s3:GetBucketLocation"]),
    "get_bucket_versioning": (bucket("get_bucket_versioning"), ["s3:GetBucketVersioning"]),
    "put_bucket_versioning": (
        bucket("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"}), ["s3:PutBucketVersioning"],
    ),
    "get_bucket_acl": (bucket("get_bucket_acl"), ["s3:GetBucketAcl"]),
    "put_bucket_acl": (bucket("put_bucket_acl", ACL="private"), ["s3:PutBucketAcl"]),
    "get_object_acl": (of_object("get_object_acl"), ["s3:GetObjectAcl"]),
    "put_object_acl": (of_object("put_object_acl", ACL="private"), ["s3:PutObjectAcl"]),
    "get_bucket_policy": (bucket("get_bucket_policy"), ["s3:GetBucketPolicy"]),
    "put_bucket_policy": (
        lambda c, w: c.put_bucket_policy(Bucket=w.bucket, Policy=document(deny("s3:GetObject", on(w.bucket)[1], Principal="*"))),
        ["s3:PutBucketPolicy"],
    ),
    "delete_bucket_policy": (bucket("delete_bucket_policy"), ["s3:DeleteBucketPolicy"]),
    "get_bucket_policy_status": (bucket("get_bucket_policy_status"), ["s3:GetBucketPolicyStatus"]),
    "get_bucket_ownership_controls": (bucket("get_bucket_ownership_controls"), ["s3:GetBucketOwnershipControls"]),
    "put_bucket_ownership_controls": (
        bucket("put_bucket_ownership_controls", OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}),
        ["s3:PutBucketOwnershipControls"],
    ),
    "delete_bucket_ownership_controls": (bucket("delete_bucket_ownership_controls"), ["s3:PutBucketOwnershipControls"]),
    "get_public_access_block": (bucket("get_public_access_block"), ["s3:GetBucketPublicAccessBlock"]),
    "put_public_access_block": (
        bucket("put_public_access_block", PublicAccessBlockConfiguration=BLOCK), ["s3:PutBucketPublicAccessBlock"],
    ),
    "delete_public_access_block": (bucket("delete_public_access_block"), ["s3:PutBucketPublicAccessBlock"]),
    "get_bucket_cors": (bucket("get_bucket_cors"), ["s3:GetBucketCORS"]),
    "put_bucket_cors": (bucket("put_bucket_cors", CORSConfiguration=CORS), ["s3:PutBucketCORS"]),
    "delete_bucket_cors": (bucket("delete_bucket_cors"), ["s3:PutBucketCORS"]),
    "get_bucket_website": (bucket("get_bucket_website"), ["s3:GetBucketWebsite"]),
    "put_bucket_website": (
        bucket("put_bucket_website", WebsiteConfiguration={"IndexDocument": {"Suffix": "i.html"}}), ["s3:PutBucketWebsite"],
    ),
    "delete_bucket_website": (bucket("delete_bucket_website"), ["s3:DeleteBucketWebsite"]),
    "get_bucket_tagging": (bucket("get_bucket_tagging"), ["s3:GetBucketTagging"]),
    "put_bucket_tagging": (bucket("put_bucket_tagging", Tagging=TAGS), ["s3:PutBucketTagging"]),
    "delete_bucket_tagging": (bucket("delete_bucket_tagging"), ["s3:PutBucketTagging"]),
    "get_bucket_encryption": (bucket("get_bucket_encryption"), ["s3:GetEncryptionConfiguration"]),
    "put_bucket_encryption": (
        bucket("put_bucket_encryption", ServerSideEncryptionConfiguration=ENCRYPTION), ["s3:PutEncryptionConfiguration"],
    ),
    "delete_bucket_encryption": (bucket("delete_bucket_encryption"), ["s3:PutEncryptionConfiguration"]),
    "get_bucket_request_payment": (bucket("get_bucket_request_payment"), ["s3:GetBucketRequestPayment"]),
    "put_bucket_request_payment": (
        bucket("put_bucket_request_payment", RequestPaymentConfiguration={"Payer": "BucketOwner"}), ["s3:PutBucketRequestPayment"],
    ),
    "get_bucket_accelerate_configuration": (bucket("get_bucket_accelerate_configuration"), ["s3:GetAccelerateConfiguration"]),
    "get_bucket_replication": (bucket("get_bucket_replication"), ["s3:GetReplicationConfiguration"]),
    "delete_bucket_replication": (bucket("delete_bucket_replication"), ["s3:PutReplicationConfiguration"]),
    "get_bucket_lifecycle_configuration": (bucket("get_bucket_lifecycle_configuration"), ["s3:GetLifecycleConfiguration"]),
    "put_bucket_lifecycle_configuration": (
        bucket("put_bucket_lifecycle_configuration", LifecycleConfiguration=LIFECYCLE), ["s3:PutLifecycleConfiguration"],
    ),
    "delete_bucket_lifecycle": (bucket("delete_bucket_lifecycle"), ["s3:PutLifecycleConfiguration"]),
    "get_bucket_logging": (bucket("get_bucket_logging"), ["s3:GetBucketLogging"]),
    "put_bucket_logging": (bucket("put_bucket_logging", BucketLoggingStatus={}), ["s3:PutBucketLogging"]),
    "get_bucket_notification_configuration": (bucket("get_bucket_notification_configuration"), ["s3:GetBucketNotification"]),
    "put_bucket_notification_configuration": (
        bucket("put_bucket_notification_configuration", NotificationConfiguration={}), ["s3:PutBucketNotification"],
    ),
    "get_object_lock_configuration": (bucket("get_object_lock_configuration"), ["s3:GetBucketObjectLockConfiguration"]),
    "put_object_lock_configuration": (
        bucket("put_object_lock_configuration", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}),
        ["s3:PutBucketObjectLockConfiguration"],
    ),
    "get_object_retention": (of_object("get_object_retention"), ["s3:GetObjectRetention"]),
    "put_object_retention": (
        of_object("put_object_retention", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": "2030-01-01"}), ["s3:PutObjectRetention"],
    ),
    "get_object_legal_hold": (of_object("get_object_legal_hold"), ["s3:GetObjectLegalHold"]),
    "put_object_legal_hold": (of_object("put_object_legal_hold", LegalHold={"Status": "ON"}), ["s3:PutObjectLegalHold"]),
    "get_object_tagging": (of_object("get_object_tagging"), ["s3:GetObjectTagging"]),
    "put_object_tagging": (of_object("put_object_tagging", Tagging=TAGS), ["s3:PutObjectTagging"]),
    "delete_object_tagging": (of_object("delete_object_tagging"), ["s3:DeleteObjectTagging"]),
    "get_object_attributes": (
        of_object("get_object_attributes", ObjectAttributes=["ETag"]), ["s3:GetObject", "s3:GetObjectAttributes"],
    ),
    "post_object": (post, [PUT]),
    "put_object": (of_object("put_object", Body=b"x"), [PUT]),
    "get_object": (of_object("get_object"), ["s3:GetObject"]),
    "head_object": (of_object("head_object"), ["s3:GetObject"]),
    "delete_object": (of_object("delete_object"), ["s3:DeleteObject"]),
    "delete_objects": (delete_many, ["s3:DeleteObject"]),
    "rename_object": (rename, [PUT, "s3:GetObject", "s3:DeleteObject"]),
    "copy_object": (lambda c, w: c.copy_object(Bucket=w.bucket, Key="copy", CopySource=w.source), [PUT, "s3:GetObject"]),
    "list_objects": (bucket("list_objects"), ["s3:ListBucket"]),
    "list_objects_v2": (bucket("list_objects_v2"), ["s3:ListBucket"]),
    "list_object_versions": (bucket("list_object_versions"), ["s3:ListBucketVersions"]),
    "list_multipart_uploads": (bucket("list_multipart_uploads"), ["s3:ListBucketMultipartUploads"]),
    "create_multipart_upload": (of_object("create_multipart_upload"), [PUT]),
    "upload_part": (lambda c, w: c.upload_part(**w.at, UploadId=w.upload, PartNumber=1, Body=b"x"), [PUT]),
    "upload_part_copy": (
        lambda c, w: c.upload_part_copy(**w.at, UploadId=w.upload, PartNumber=2, CopySource=w.source), [PUT, "s3:GetObject"],
    ),
    "list_parts": (lambda c, w: c.list_parts(**w.at, UploadId=w.upload), ["s3:ListMultipartUploadParts"]),
    "complete_multipart_upload": (
        lambda c, w: c.complete_multipart_upload(
            **w.at, UploadId=w.upload, MultipartUpload={"Parts": [{"ETag": "0" * 32, "PartNumber": 1}]}
        ),
        [PUT],
    ),
    "abort_multipart_upload": (lambda c, w: c.abort_multipart_upload(**w.at, UploadId=w.upload), ["s3:AbortMultipartUpload"]),
}
# What is asked of the account: nobody else's bucket is concerned, so another account may.
OF_ACCOUNT = {"list_buckets", "create_bucket"}


def test_the_table_has_every_operation():
    """Danger: an operation is added and nobody asks who may do it. Expected: the table here and PALM's own have the same."""
    source = (ROOT / "src/palm/src/s3/mod.rs").read_text()
    served = set(re.findall(r"^    (\w+)\(\w+Input\) -> ", source, re.MULTILINE))
    assert len(served) > 20
    assert served - set(OPERATIONS) == set()


@pytest.fixture(scope="module")
def new_world(owner):
    def make() -> World:
        name = f"world-{uuid.uuid4().hex[:12]}"
        owner.client.create_bucket(Bucket=name)
        owner.client.put_object(Bucket=name, Key=KEY, Body=b"data")
        return World(name, owner.client.create_multipart_upload(Bucket=name, Key=KEY)["UploadId"])

    return make


@pytest.fixture(scope="module")
def denied(people):
    """Allowed everything by a policy of its own, and kept out by the bucket's."""
    return people.user(allow("s3:*"), deny(["s3:ListAllMyBuckets", "s3:CreateBucket"]))


@pytest.fixture(scope="module")
def world(new_world, owner, denied):
    """Shared by all who are refused: they leave it as it is."""
    made = new_world()
    keep_out = document(deny("s3:*", on(made.bucket), Principal={"AWS": denied.arn}))
    owner.client.put_bucket_policy(Bucket=made.bucket, Policy=keep_out)
    return made


@pytest.fixture(scope="module")
def strangers(people, denied):
    """Everybody who may do nothing with the world's bucket."""
    return {
        "anonymous": people.client(),
        "another account": people.other().client,
        "a user of another account, allowed everything there": people.user(allow("*"), account="elsewhere").client,
        "a user without rights": people.user().client,
        "a user denied by policies": denied.client,
    }


WHO = [
    "anonymous", "another account", "a user of another account, allowed everything there", "a user without rights", "a user denied by policies",
]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_who_was_not_allowed_can_do_nothing(operation, who, strangers, world):
    """Danger: one operation of sixty forgets to ask. Expected: 403 AccessDenied for everybody who has no right to it."""
    if operation in OF_ACCOUNT and "another account" in who:
        pytest.skip("is asked of their own account")
    call, _ = OPERATIONS[operation]
    if (operation, who) == ("list_buckets", "anonymous"):
        assert call(strangers[who], world)["Buckets"] == []
        return
    with pytest.raises(ClientError) as refused:
        call(strangers[who], world)
    answer = refused.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 403, answer["Error"]
    assert answer["Error"]["Code"] in ("AccessDenied", "403"), answer["Error"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_was_allowed_can_be_done(operation, people, new_world):
    """A user with the least that an operation needs does it. Danger: a gate that keeps everybody out passes all the tests above.
    Expected: it is let in, whatever is answered then (404 for settings that are not there, say)."""
    world = new_world()
    call, actions = OPERATIONS[operation]
    resources = "*" if operation in OF_ACCOUNT else on(world.bucket)
    user = people.user(allow(actions, resources))
    try:
        call(user.client, world)
    except ClientError as answered:
        assert answered.response["ResponseMetadata"]["HTTPStatusCode"] not in (403, 405), answered


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_owner_needs_no_policy(operation, owner, new_world):
    """The account's own key (IAM id_root-user). Expected: it is let in everywhere."""
    world = new_world()
    call, _ = OPERATIONS[operation]
    try:
        call(owner.client, world)
    except ClientError as answered:
        assert answered.response["ResponseMetadata"]["HTTPStatusCode"] not in (403, 405), answered


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - OF_ACCOUNT))
def test_each_permission_counts(operation, people, new_world):
    """A user with all that an operation needs but one permission. Danger: only the first is asked for. Expected: 403."""
    call, actions = OPERATIONS[operation]
    if len(actions) < 2:
        pytest.skip("needs but one")
    world = new_world()
    for missing in actions:
        user = people.user(allow("s3:*", on(world.bucket)), deny(missing, on(world.bucket)))
        with pytest.raises(ClientError) as refused:
            call(user.client, world)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403, missing
