"""Lifecycle rules. AWS: API_PutBucketLifecycleConfiguration, API_GetBucketLifecycleConfiguration, API_DeleteBucketLifecycle,
userguide/intro-lifecycle-rules.

What rules do in days is watched on pools of their own, whose days last seconds (`lifecycle.day`).
"""

import datetime
import time
from collections import Counter

import pytest

import samples
from palm_cluster import GRACE_S, QUICK, Pool, eventually
from webhook import Webhook

DAY_S = 4
FAST = {"lifecycle.day": f"{DAY_S}s"}
# A day ends at midnight, so what is to go after n days goes before n + 1 are over; and then a walk must come by.
SLACK_S = 40
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


def heard(target, bucket, key):
    """Returns once each peer tells of the rules: it does so by its own copy of them, which may follow a moment later."""
    for client in target.clients():
        eventually(lambda: "Expiration" in client.put_object(Bucket=bucket, Key=key, Body=b"0123456789"), SLACK_S, "the peer has heard of the rules")


def test_expiry_is_announced(target, s3, bucket):
    """x-amz-expiration on PUT, HEAD and GET (API_HeadObject): the midnight after the days, and the rule."""
    put(s3, bucket, rule("my rule", "logs/", **expire(1)))
    heard(target, bucket, "logs/heard")
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


def test_expiry_is_announced_by_the_rule_that_fits(target, s3, bucket):
    """Rules by tag, size and date, and two for one object. Expected: the header names the rule that expires the object first, on copies and
    completed uploads too; none for objects that no rule fits, for versions that are not current, and for rules that are off."""
    by = lambda name, days, **fit: {"ID": name, "Status": "Enabled", "Filter": {"And": {"Prefix": "x/"} | fit}} | expire(days)
    date = datetime.datetime(2035, 1, 1, tzinfo=datetime.timezone.utc)
    put(
        s3, bucket, by("tagged", 3, Tags=[{"Key": "t", "Value": "1"}]), by("large", 5, ObjectSizeGreaterThan=9), rule("off", "x/", "Disabled", **expire(1)),
        rule("dated", "date/", Expiration={"Date": date}),
    )
    heard(target, bucket, "x/heard")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    rule_of = lambda answer: answer.get("Expiration", "").rpartition("rule-id=")[2].strip('"')
    first = s3.put_object(Bucket=bucket, Key="x/a", Body=b"0123456789")
    assert rule_of(first) == "large"
    assert rule_of(s3.put_object(Bucket=bucket, Key="x/a", Body=b"0123456789", Tagging="t=1")) == "tagged"
    assert rule_of(s3.head_object(Bucket=bucket, Key="x/a")) == "tagged"
    assert rule_of(s3.head_object(Bucket=bucket, Key="x/a", VersionId=first["VersionId"])) == "", "it is not current"
    assert rule_of(s3.put_object(Bucket=bucket, Key="x/b", Body=b"0")) == ""
    copied = s3.copy_object(Bucket=bucket, Key="x/c", CopySource={"Bucket": bucket, "Key": "x/a"})
    assert rule_of(copied) == "tagged", "tags come along"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="date/m")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="date/m", UploadId=upload, PartNumber=1, Body=b"x")
    done = s3.complete_multipart_upload(Bucket=bucket, Key="date/m", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    assert done["Expiration"] == 'expiry-date="Mon, 01 Jan 2035 00:00:00 GMT", rule-id="dated"'


@pytest.fixture(scope="module")
def fast(request, tmp_path_factory):
    """A pool of three whose days last seconds, for all tests that break none of its peers."""
    if request.config.getoption("--endpoint"):
        pytest.skip("needs days of its own length")
    with Pool.form(tmp_path_factory.mktemp("lifecycle"), 3, None, "lifecycle", QUICK | FAST) as pool:
        yield pool


@pytest.mark.own_pool
def test_only_what_is_due_goes(fast):
    """A rule of one day, one of ninety-nine, one by tag, one by size, one with a date that is past, one disabled. Danger: something else goes, or
    goes early. Expected: what each names, in its time."""
    s3 = fast.peers[0].client()
    s3.create_bucket(Bucket="due")
    past = datetime.datetime(2015, 1, 1)
    put(
        s3, "due", rule("one", "one/", **expire(1)), rule("ninety-nine", "ninety-nine/", **expire(99)), rule("past", "past/", Expiration={"Date": past}),
        rule("off", "off/", "Disabled", **expire(1)),
        {"ID": "tag", "Filter": {"And": {"Prefix": "tag/", "Tags": [{"Key": "go", "Value": "yes"}]}}, "Status": "Enabled", "Expiration": {"Days": 1}},
        {"ID": "size", "Filter": {"And": {"Prefix": "size/", "ObjectSizeGreaterThan": 3}}, "Status": "Enabled", "Expiration": {"Days": 1}},
    )
    begun = time.time()
    for key in ("one/a", "one/b", "ninety-nine/a", "past/a", "off/a", "other", "size/small"):
        s3.put_object(Bucket="due", Key=key, Body=b"x")
    s3.put_object(Bucket="due", Key="size/large", Body=b"large")
    s3.put_object(Bucket="due", Key="tag/go", Body=b"x", Tagging="go=yes")
    s3.put_object(Bucket="due", Key="tag/stay", Body=b"x", Tagging="go=no")
    eventually(lambda: "past/a" not in keys(s3, "due"), SLACK_S, "what is past goes at once")
    left = keys(s3, "due")
    if time.time() - begun < DAY_S:
        assert "one/a" in left, "gone before its day was over"
    kept = ["ninety-nine/a", "off/a", "other", "size/small", "tag/stay"]
    eventually(lambda: keys(s3, "due") == kept, 2 * DAY_S + SLACK_S, "what was due went, and nothing else")


def versions(s3, bucket, prefix=""):
    """How many versions, and how many markers, each key has."""
    page = s3.list_object_versions(Bucket=bucket, Prefix=prefix)
    objects, markers = (Counter(entry["Key"] for entry in page.get(kind, [])) for kind in ("Versions", "DeleteMarkers"))
    return {key: (objects[key], markers[key]) for key in objects | markers}


@pytest.mark.own_pool
def test_versions_go_by_their_own_rules(fast):
    """A versioned bucket with a rule of each kind for versions. Danger: a rule deletes what is current, more than it may, or brings back what a
    marker hid. Expected: AWS's outcome for each (userguide/intro-lifecycle-rules, "Lifecycle rules: based on the bucket's versioning state")."""
    s3, bucket = fast.peers[0].client(), "versions"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    gone = {"NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    filtered = lambda name, **other: {"ID": name, "Status": "Enabled", "Filter": {"And": {"Prefix": f"{name}/"} | other}} | gone
    put(
        s3, bucket,
        rule("current", "current/", **expire(1)),
        rule("old", "old/", **gone),
        rule("newest", "newest/", NoncurrentVersionExpiration={"NoncurrentDays": 1, "NewerNoncurrentVersions": 2}),
        rule("markers", "markers/", Expiration={"ExpiredObjectDeleteMarker": True}),
        rule("all", "all/", **expire(1), **gone),
        filtered("tag", Tags=[{"Key": "go", "Value": "yes"}]),
        filtered("small", ObjectSizeLessThan=3),
        filtered("between", ObjectSizeGreaterThan=3, ObjectSizeLessThan=6),
        rule("far", "far/", NoncurrentVersionExpiration={"NoncurrentDays": 300}),
    )
    for key, count in {"current/a": 1, "old/a": 3, "newest/a": 5, "all/a": 2, "far/a": 2, "other": 2}.items():
        for number in range(count):
            s3.put_object(Bucket=bucket, Key=key, Body=b"%d" % number)
    for tagging in ("go=yes", "go=no", "go=yes"):
        s3.put_object(Bucket=bucket, Key="tag/a", Body=b"x", Tagging=tagging)
    for size in (2, 3, 4, 7, 5):
        s3.put_object(Bucket=bucket, Key="small/a", Body=b"s" * size)
        s3.put_object(Bucket=bucket, Key="between/a", Body=b"b" * size)
    for key in ("markers/alone", "markers/covers"):
        version = s3.put_object(Bucket=bucket, Key=key, Body=b"x")["VersionId"]
        s3.delete_object(Bucket=bucket, Key=key)
        if key == "markers/alone":
            s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
    s3.put_object(Bucket=bucket, Key="old/gone", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="old/gone")
    expected = {
        "current/a": (1, 1), "old/a": (1, 0), "old/gone": (0, 1), "newest/a": (3, 0), "markers/covers": (1, 1), "far/a": (2, 0),
        "other": (2, 0), "tag/a": (2, 0), "small/a": (4, 0), "between/a": (4, 0),
    }
    eventually(lambda: versions(s3, bucket) == expected, 5 * DAY_S + 2 * SLACK_S, f"{expected}, not {versions(s3, bucket)}")
    left = s3.list_object_versions(Bucket=bucket, Prefix="newest/")["Versions"]
    bodies = [s3.get_object(Bucket=bucket, Key="newest/a", VersionId=entry["VersionId"])["Body"].read() for entry in left]
    assert bodies == [b"4", b"3", b"2"] and left[0]["IsLatest"], "the newest stay"
    tags = s3.list_object_versions(Bucket=bucket, Prefix="tag/")["Versions"][1]
    assert s3.get_object_tagging(Bucket=bucket, Key="tag/a", VersionId=tags["VersionId"])["TagSet"] == [{"Key": "go", "Value": "no"}]


@pytest.mark.own_pool
def test_a_suspended_bucket_keeps_its_versions(fast):
    """Versioning is suspended. Expected: a current null version is replaced by a null marker; a current version with an id stays below one."""
    s3, bucket = fast.peers[1].client(), "suspended"
    s3.create_bucket(Bucket=bucket)
    for status, key in (("Enabled", "kept"), ("Suspended", "null")):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    put(s3, bucket, rule(**expire(1)))
    # AWS removes a marker that is left alone with the same rule, a day later.
    expected = [{"kept": (1, 1), "null": (0, 1)}, {"kept": (1, 1)}]
    eventually(lambda: versions(s3, bucket) in expected, 2 * DAY_S + SLACK_S, f"one of {expected}, not {versions(s3, bucket)}")
    markers = s3.list_object_versions(Bucket=bucket, Prefix="kept")["DeleteMarkers"]
    assert [marker["VersionId"] for marker in markers] == ["null"]


@pytest.mark.own_pool
def test_a_locked_version_stays(fast):
    """Rules of one day in a bucket whose versions are held. Danger: a rule gets around object lock. Expected: held versions stay below a
    marker until they are let go."""
    s3, bucket = fast.peers[2].client(), "held"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    put(s3, bucket, rule(NoncurrentVersionExpiration={"NoncurrentDays": 1}))
    held = s3.put_object(Bucket=bucket, Key="held", Body=b"1", ObjectLockLegalHoldStatus="ON")["VersionId"]
    for key in ("held", "free", "free"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"2")
    eventually(lambda: versions(s3, bucket) == {"held": (2, 0), "free": (1, 0)}, 2 * DAY_S + SLACK_S, "what nobody holds goes")
    s3.put_object_legal_hold(Bucket=bucket, Key="held", VersionId=held, LegalHold={"Status": "OFF"})
    eventually(lambda: versions(s3, bucket) == {"held": (1, 0), "free": (1, 0)}, 2 * DAY_S + SLACK_S, "what was let go follows")


@pytest.mark.own_pool
def test_what_rules_do_is_told(tmp_path):
    """Rules in two buckets whose notifications ask for s3:LifecycleExpiration. Expected (userguide/notification-how-to-event-types-and-destinations):
    Delete for what goes for good, DeleteMarkerCreated where a marker comes, nothing as ObjectRemoved."""
    hook = Webhook()
    with Pool.form(tmp_path / "told", 1, settings=QUICK | FAST | {"notify.targets": f"hook={hook.url}"}) as pool:
        s3 = pool.peers[0].client()
        for bucket in ("plain", "versioned"):
            s3.create_bucket(Bucket=bucket)
            events = {"Id": "all", "QueueArn": "arn:palm:sqs::hook:webhook", "Events": ["s3:LifecycleExpiration:*", "s3:ObjectRemoved:*"]}
            s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [events]})
            put(s3, bucket, rule(**expire(1), NoncurrentVersionExpiration={"NoncurrentDays": 1}))
        s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
        s3.put_object(Bucket="plain", Key="a", Body=b"x")
        version = s3.put_object(Bucket="versioned", Key="a", Body=b"x")["VersionId"]
        told = lambda: {(r["s3"]["bucket"]["name"], r["eventName"], r["s3"]["object"].get("versionId")) for r in hook.records()}
        made = lambda: {(bucket, event) for bucket, event, _ in told()}
        expected = {
            ("plain", "LifecycleExpiration:Delete"), ("versioned", "LifecycleExpiration:DeleteMarkerCreated"), ("versioned", "LifecycleExpiration:Delete"),
        }
        eventually(lambda: made() >= expected and ("versioned", "LifecycleExpiration:Delete", version) in told(), 4 * DAY_S + SLACK_S, f"{expected}, not {told()}")
        assert made() == expected
        assert all(record["userIdentity"]["principalId"] == "s3.amazonaws.com" for record in hook.records())
    hook.stop()


@pytest.mark.own_pool
def test_uploads_are_aborted(fast, refused):
    """AbortIncompleteMultipartUpload: an upload that nobody completes goes, one outside the rule's prefix stays."""
    s3 = fast.peers[1].client()
    s3.create_bucket(Bucket="uploads")
    begun = {key: s3.create_multipart_upload(Bucket="uploads", Key=key) for key in ("a/1", "a/2", "b/1")}
    for key, upload in begun.items():
        s3.upload_part(Bucket="uploads", Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"x")
    put(s3, "uploads", rule("abort", "a/", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1}))
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
    s3.create_bucket(Bucket="versioned")
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    put(s3, "versioned", rule("r", "go/", NoncurrentVersionExpiration={"NoncurrentDays": 1}))
    for _ in range(2):
        s3.put_object(Bucket="versioned", Key="go/v", Body=b"x")
    pool.peers[0].kill()
    s3 = pool.peers[1].client()
    gone = lambda: all(keys(s3, bucket) == ["stay"] for bucket in buckets) and versions(s3, "versioned") == {"go/v": (1, 0)}
    eventually(gone, 2 * DAY_S + GRACE_S + 2 * SLACK_S, "the others carry the rules out")
    pool.peers[0].start()
    for peer in pool.peers[1:]:
        peer.kill()
        peer.start()
    pool.wait_settled()
    for bucket in buckets:
        s3.put_object(Bucket=bucket, Key="go/b", Body=b"x")
    s3.put_object(Bucket="versioned", Key="go/v", Body=b"x")
    eventually(gone, 2 * DAY_S + GRACE_S + 2 * SLACK_S, "the rules outlive restarts")
