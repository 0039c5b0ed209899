"""Users with policies, roles and temporary credentials. AWS: IAM reference_policies_evaluation-logic, STS API_AssumeRole,
API_GetSessionToken, API_GetCallerIdentity."""

import datetime
import json
import time
import urllib.request
import uuid

import pytest
from botocore.exceptions import ClientError

from palm_cluster import CommandFailed, eventually
from people import allow, deny, document, on


@pytest.fixture
def sts(people):
    """STS clients of people."""
    return lambda person: people.client("sts", (person.access_key, person.secret_key))


@pytest.fixture
def make_role(people):
    """Makes roles; their ARNs."""

    def make(*statements, trust=None) -> str:
        name = f"role-{uuid.uuid4().hex[:8]}"
        args = ["--trust", people.file(json.dumps(trust))] if trust else []
        people.ask("role", "create", name, "--policy", people.file(document(*statements)), *args)
        return f"arn:aws:iam::{people.owner().number}:role/{name}"

    return make


def trusting(principal) -> dict:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"}]}


def refused_of(call, **arguments):
    try:
        call(**arguments)
    except ClientError as answered:
        return answered.response["Error"]["Code"]
    return None


def test_a_users_policies_count_at_once(s3, bucket, people):
    """A policy is put, replaced and taken away; the user asks another peer right after. Danger: a right that was taken away works on.
    Expected: seen at once everywhere."""
    user = people.user()
    put = lambda *statements: people.ask("key", "policy", "put", "--user", user.user, people.file(document(*statements)))
    call = lambda: refused_of(user.client.list_objects_v2, Bucket=bucket)
    for _ in range(3):
        assert call() == "AccessDenied"
        put(allow("s3:ListBucket", on(bucket)))
        assert call() is None
        put(allow("s3:*", on(bucket)), deny("s3:ListBucket"))
        assert call() == "AccessDenied"
        people.ask("key", "policy", "delete", "--user", user.user, "given")
    shown = people.ask("key", "policy", "get", "--user", user.user)
    assert shown["policies"] == []


@pytest.mark.parametrize("policy, reads, writes", [("readonly", True, False), ("readwrite", True, True), ("writeonly", False, True)])
def test_policies_that_are_always_there(s3, bucket, people, policy, reads, writes):
    """`--policy readonly` and the like."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    key = people.ask("key", "create", "--policy", policy)
    client = people.client(keys=(key["access_key"], key["secret_key"]))
    assert (refused_of(client.get_object, Bucket=bucket, Key="k") is None) == reads
    assert (refused_of(client.put_object, Bucket=bucket, Key="new", Body=b"x") is None) == writes


def test_policy_variables(bucket, people):
    """${aws:username} in a resource: each user has its own folder (IAM reference_policies_variables)."""
    user = people.user(allow("s3:*", f"arn:aws:s3:::{bucket}/home/${{aws:username}}/*"))
    assert refused_of(user.client.put_object, Bucket=bucket, Key=f"home/{user.user}/k", Body=b"x") is None
    assert refused_of(user.client.put_object, Bucket=bucket, Key="home/else/k", Body=b"x") == "AccessDenied"


def test_keys_can_be_given_and_end(people):
    """Keys chosen by whoever moves from another server; one that ends. Danger: a key past its end works. Expected: ExpiredToken."""
    name = f"given-{uuid.uuid4().hex[:12]}"
    key = people.ask("key", "create", "--access-key", name, "--secret-key", "a-secret-of-many/chars+")
    assert key["access_key"] == name
    people.client(keys=(name, key["secret_key"])).list_buckets()
    with pytest.raises(CommandFailed):
        people.ask("key", "create", "--access-key", name, "--secret-key", "another-secret")
    with pytest.raises(CommandFailed):
        people.ask("key", "create", "--access-key", "PALSXYZ", "--secret-key", "another-secret")
    ended = people.ask("key", "create", "--expires", "1s")
    client = people.client(keys=(ended["access_key"], ended["secret_key"]))
    time.sleep(1.2)
    assert refused_of(client.list_buckets) == "ExpiredToken"
    listed = {entry["access_key"]: entry for entry in people.ask("key", "list")["keys"]}
    assert listed[name]["account"] == "palm" and listed[name]["user"] is None and listed[ended["access_key"]]["expires_ms"]


def test_keys_can_be_disabled(people):
    """`palm key disable` and `enable`. Danger: a key that leaked works on at a peer that has not heard. Expected: refused everywhere within
    seconds, and taken again."""
    key = people.ask("key", "create")
    client = people.client(keys=(key["access_key"], key["secret_key"]))
    for verb, code in (("disable", "InvalidAccessKeyId"), ("enable", None)):
        people.ask("key", verb, key["access_key"])
        eventually(lambda: {refused_of(client.list_buckets) for _ in range(12)} == {code}, 30, f"{verb} is known to all peers")


def test_a_wrong_policy_is_refused(people):
    """Expected: the command fails and nobody has the policy."""
    with pytest.raises(CommandFailed, match="(?i)polic"):
        people.ask("key", "create", "--user", "nobody", "--policy", people.file("{}"))


def test_who_am_i(people, sts, other):
    """GetCallerIdentity of an account, a user and a session."""
    user = people.user()
    for person in (people.owner(), other, user):
        told = sts(person).get_caller_identity()
        assert (told["Account"], told["Arn"]) == (person.number, person.arn)
    credentials = sts(user).get_session_token()["Credentials"]
    client = people.client("sts", (credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"]))
    assert client.get_caller_identity()["Arn"] == user.arn


def test_a_session_may_what_its_user_may(s3, bucket, people, sts):
    """GetSessionToken. Expected: the user's rights, until its policy goes; the end in the answer."""
    user = people.user(allow("s3:ListBucket", on(bucket)))
    credentials = sts(user).get_session_token(DurationSeconds=900)["Credentials"]
    left = credentials["Expiration"] - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(minutes=14) < left <= datetime.timedelta(minutes=15, seconds=5)
    session = people.as_session(credentials)
    session.list_objects_v2(Bucket=bucket)
    assert refused_of(session.put_object, Bucket=bucket, Key="k", Body=b"x") == "AccessDenied"
    people.ask("key", "policy", "delete", "--user", user.user, "given")
    assert refused_of(session.list_objects_v2, Bucket=bucket) == "AccessDenied"


def test_tokens_cannot_be_made_up(bucket, people, sts):
    """Expected: InvalidToken for a wrong, altered or another session's token, InvalidAccessKeyId for none."""
    one = sts(people.owner()).get_session_token()["Credentials"]
    two = sts(people.owner()).get_session_token()["Credentials"]
    keys = (one["AccessKeyId"], one["SecretAccessKey"])
    people.as_session(one).head_bucket(Bucket=bucket)
    token = one["SessionToken"]
    for wrong in ("nonsense", token[:-4] + "AAA=", two["SessionToken"]):
        assert refused_of(people.client(keys=(*keys, wrong)).list_objects_v2, Bucket=bucket) == "InvalidToken"
    assert refused_of(people.client(keys=keys).list_objects_v2, Bucket=bucket) == "InvalidAccessKeyId"
    owner = people.owner()
    mixed = people.client(keys=(owner.access_key, owner.secret_key, token))
    assert refused_of(mixed.list_objects_v2, Bucket=bucket) == "InvalidToken"


def test_presigned_by_a_session(s3, bucket, people, sts, body_of):
    """A presigned URL carries the token in its query."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    session = people.as_session(sts(people.owner()).get_session_token()["Credentials"])
    url = session.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    assert urllib.request.urlopen(url, timeout=30).read() == b"data"


def test_a_role_is_assumed(s3, bucket, people, sts, make_role):
    """A user with the right to assume a role does what the role may and the user may not."""
    role = make_role(allow(["s3:PutObject", "s3:ListBucket"], on(bucket)))
    user = people.user(allow("sts:AssumeRole", role))
    answer = sts(user).assume_role(RoleArn=role, RoleSessionName="job")
    assert answer["AssumedRoleUser"]["Arn"] == role.replace("iam", "sts").replace("role/", "assumed-role/") + "/job"
    session = people.as_session(answer["Credentials"])
    session.put_object(Bucket=bucket, Key="k", Body=b"x")
    session.list_objects_v2(Bucket=bucket)
    assert refused_of(session.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert refused_of(user.client.list_objects_v2, Bucket=bucket) == "AccessDenied"


def test_a_session_policy_takes_away(s3, bucket, people, sts, make_role):
    """AssumeRole with Policy: what both allow."""
    role = make_role(allow("s3:*", on(bucket)))
    limited = document(allow(["s3:ListBucket", "sqs:*"], "*"))
    answer = sts(people.owner()).assume_role(RoleArn=role, RoleSessionName="job", Policy=limited)
    session = people.as_session(answer["Credentials"])
    session.list_objects_v2(Bucket=bucket)
    assert refused_of(session.put_object, Bucket=bucket, Key="k", Body=b"x") == "AccessDenied"


def test_a_bucket_policy_names_a_role(s3, bucket, people, sts, make_role):
    """A role's ARN as principal: its sessions are let in, and kept out."""
    role = make_role(deny("s3:DeleteBucket"))
    session = people.as_session(sts(people.owner()).assume_role(RoleArn=role, RoleSessionName="job")["Credentials"])
    assert refused_of(session.list_objects_v2, Bucket=bucket) == "AccessDenied"
    s3.put_bucket_policy(Bucket=bucket, Policy=document(allow("s3:ListBucket", on(bucket), Principal={"AWS": role})))
    session.list_objects_v2(Bucket=bucket)


def test_who_may_assume_a_role(people, sts, make_role, other):
    """The trust of a role and the rights of who asks. Expected: both from another account; either may name the user at home."""
    assume = lambda person, role: refused_of(sts(person).assume_role, RoleArn=role, RoleSessionName="job")
    rightless, allowed = people.user(), people.user(allow("sts:AssumeRole"))
    at_home = make_role(allow("s3:*"))
    assert assume(rightless, at_home) == "AccessDenied"
    assert assume(allowed, at_home) is None
    assert assume(other, at_home) == "AccessDenied"
    assert assume(rightless, make_role(allow("s3:*"), trust=trusting(rightless.arn))) is None
    assert assume(other, make_role(allow("s3:*"), trust=trusting(other.arn))) is None
    abroad = people.user(account=other.account)
    assert assume(abroad, make_role(allow("s3:*"), trust=trusting(abroad.arn))) == "AccessDenied"
    assert assume(allowed, at_home + "-none") == "AccessDenied"
    with pytest.raises(CommandFailed):
        make_role(allow("s3:*"), trust={"Version": "2012-10-17", "Statement": []})


@pytest.mark.parametrize("arguments", [
    {"DurationSeconds": 900_000}, {"RoleSessionName": "a b"}, {"RoleArn": "arn:aws:iam::123456789012:user/somebody"},
])
def test_wrong_wishes_are_refused(people, sts, make_role, arguments):
    """Expected: ValidationError 400."""
    wish = {"RoleArn": make_role(allow("s3:*")), "RoleSessionName": "job"} | arguments
    assert refused_of(sts(people.owner()).assume_role, **wish) == "ValidationError"


def test_a_deleted_role_ends_its_sessions(bucket, people, sts, make_role):
    """Expected: its sessions are refused from then on, at every peer."""
    role = make_role(allow("s3:*"))
    session = people.as_session(sts(people.owner()).assume_role(RoleArn=role, RoleSessionName="job")["Credentials"])
    session.list_objects_v2(Bucket=bucket)
    name = role.rpartition("/")[2]
    assert name in people.ask("role", "list")["names"]
    people.ask("role", "delete", name)
    assert refused_of(session.list_objects_v2, Bucket=bucket) == "InvalidAccessKeyId"
