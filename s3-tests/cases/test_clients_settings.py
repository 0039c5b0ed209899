"""Settings through the clients that people have: aws-cli's `s3api` for each family, s3cmd's own XML, rclone's versions. Each command asks
another peer. AWS: cli/latest/reference/s3api."""

import json
import os
import urllib.error
import urllib.request

import pytest

from clients import Clients

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def cli(target, tmp_path):
    """`cli()`: the clients, pointed at a peer picked anew."""
    return lambda: Clients(target.any_endpoint(), target.access_key, target.secret_key, tmp_path / "home")


@pytest.fixture
def s3api(cli):
    """An `aws s3api` command; its JSON."""
    def run(command: str, *args: object, **parameters) -> dict:
        named = [part for name, value in parameters.items() for part in (f"--{name.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value))]
        done = cli().aws("s3api", command, *args, *named)
        return json.loads(done.stdout) if done.stdout.strip() else {}
    return run


RULES = {"Rules": [{"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}}]}
CORS = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://app.example"], "AllowedHeaders": ["*"], "MaxAgeSeconds": 60}]}
WEBSITE = {"IndexDocument": {"Suffix": "index.html"}, "ErrorDocument": {"Key": "404.html"}}
TAGS = {"TagSet": [{"Key": "team", "Value": "tide reef"}]}
BLOCK = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": False, "RestrictPublicBuckets": False}
OWNERSHIP = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
ENCRYPTION = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]}

# Of each family: the noun of its commands, the parameter that sets it, the value, where `get` tells it, the command that removes it.
FAMILIES = {
    "cors": ("bucket-cors", "cors_configuration", CORS, None, "delete-bucket-cors"),
    "lifecycle": ("bucket-lifecycle-configuration", "lifecycle_configuration", RULES, None, "delete-bucket-lifecycle"),
    "website": ("bucket-website", "website_configuration", WEBSITE, None, "delete-bucket-website"),
    "tagging": ("bucket-tagging", "tagging", TAGS, None, "delete-bucket-tagging"),
    "public access": ("public-access-block", "public_access_block_configuration", BLOCK, "PublicAccessBlockConfiguration", "delete-public-access-block"),
    "ownership": ("bucket-ownership-controls", "ownership_controls", OWNERSHIP, "OwnershipControls", "delete-bucket-ownership-controls"),
    "encryption": ("bucket-encryption", "server_side_encryption_configuration", ENCRYPTION, "ServerSideEncryptionConfiguration", "delete-bucket-encryption"),
}


def holds(told, value) -> bool:
    """Whether an answer has all of a value; it may tell more."""
    if isinstance(value, dict):
        return isinstance(told, dict) and all(holds(told.get(name), part) for name, part in value.items())
    if isinstance(value, list):
        return len(told) == len(value) and all(map(holds, told, value))
    return told == value


@pytest.mark.parametrize("family", FAMILIES)
def test_a_setting_comes_back(s3api, bucket, family):
    """Put by one command, told by the next, removed by a third. Expected: what was put; after removal another answer."""
    noun, parameter, value, within, remove = FAMILIES[family]
    s3api(f"put-{noun}", bucket=bucket, **{parameter: value})
    told = s3api(f"get-{noun}", bucket=bucket)
    assert holds(told[within] if within else told, value), told
    s3api(remove, bucket=bucket)


def test_versions_by_command(s3api, cli, bucket, tmp_path):
    """Two versions, a delete marker, the first version read and removed. Expected: as against AWS; rclone sees the old version too."""
    s3api("put-bucket-versioning", bucket=bucket, versioning_configuration={"Status": "Enabled"})
    assert s3api("get-bucket-versioning", bucket=bucket) == {"Status": "Enabled"}
    ids = []
    for text in ("one", "two"):
        (tmp_path / text).write_text(text)
        ids.append(s3api("put-object", bucket=bucket, key="k", body=str(tmp_path / text))["VersionId"])
    marker = s3api("delete-object", bucket=bucket, key="k")
    assert marker["DeleteMarker"] is True
    listed = s3api("list-object-versions", bucket=bucket)
    assert [version["VersionId"] for version in listed["Versions"]] == ids[::-1]
    assert [marker["VersionId"] for marker in listed["DeleteMarkers"]] == [marker["VersionId"]]
    s3api("get-object", str(tmp_path / "back"), bucket=bucket, key="k", version_id=ids[0])
    assert (tmp_path / "back").read_text() == "one"
    assert len(cli().rclone("lsf", "--s3-versions", f"palm:{bucket}").stdout.splitlines()) >= 2
    for version in [*ids, marker["VersionId"]]:
        s3api("delete-object", bucket=bucket, key="k", version_id=version)


def test_locks_by_command(s3api, cli):
    """A bucket with object lock; retention, legal hold, and a deletion that they refuse. Expected: as against AWS."""
    bucket = f"cli-{os.urandom(6).hex()}"
    s3api("create-bucket", "--object-lock-enabled-for-bucket", bucket=bucket)
    assert s3api("get-object-lock-configuration", bucket=bucket)["ObjectLockConfiguration"] == {"ObjectLockEnabled": "Enabled"}
    version = s3api("put-object", bucket=bucket, key="k")["VersionId"]
    s3api("put-object-retention", bucket=bucket, key="k", retention={"Mode": "GOVERNANCE", "RetainUntilDate": "2100-01-01T00:00:00Z"})
    assert s3api("get-object-retention", bucket=bucket, key="k")["Retention"]["Mode"] == "GOVERNANCE"
    s3api("put-object-legal-hold", bucket=bucket, key="k", legal_hold={"Status": "ON"})
    assert s3api("get-object-legal-hold", bucket=bucket, key="k")["LegalHold"]["Status"] == "ON"
    refused = cli().aws("s3api", "delete-object", "--bucket", bucket, "--key", "k", "--version-id", version, check=False)
    assert refused.returncode != 0 and "AccessDenied" in refused.stderr
    s3api("put-object-legal-hold", bucket=bucket, key="k", legal_hold={"Status": "OFF"})
    s3api("delete-object", "--bypass-governance-retention", bucket=bucket, key="k", version_id=version)
    s3api("delete-bucket", bucket=bucket)


def test_tags_and_attributes_by_command(s3api, bucket, tmp_path):
    """Tags given with the object and changed after; the parts of an object. Expected: as against AWS."""
    (tmp_path / "body").write_text("hello")
    s3api("put-object", bucket=bucket, key="k", body=str(tmp_path / "body"), tagging="a=1&b=2", checksum_algorithm="SHA256")
    assert s3api("head-object", bucket=bucket, key="k")["ContentLength"] == 5
    assert s3api("get-object-tagging", bucket=bucket, key="k")["TagSet"] == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    s3api("put-object-tagging", bucket=bucket, key="k", tagging=TAGS)
    assert s3api("get-object-tagging", bucket=bucket, key="k")["TagSet"] == TAGS["TagSet"]
    s3api("delete-object-tagging", bucket=bucket, key="k")
    told = s3api("get-object-attributes", "--object-attributes", "ETag", "Checksum", "ObjectSize", bucket=bucket, key="k")
    assert told["ObjectSize"] == 5 and told["Checksum"]["ChecksumSHA256"]


def test_policies_and_acls_by_command(s3api, target, bucket, tmp_path):
    """A bucket is opened to everybody by a policy, an object by its ACL. Expected: anonymous reads where allowed, and only there."""
    def anonymous(key: str) -> int:
        try:
            with urllib.request.urlopen(f"{target.any_endpoint()}/{bucket}/{key}", timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    for key in ("open/k", "acl", "closed"):
        s3api("put-object", bucket=bucket, key=key)
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/open/*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    s3api("put-bucket-policy", bucket=bucket, policy=policy)
    assert json.loads(s3api("get-bucket-policy", bucket=bucket)["Policy"]) == policy
    assert s3api("get-bucket-policy-status", bucket=bucket)["PolicyStatus"]["IsPublic"] is True
    s3api("put-object-acl", bucket=bucket, key="acl", acl="public-read")
    grants = s3api("get-object-acl", bucket=bucket, key="acl")["Grants"]
    assert sorted(grant["Permission"] for grant in grants) == ["FULL_CONTROL", "READ"]
    assert [anonymous(key) for key in ("open/k", "acl", "closed")] == [200, 200, 403]
    s3api("delete-bucket-policy", bucket=bucket)
    assert anonymous("open/k") == 403


def test_s3cmd_settings(cli, bucket, tmp_path):
    """The old client writes its own XML: ACLs, a policy, CORS, lifecycle, tags, website. Expected: each taken, and told by `info`."""
    def s3cmd(*args) -> str:
        return cli().s3cmd(*args).stdout

    files = {
        "policy": json.dumps({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{bucket}/*"]}]}),
        "cors": "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>",
        "lifecycle": "<LifecycleConfiguration><Rule><ID>r</ID><Prefix>old/</Prefix><Status>Enabled</Status>"
                     "<Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>",
        "note": "hello",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    url = f"s3://{bucket}"
    s3cmd("put", tmp_path / "note", f"{url}/note", "--acl-public", "--add-header=x-amz-meta-colour:blue")
    assert "READ" in s3cmd("info", f"{url}/note")
    s3cmd("setacl", "--acl-private", f"{url}/note")
    assert "anon" not in s3cmd("info", f"{url}/note")
    s3cmd("setpolicy", tmp_path / "policy", url)
    s3cmd("setcors", tmp_path / "cors", url)
    s3cmd("setlifecycle", tmp_path / "lifecycle", url)
    told = s3cmd("info", url)
    assert "s3:GetObject" in told and "AllowedOrigin" in told
    assert "old/" in s3cmd("getlifecycle", url)
    s3cmd("delpolicy", url)
    s3cmd("delcors", url)
    s3cmd("dellifecycle", url)
    s3cmd("ws-create", "--ws-index=index.html", url)
    assert "index.html" in s3cmd("ws-info", url)
    s3cmd("ws-delete", url)
    s3cmd("settagging", f"{url}/note", "a=1&b=2")
    assert "b" in s3cmd("gettagging", f"{url}/note")
    s3cmd("modify", "--add-header=x-amz-meta-colour:green", f"{url}/note")
    assert "green" in s3cmd("info", f"{url}/note")
    s3cmd("cp", f"{url}/note", f"{url}/copy")
    s3cmd("del", "--recursive", "--force", url)
