"""Access logs. AWS: API_PutBucketLogging, API_GetBucketLogging, userguide/ServerLogs, userguide/LogFormat."""

import re
import shlex

import pytest

import samples
from palm_cluster import QUICK, Pool, eventually

EVERY_S = 2
DELIVERY_S = 60
SIMPLE = {"SimplePrefix": {}}
# Which of the 26 fields names the peer.
HOST_ID = 18


def status(target, prefix="logs/", **more):
    return {"LoggingEnabled": {"TargetBucket": target, "TargetPrefix": prefix} | more}


def test_configurations_come_back(s3, bucket, make_bucket, refused):
    """Expected: none at first, then what was put, with the plain form of keys where none was asked for, then none again."""
    target = make_bucket()
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=status(target))
    assert s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"] == status(target)["LoggingEnabled"] | {"TargetObjectKeyFormat": SIMPLE}
    for source in ("EventTime", "DeliveryTime"):
        full = status(target, "", TargetObjectKeyFormat={"PartitionedPrefix": {"PartitionDateSource": source}})
        s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=full)
        assert s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"] == full["LoggingEnabled"]
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)


def test_the_target_must_be_there(s3, bucket, refused):
    with refused("InvalidTargetBucketForLogging", 400):
        s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=status("no-such-bucket-at-all"))
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    with refused("NoSuchBucket", 404):
        s3.put_bucket_logging(Bucket="no-such-bucket-at-all", BucketLoggingStatus=status(bucket))
    with refused("NoSuchBucket", 404):
        s3.get_bucket_logging(Bucket="no-such-bucket-at-all")


def lines(s3, target, prefix=""):
    """All lines delivered so far, each as its fields."""
    found = []
    for entry in s3.list_objects_v2(Bucket=target, Prefix=prefix).get("Contents", []):
        text = s3.get_object(Bucket=target, Key=entry["Key"])["Body"].read().decode()
        assert text.endswith("\n")
        # The date is in brackets, and has a blank.
        found += [shlex.split(re.sub(r"\[([^]]*)\]", r'"\1"', line)) for line in text.splitlines()]
    return found


@pytest.fixture(scope="module")
def pool(request, tmp_path_factory):
    if request.config.getoption("--endpoint"):
        pytest.skip("needs deliveries within seconds")
    with Pool.form(tmp_path_factory.mktemp("logging"), 3, None, "logging", QUICK | {"access_log.every": f"{EVERY_S}s"}) as pool:
        yield pool


@pytest.mark.own_pool
def test_requests_are_logged(pool):
    """Requests through every peer, good and bad. Expected: a line each in the target, in AWS's 26 fields, and no line about the
    deliveries themselves."""
    clients = [peer.client() for peer in pool.peers]
    s3 = clients[0]
    for name in ("logged", "logs"):
        s3.create_bucket(Bucket=name)
    s3.put_bucket_logging(Bucket="logged", BucketLoggingStatus=status("logs", "a/"))
    s3.put_bucket_logging(Bucket="logs", BucketLoggingStatus=status("logs", "self/"))

    def noted() -> set[str]:
        # A peer notes requests by its own copy of the bucket's settings, which may follow a moment later.
        for client in clients:
            client.get_bucket_logging(Bucket="logged")
        return {line[HOST_ID] for line in lines(s3, "logs", "a/")}

    eventually(lambda: len(noted()) == len(clients), DELIVERY_S, "each peer has heard of the log", every_s=1)
    body = samples.blob(1234, "log")
    clients[0].put_object(Bucket="logged", Key="k 1", Body=body)
    assert clients[1].get_object(Bucket="logged", Key="k 1")["Body"].read() == body
    clients[2].list_objects_v2(Bucket="logged")
    with pytest.raises(s3.exceptions.ClientError):
        clients[1].get_object(Bucket="logged", Key="missing")
    clients[2].delete_object(Bucket="logged", Key="k 1")
    wanted = {
        ("REST.PUT.OBJECT", "200"), ("REST.GET.OBJECT", "200"), ("REST.GET.OBJECT", "404"), ("REST.GET.BUCKET", "200"), ("REST.DELETE.OBJECT", "204"),
    }
    answered = lambda: {(line[6], line[9]) for line in lines(s3, "logs", "a/")}
    eventually(lambda: wanted <= answered(), DELIVERY_S, "lines delivered")
    every = lines(s3, "logs", "a/")
    assert all(len(line) == 26 for line in every), every
    by = {(line[6], line[9]): line for line in every}
    got = by["REST.GET.OBJECT", "200"]
    assert got[1] == "logged" and got[3] == "127.0.0.1" and got[7] == "k%25201" and got[10] == "-"
    assert got[11] == got[12] == "1234" and "Boto3" in got[16] and got[19] == "SigV4" and got[21] == "AuthHeader"
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000", got[2])
    assert got[8].startswith("GET /logged/k%201 HTTP/1.1") and len(got[4]) == 64
    assert by["REST.GET.OBJECT", "404"][10] == "NoSuchKey"
    # Deliveries go into a bucket that logs itself: its only lines are of the requests of this test.
    assert all(line[6] != "REST.PUT.OBJECT" for line in lines(s3, "logs", "self/"))


@pytest.mark.own_pool
def test_lines_outlive_a_restart(new_pool):
    """Requests are answered, and the peer is stopped long before its logs are due, or killed once they are stored. Expected: nothing is lost
    when it stops; what was stored comes when it is back."""
    pool = new_pool(1, settings=QUICK | {"access_log.every": "1h"})
    peer = pool.peers[0]
    s3 = peer.client()
    for name in ("logged", "logs"):
        s3.create_bucket(Bucket=name)
    form = {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}}
    s3.put_bucket_logging(Bucket="logged", BucketLoggingStatus=status("logs", "p/", TargetObjectKeyFormat=form))
    s3.put_object(Bucket="logged", Key="a", Body=b"x")

    def delivered():
        peer.stop()
        peer.start()
        return lines(peer.client(), "logs")

    # A stop waits for the delivery, but not for ever: what had no time is delivered by the next one, perhaps a second time.
    found = eventually(delivered, DELIVERY_S, "what was answered before the peer stopped is delivered")
    s3 = peer.client()
    assert {line[7] for line in found if line[6] == "REST.PUT.OBJECT"} == {"a"}
    key = s3.list_objects_v2(Bucket="logs")["Contents"][0]["Key"]
    assert re.fullmatch(r"p/\d{12}/us-east-1/logged/\d{4}/\d\d/\d\d/\d{4}-\d\d-\d\d-00-00-00-[0-9A-F]{16}", key), key
