"""Event notifications. AWS: API_PutBucketNotificationConfiguration, userguide/EventNotifications, notification-content-structure.

Targets are named in the settings of the peers, so these tests have pools of their own.
"""

import time

import pytest

import samples
from palm_cluster import GRACE_S, QUICK, Pool, eventually
from webhook import Webhook

pytestmark = pytest.mark.own_pool

ARN = "arn:palm:sqs::hook:webhook"
DELIVERY_S = 60
ALL = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*", "s3:ObjectAcl:Put"]


def queue(events=("s3:ObjectCreated:*",), arn=ARN, name="all", **rules):
    configuration = {"Id": name, "QueueArn": arn, "Events": list(events)}
    if rules:
        configuration["Filter"] = {"Key": {"FilterRules": [{"Name": rule, "Value": value} for rule, value in rules.items()]}}
    return configuration


def put(s3, bucket, *queues, **arguments):
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": list(queues)}, **arguments)


def settings(hook):
    return QUICK | {"notify.targets": f"hook={hook.url},closed=http://127.0.0.1:9/"}


@pytest.fixture(scope="module")
def hook():
    hook = Webhook()
    yield hook
    hook.stop()


@pytest.fixture(scope="module")
def pool(hook, tmp_path_factory):
    with Pool.form(tmp_path_factory.mktemp("events"), 3, None, "events", settings(hook)) as pool:
        yield pool


@pytest.fixture
def events_bucket(pool):
    name = f"events-{time.time_ns()}"
    pool.peers[0].client().create_bucket(Bucket=name)
    return name


def test_configurations_come_back(pool, hook, events_bucket):
    """Queues, topics and functions with filters. Expected: what was put, at every peer; an empty configuration switches off; targets get a
    test message when they are configured."""
    s3 = pool.peers[0].client()
    assert "QueueConfigurations" not in s3.get_bucket_notification_configuration(Bucket=events_bucket)
    given = {
        "QueueConfigurations": [queue(prefix="a/", suffix=".jpg")],
        "TopicConfigurations": [{"Id": "topic", "TopicArn": "arn:aws:sns:us-east-1:123456789012:hook", "Events": ["s3:ObjectRemoved:*"]}],
        "LambdaFunctionConfigurations": [
            {"Id": "f", "LambdaFunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:hook", "Events": ["s3:ObjectTagging:*"]}
        ],
    }
    s3.put_bucket_notification_configuration(Bucket=events_bucket, NotificationConfiguration=given)
    for peer in pool.peers:
        answer = peer.client().get_bucket_notification_configuration(Bucket=events_bucket)
        del answer["ResponseMetadata"]
        for queues in answer["QueueConfigurations"]:
            for rule in queues["Filter"]["Key"]["FilterRules"]:
                rule["Name"] = rule["Name"].lower()
        assert answer == given
    tests = [message for message in hook.messages if message.get("Bucket") == events_bucket]
    assert tests and all(message["Event"] == "s3:TestEvent" and message["Service"] == "Amazon S3" for message in tests)
    s3.put_bucket_notification_configuration(Bucket=events_bucket, NotificationConfiguration={})
    assert "QueueConfigurations" not in s3.get_bucket_notification_configuration(Bucket=events_bucket)


@pytest.mark.parametrize(
    "queues",
    [
        [queue(arn="arn:palm:sqs::nobody:webhook")],
        [queue(arn="arn:aws:sns:us-east-1:123456789012:hook")],
        [queue(arn="hook")],
        [queue(arn="arn:palm:sqs::closed:webhook")],
        [queue(events=["s3:ObjectCreated:Nonsense"])],
        [queue(name="same"), queue(["s3:ObjectRemoved:*"], name="same")],
        [queue(name="one", prefix="a"), queue(name="two", prefix="ab")],
        [queue(color="red")],
        [queue(name="i" * 256)],
    ],
)
def test_wrong_configurations_are_refused(pool, events_bucket, refused, queues):
    """Unknown, malformed and unreachable targets, unknown events, overlaps. Expected: InvalidArgument, and nothing configured."""
    s3 = pool.peers[1].client()
    with refused("InvalidArgument", 400):
        put(s3, events_bucket, *queues)
    assert "QueueConfigurations" not in s3.get_bucket_notification_configuration(Bucket=events_bucket)


def test_validation_can_be_skipped(pool, events_bucket):
    """x-amz-skip-destination-validation: a target that is not there yet may be configured."""
    s3 = pool.peers[0].client()
    put(s3, events_bucket, queue(arn="arn:palm:sqs::closed:webhook"), SkipDestinationValidation=True)
    assert s3.get_bucket_notification_configuration(Bucket=events_bucket)["QueueConfigurations"]


def test_each_change_is_told(pool, hook, events_bucket):
    """PUT, copy, completed upload, DELETE, DeleteObjects, tags. Expected: one event each, with AWS's fields; nothing for requests that
    fail, for reads, and for keys that the filter leaves out."""
    clients = [peer.client() for peer in pool.peers]
    s3, bucket = clients[0], events_bucket
    put(s3, bucket, queue(ALL, prefix="in/"))
    etag = clients[1].put_object(Bucket=bucket, Key="in/a b+é", Body=b"hello")["ETag"].strip('"')
    clients[2].copy_object(Bucket=bucket, Key="in/copy", CopySource={"Bucket": bucket, "Key": "in/a b+é"})
    upload = s3.create_multipart_upload(Bucket=bucket, Key="in/parts")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="in/parts", UploadId=upload, PartNumber=1, Body=b"part")
    s3.complete_multipart_upload(
        Bucket=bucket, Key="in/parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    s3.put_object_tagging(Bucket=bucket, Key="in/copy", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    s3.delete_object_tagging(Bucket=bucket, Key="in/copy")
    s3.put_object(Bucket=bucket, Key="out", Body=b"x")
    s3.get_object(Bucket=bucket, Key="in/copy")["Body"].read()
    with pytest.raises(s3.exceptions.ClientError):
        s3.put_object(Bucket=bucket, Key="in/copy", Body=b"x", IfNoneMatch="*")
    clients[1].delete_object(Bucket=bucket, Key="in/copy")
    clients[2].delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "in/parts"}, {"Key": "out"}]})
    expected = {
        ("ObjectCreated:Put", "in/a b+é"), ("ObjectCreated:Copy", "in/copy"), ("ObjectCreated:CompleteMultipartUpload", "in/parts"),
        ("ObjectTagging:Put", "in/copy"), ("ObjectTagging:Delete", "in/copy"), ("ObjectRemoved:Delete", "in/copy"),
        ("ObjectRemoved:Delete", "in/parts"),
    }
    eventually(lambda: set(hook.seen(bucket)) == expected, DELIVERY_S, f"told of {expected}, got {hook.seen(bucket)}")
    assert len(hook.seen(bucket)) == len(expected), "nothing went wrong, so nothing is told twice"
    first = next(record for record in hook.records(bucket) if record["eventName"] == "ObjectCreated:Put")
    assert first["eventSource"] == "aws:s3" and first["awsRegion"] == "us-east-1" and first["eventVersion"].startswith("2.")
    assert first["s3"]["configurationId"] == "all" and first["s3"]["bucket"]["arn"] == f"arn:aws:s3:::{bucket}"
    thing = first["s3"]["object"]
    assert thing["key"] == "in/a+b%2B%C3%A9" and (thing["size"], thing["eTag"]) == (5, etag) and thing["sequencer"]
    removed = next(record for record in hook.records(bucket) if record["eventName"] == "ObjectRemoved:Delete")
    assert "size" not in removed["s3"]["object"]
    assert hook.headers[-1]["content-type"] == "application/json" and hook.headers[-1]["path"] == "/events?of=palm"


def test_what_a_target_does_not_take_is_sent_again(pool, hook, events_bucket):
    """The target answers 503, then nobody is there, then it is back. Expected: PUTs go on as if nothing were; each event comes in the
    end."""
    s3, bucket = pool.peers[0].client(), events_bucket
    put(s3, bucket, queue())
    hook.failing = True
    for number in range(10):
        s3.put_object(Bucket=bucket, Key=f"failing/{number}", Body=b"x")
    eventually(lambda: hook.refused, DELIVERY_S, "the target was asked")
    hook.stop()
    for number in range(10):
        pool.peers[number % 3].client().put_object(Bucket=bucket, Key=f"gone/{number}", Body=b"x")
    assert not hook.seen(bucket)
    hook.failing = False
    hook.start()
    expected = {("ObjectCreated:Put", f"{state}/{number}") for state in ("failing", "gone") for number in range(10)}
    eventually(lambda: set(hook.seen(bucket)) == expected, 90, "all events come in the end")
    waiting = lambda: sum(peer.metrics()["palm_events_waiting"] for peer in pool.peers)
    eventually(lambda: waiting() == 0, 90, "nothing waits any more")


def test_the_peer_that_began_is_gone(new_pool):
    """Objects are put through one peer while the target is away; the peer is killed for good. Danger: its events die with it. Expected: the
    others tell of each. And after a restart of all of them nothing is forgotten either."""
    hook = Webhook()
    try:
        pool = new_pool(3, settings=settings(hook))
        s3, bucket = pool.peers[0].client(), "orphans"
        s3.create_bucket(Bucket=bucket)
        put(s3, bucket, queue(ALL))
        hook.stop()
        for number in range(20):
            s3.put_object(Bucket=bucket, Key=f"a/{number}", Body=samples.blob(1000, str(number)))
        pool.peers[0].kill()
        hook.start()
        expected = {("ObjectCreated:Put", f"a/{number}") for number in range(20)}
        eventually(lambda: set(hook.seen(bucket)) == expected, GRACE_S + 60, "the others tell")
        hook.stop()
        s3 = pool.peers[1].client()
        for number in range(20):
            s3.delete_object(Bucket=bucket, Key=f"a/{number}")
        for peer in pool.peers[1:]:
            peer.kill()
        hook.start()
        for peer in pool.peers:
            peer.start()
        expected |= {("ObjectRemoved:Delete", f"a/{number}") for number in range(20)}
        eventually(lambda: set(hook.seen(bucket)) == expected, GRACE_S + 60, "after a restart nothing is forgotten")
    finally:
        hook.stop()
