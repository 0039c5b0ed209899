"""Lifecycle rules. AWS: API_PutBucketLifecycleConfiguration, API_GetBucketLifecycleConfiguration, API_DeleteBucketLifecycle,
userguide/intro-lifecycle-rules.

What rules do in days is watched on pools of their own, whose days last seconds (`lifecycle.day`).
"""

import datetime
import time

import pytest

import samples
from palm_cluster import GRACE_S, QUICK, eventually

DAY_S = 4
FAST = {"lifecycle.day": f"{DAY_S}s"}
# A day ends at midnight, so what is to go after n days goes before n + 1 are over; and then a walk must come by.
SLACK_S = 6
PART = 5 * samples.MIB


def rule(name="rule", prefix="", status="Enabled", **actions):
    return {"ID": name, "Filter": {"Prefix": prefix}, "Status": status} | actions


def expire(days):
    return {"Expiration": {"Days": days}}


def put(s3, bucket, *rules, **arguments):
    return s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}, **arguments)


def keys(s3, bucket):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_rules_come_back_as_they_went(s3, bucket, refused):
    """Tools compare what they put with what they get. Danger: a prefix of the old form comes back as a filter, or an And as something
    flat, and every run of a tool changes the bucket again. Expected: each rule in the form it had."""
    with refused("NoSuchLifecycleConfiguration", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    midnight = datetime.datetime(2035, 1, 1, tzinfo=datetime.timezone.utc)
    tag = {"Key": "k", "Value": "v"}
    rules = [
        {"ID": "old form", "Prefix": "a/", "Status": "Enabled", "Expiration": {"Days": 31}},
        {"ID": "all", "Filter": {}, "Status": "Disabled", "Expiration": {"Date": midnight}},
        rule("empty prefix", "", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7}),
        {"ID": "tag", "Filter": {"Tag": tag}, "Status": "Enabled", "Expiration": {"Days": 1}},
        {"ID": "size", "Filter": {"ObjectSizeGreaterThan": 500}, "Status": "Enabled", "Expiration": {"Days": 1}},
        {
            "ID": "and", "Status": "Enabled", "Expiration": {"Days": 1},
            "Filter": {"And": {"Prefix": "b/", "Tags": [tag, {"Key": "x", "Value": ""}], "ObjectSizeGreaterThan": 5, "ObjectSizeLessThan": 64}},
        },
        rule("versions", "v/", NoncurrentVersionExpiration={"NoncurrentDays": 9, "NewerNoncurrentVersions": 5}),
        rule("markers", "m/", Expiration={"ExpiredObjectDeleteMarker": True}),
        rule(
            "classes", "c/", Expiration={"Days": 90}, Transitions=[{"Days": 30, "StorageClass": "STANDARD_IA"}, {"Days": 60, "StorageClass": "GLACIER"}],
            NoncurrentVersionTransitions=[{"NoncurrentDays": 2, "StorageClass": "STANDARD_IA"}],
        ),
    ]
    put(s3, bucket, *rules)
    answer = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert answer["Rules"] == rules
    assert answer["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
    put(s3, bucket, rule(**expire(1)), TransitionDefaultMinimumObjectSize="varies_by_storage_class")
    answer = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert (answer["TransitionDefaultMinimumObjectSize"], len(answer["Rules"])) == ("varies_by_storage_class", 1)
    for _ in range(2):
        assert s3.delete_bucket_lifecycle(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchLifecycleConfiguration", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_rules_without_a_name_are_given_one(s3, bucket):
    """AWS names rules that have no ID. Expected: names that differ."""
    unnamed = {"Filter": {"Prefix": "a"}, "Status": "Enabled", "Expiration": {"Days": 1}}
    put(s3, bucket, unnamed, unnamed | {"Filter": {"Prefix": "b"}})
    names = [rule["ID"] for rule in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]]
    assert all(names) and len(set(names)) == 2


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([rule("same", **expire(1)), rule("same", "x", **expire(2))], "InvalidArgument"),
        ([rule("i" * 256, **expire(1))], "InvalidArgument"),
        ([rule(**expire(0))], "InvalidArgument"),
        ([rule(**expire(-1))], "InvalidArgument"),
        ([rule(Expiration={"Date": datetime.datetime(2035, 1, 1, 12)})], "InvalidArgument"),
        ([rule(status="enabled", **expire(1))], "MalformedXML"),
        ([rule(status="invalid", **expire(1))], "MalformedXML"),
        ([rule()], "InvalidRequest"),
        ([rule(Expiration={})], "MalformedXML"),
        ([rule(Prefix="x", **expire(1))], "MalformedXML"),
        ([{"ID": "no filter", "Status": "Enabled", "Expiration": {"Days": 1}}], "MalformedXML"),
        ([{"ID": "two", "Filter": {"Prefix": "a", "ObjectSizeLessThan": 3}, "Status": "Enabled", "Expiration": {"Days": 1}}], "MalformedXML"),
        ([rule(AbortIncompleteMultipartUpload={"DaysAfterInitiation": 0})], "InvalidArgument"),
        ([rule(NoncurrentVersionExpiration={"NoncurrentDays": 0})], "InvalidArgument"),
        ([rule(Expiration={"Days": 30}, Transitions=[{"Days": 30, "StorageClass": "GLACIER"}])], "InvalidArgument"),
        ([rule(Transitions=[{"Days": 30, "StorageClass": "NO_SUCH_CLASS"}])], "MalformedXML"),
        ([], "MalformedXML"),
    ],
)
def test_wrong_rules_are_refused(s3, bucket, refused, rules, code):
    """Danger: a rule that was misunderstood deletes what it should not. Expected: AWS's code, and nothing configured."""
    with refused(code, 400):
        put(s3, bucket, *rules)
    with refused("NoSuchLifecycleConfiguration", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_no_bucket(s3, refused):
    missing = "no-such-bucket-at-all"
    with refused("NoSuchBucket", 404):
        put(s3, missing, rule(**expire(1)))
    with refused("NoSuchBucket", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=missing)
    with refused("NoSuchBucket", 404):
        s3.delete_bucket_lifecycle(Bucket=missing)


def test_expiry_is_announced(s3, bucket):
    """x-amz-expiration on PUT, HEAD and GET (API_HeadObject): the midnight after the days, and the rule."""
    put(s3, bucket, rule("my rule", "logs/", **expire(1)))
    before = datetime.datetime.now(datetime.timezone.utc)
    told = [
        s3.put_object(Bucket=bucket, Key="logs/a", Body=b"x").get("Expiration"),
        s3.head_object(Bucket=bucket, Key="logs/a").get("Expiration"),
        s3.get_object(Bucket=bucket, Key="logs/a").get("Expiration"),
    ]
    assert len(set(told)) == 1 and told[0].endswith(', rule-id="my%20rule"'), told
    date = datetime.datetime.strptime(told[0].split('"')[1], "%a, %d %b %Y %H:%M:%S %Z").replace(tzinfo=datetime.timezone.utc)
    assert (date - before).days == 1 and date.time() == datetime.time(0)
    assert "Expiration" not in s3.put_object(Bucket=bucket, Key="kept", Body=b"x")


@pytest.fixture(scope="module")
def fast(request, tmp_path_factory):
    """A pool of three whose days last seconds, for all tests that break none of its peers."""
    from palm_cluster import Pool

    if request.config.getoption("--endpoint"):
        pytest.skip("needs days of its own length")
    with Pool.form(tmp_path_factory.mktemp("lifecycle"), 3, None, "lifecycle", QUICK | FAST) as pool:
        yield pool


@pytest.mark.own_pool
def test_only_what_is_due_goes(fast):
    """A rule of one day, one of nine, one by tag, one by size, one with a date that is past, one disabled. Danger: something else goes, or
    goes early. Expected: what each names, in its time."""
    s3 = fast.peers[0].client()
    s3.create_bucket(Bucket="due")
    past = datetime.datetime(2015, 1, 1)
    put(
        s3, "due", rule("one", "one/", **expire(1)), rule("nine", "nine/", **expire(9)), rule("past", "past/", Expiration={"Date": past}),
        rule("off", "off/", "Disabled", **expire(1)),
        {"ID": "tag", "Filter": {"And": {"Prefix": "tag/", "Tags": [{"Key": "go", "Value": "yes"}]}}, "Status": "Enabled", "Expiration": {"Days": 1}},
        {"ID": "size", "Filter": {"And": {"Prefix": "size/", "ObjectSizeGreaterThan": 3}}, "Status": "Enabled", "Expiration": {"Days": 1}},
    )
    begun = time.time()
    for key in ("one/a", "one/b", "nine/a", "past/a", "off/a", "other", "size/small"):
        s3.put_object(Bucket="due", Key=key, Body=b"x")
    s3.put_object(Bucket="due", Key="size/large", Body=b"large")
    s3.put_object(Bucket="due", Key="tag/go", Body=b"x", Tagging="go=yes")
    s3.put_object(Bucket="due", Key="tag/stay", Body=b"x", Tagging="go=no")
    eventually(lambda: "past/a" not in keys(s3, "due"), SLACK_S, "what is past goes at once")
    if time.time() - begun < DAY_S:
        assert "one/a" in keys(s3, "due"), "gone before its day was over"
    kept = ["nine/a", "off/a", "other", "size/small", "tag/stay"]
    eventually(lambda: keys(s3, "due") == kept, 2 * DAY_S + SLACK_S, "what was due went, and nothing else")


@pytest.mark.own_pool
def test_uploads_are_aborted(fast, refused):
    """AbortIncompleteMultipartUpload: an upload that nobody completes goes, one outside the rule's prefix stays."""
    s3 = fast.peers[1].client()
    s3.create_bucket(Bucket="uploads")
    put(s3, "uploads", rule("abort", "a/", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1}))
    begun = {key: s3.create_multipart_upload(Bucket="uploads", Key=key) for key in ("a/1", "a/2", "b/1")}
    for key, upload in begun.items():
        s3.upload_part(Bucket="uploads", Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"x")
    left = lambda: [upload["Key"] for upload in s3.list_multipart_uploads(Bucket="uploads").get("Uploads", [])]
    eventually(lambda: left() == ["b/1"], 2 * DAY_S + SLACK_S, "uploads aborted")
    with refused("NoSuchUpload", 404):
        s3.list_parts(Bucket="uploads", Key="a/1", UploadId=begun["a/1"]["UploadId"])


@pytest.mark.own_pool
def test_a_peer_that_goes_does_not_take_rules_along(new_pool):
    """The peer that took the rules, and that may be the one to carry them out, is killed and stays away; then all are restarted.
    Expected: the others take over; the rules outlive restarts."""
    pool = new_pool(3, settings=QUICK | FAST)
    s3 = pool.peers[0].client()
    buckets = [f"bucket-{number}" for number in range(6)]
    for bucket in buckets:
        s3.create_bucket(Bucket=bucket)
        put(s3, bucket, rule("r", "go/", **expire(1)))
        s3.put_object(Bucket=bucket, Key="go/a", Body=b"x")
        s3.put_object(Bucket=bucket, Key="stay", Body=b"x")
    pool.peers[0].kill()
    s3 = pool.peers[1].client()
    gone = lambda: all(keys(s3, bucket) == ["stay"] for bucket in buckets)
    eventually(gone, 2 * DAY_S + GRACE_S + 20, "the others carry the rules out")
    pool.peers[0].start()
    for peer in pool.peers[1:]:
        peer.kill()
        peer.start()
    pool.wait_settled()
    for bucket in buckets:
        s3.put_object(Bucket=bucket, Key="go/b", Body=b"x")
    eventually(gone, 2 * DAY_S + GRACE_S + 20, "the rules outlive restarts")
