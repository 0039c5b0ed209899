"""Event notifications to brokers, and by HTTPS: Redis, NATS, MQTT and Kafka take them from a pool of three peers. docs/notifications.md.

What holds for every target (retries, order of business, filters) is tried with webhooks in test_notification.py.
"""

import subprocess
import time
import urllib.parse

import pytest

import brokers
from palm_cluster import GRACE_S, HOST, QUICK, Pool, eventually
from webhook import Webhook

pytestmark = pytest.mark.own_pool

DELIVERY_S = 60
EVENTS = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]


def certify(folder):
    """A certificate authority, and a certificate of 127.0.0.1 by it."""
    run = lambda *words: subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run("req", "-x509", *key, "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt")
    run("req", *key, "-subj", "/CN=hook", "-keyout", "hook.key", "-out", "hook.csr")
    (folder / "names").write_text(f"subjectAltName=IP:{HOST}\n")
    run("x509", "-req", "-in", "hook.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "hook.crt")
    return folder / "ca.crt", (folder / "hook.crt", folder / "hook.key")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("targets")


@pytest.fixture(scope="module")
def told(folder):
    """The brokers by name, and the rest that can be told."""
    ca, certificate = certify(folder)
    (folder / "strange").mkdir()
    _, stranger = certify(folder / "strange")
    nats = brokers.Nats(folder / "nats")
    nats.keep()
    everybody = {
        "redis": brokers.Redis(folder / "redis"), "nats": nats, "mqtt": brokers.Mqtt(), "kafka": brokers.Kafka(),
        "https": Webhook(certificate=certificate), "stranger": Webhook(certificate=stranger),
    }
    everybody["ca"] = ca
    yield everybody
    for one in everybody.values():
        if hasattr(one, "stop"):
            one.stop()


@pytest.fixture(scope="module")
def pool(told, folder):
    redis, nats, mqtt, kafka = (told[name] for name in ("redis", "nats", "mqtt", "kafka"))
    targets = {
        "redis": redis.url("list=events"), "redis-stream": redis.url("stream=log"), "redis-channel": redis.url("channel=news"),
        "redis-wrong": redis.url("list=events").replace(redis.password, "guess"),
        "nats": nats.url("kept.events?jetstream=true"), "nats-nobody": nats.url("heard.by.nobody"), "nats-unkept": nats.url("other?jetstream=true"),
        "nats-wrong": nats.url("kept.events").replace(nats.token, "guess"),
        "mqtt": mqtt.url(mqtt.topic), "kafka": kafka.url(kafka.topic), "kafka-unknown": kafka.url("unknown"),
        "https": told["https"].url, "https-stranger": told["stranger"].url, "closed": "redis://127.0.0.1:9?list=events",
    }
    settings = QUICK | {"notify.targets": ",".join(f"{name}={url}" for name, url in targets.items())}
    pool = Pool(folder / "pool", "targets", settings)
    # Read by the system's certificate store in place of its own roots.
    pool.environment["SSL_CERT_FILE"] = str(told["ca"])
    with pool:
        pool.create()
        pool.join()
        pool.join()
        pool.wait_settled()
        yield pool


def watched_bucket(s3, target, **arguments):
    """A bucket whose events go to a target."""
    name = f"targets-{time.time_ns()}"
    s3.create_bucket(Bucket=name)
    queue = {"Id": "all", "QueueArn": f"arn:palm:sqs::{target}:broker", "Events": EVENTS}
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"QueueConfigurations": [queue]}, **arguments)
    return name


def seen(messages, bucket):
    """Name and key of each event of a bucket."""
    records = [record for message in messages for record in message.get("Records", []) if record["s3"]["bucket"]["name"] == bucket]
    return [(record["eventName"], urllib.parse.unquote_plus(record["s3"]["object"]["key"])) for record in records]


@pytest.mark.parametrize("name", ["redis", "nats", "mqtt", "kafka", "https"])
def test_each_event_is_told(pool, told, name):
    """Objects are put and deleted at each peer. Expected: the target got s3:TestEvent when it was configured, and then each event."""
    broker = told[name]
    messages = (lambda: broker.messages) if name == "https" else broker.messages
    clients = [peer.client() for peer in pool.peers]
    bucket = watched_bucket(clients[0], name)
    tested = lambda: any(message.get("Event") == "s3:TestEvent" and message["Bucket"] == bucket for message in messages())
    eventually(tested, DELIVERY_S, "the target got a test message")
    for number in range(9):
        clients[number % 3].put_object(Bucket=bucket, Key=f"a b/é{number}", Body=b"x")
    clients[0].delete_object(Bucket=bucket, Key="a b/é0")
    expected = {("ObjectCreated:Put", f"a b/é{number}") for number in range(9)} | {("ObjectRemoved:Delete", "a b/é0")}
    eventually(lambda: set(seen(messages(), bucket)) == expected, DELIVERY_S, f"{name} is told of {expected}")


@pytest.mark.parametrize("name", ["redis", "nats", "mqtt"])
def test_what_a_broker_missed_comes_later(pool, told, name):
    """The broker goes away, with connections to it open, and comes back. Expected: PUTs go on as if nothing were, and each event comes in the end."""
    broker, s3 = told[name], pool.peers[1].client()
    bucket = watched_bucket(s3, name)
    s3.put_object(Bucket=bucket, Key="before", Body=b"x")
    eventually(lambda: seen(broker.messages(), bucket), DELIVERY_S, "told")
    broker.stop()
    for number in range(10):
        s3.put_object(Bucket=bucket, Key=f"away/{number}", Body=b"x")
    broker.start()
    s3.put_object(Bucket=bucket, Key="after", Body=b"x")
    expected = {("ObjectCreated:Put", key) for key in ["before", "after", *(f"away/{number}" for number in range(10))]}
    eventually(lambda: set(seen(broker.messages(), bucket)) == expected, 2 * DELIVERY_S, "all come in the end")


def test_streams_and_channels_of_redis(pool, told):
    """A stream keeps each message as an entry; a channel has it while somebody listens. Danger: an event published to nobody counts as told.
    Expected: it waits until there is a listener."""
    redis, s3 = told["redis"].client(), pool.peers[0].client()
    bucket = watched_bucket(s3, "redis-stream")
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    eventually(lambda: redis.xlen("log") >= 2, DELIVERY_S, "a test message and an event")
    assert any(b'"ObjectCreated:Put"' in entry[b"message"] for _, entry in redis.xrange("log"))
    bucket = watched_bucket(s3, "redis-channel", SkipDestinationValidation=True)
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    listener = redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("news")
    heard = eventually(lambda: listener.get_message(timeout=1), 2 * DELIVERY_S, "published again until somebody listens")
    assert b'"ObjectCreated:Put"' in heard["data"]
    listener.close()


def test_the_records_of_an_object_are_in_one_partition(pool, told):
    """Kafka keeps order within a partition only. Expected: all records of a key in one, with bucket and key as theirs; not all keys in the same."""
    s3 = pool.peers[2].client()
    bucket = watched_bucket(s3, "kafka")
    for _ in range(3):
        for number in range(8):
            s3.put_object(Bucket=bucket, Key=str(number), Body=b"x")
    records = lambda: [(key, partition) for partition, key, _ in told["kafka"].records() if key.startswith(f"{bucket}/")]
    eventually(lambda: len(records()) >= 24, DELIVERY_S, "all are told")
    placed = set(records())
    assert sorted(key for key, _ in placed) == [f"{bucket}/{number}" for number in range(8)]
    assert len({partition for _, partition in placed}) > 1


@pytest.mark.parametrize(
    "name", ["redis-wrong", "nats-wrong", "redis-channel", "nats-nobody", "nats-unkept", "kafka-unknown", "https-stranger", "closed"]
)
def test_targets_that_do_not_take_a_message_are_refused(pool, refused, name):
    """A wrong password, nobody who listens, no stream, no topic, a certificate of an unknown authority, nobody there. Danger: a configuration is
    taken, and every event after it waits for days. Expected: InvalidArgument when it is put, as AWS does."""
    with refused("InvalidArgument", 400):
        watched_bucket(pool.peers[0].client(), name)


def test_another_peer_tells_when_the_first_is_gone(pool, told):
    """Objects are put through one peer while the broker is away; the peer is killed, then the broker is back. Expected: the others tell of
    each; the peer comes back for who tests after this."""
    nats, gone = told["nats"], pool.peers[2]
    bucket = watched_bucket(gone.client(), "nats")
    nats.stop()
    for number in range(10):
        gone.client().put_object(Bucket=bucket, Key=str(number), Body=b"x")
    gone.kill()
    nats.start()
    expected = {("ObjectCreated:Put", str(number)) for number in range(10)}
    eventually(lambda: set(seen(nats.messages(), bucket)) == expected, GRACE_S + 2 * DELIVERY_S, "the others tell")
    gone.start()
    pool.wait_settled()
