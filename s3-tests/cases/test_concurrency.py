"""Many clients at once on the same keys. AWS: userguide/conditional-writes (409 and 412), Welcome (strong consistency)."""

import collections
import concurrent.futures
import threading

from botocore.exceptions import ClientError

import samples

CREATORS = 32


def outcome(attempt) -> str:
    try:
        attempt()
        return "200"
    except ClientError as error:
        return f"{error.response['ResponseMetadata']['HTTPStatusCode']} {error.response['Error']['Code']}"


def all_at_once(attempts) -> list[str]:
    """Runs each in its own thread, released together."""
    gate = threading.Barrier(len(attempts))

    def run(attempt):
        gate.wait()
        return outcome(attempt)

    with concurrent.futures.ThreadPoolExecutor(len(attempts)) as workers:
        return list(workers.map(run, attempts))


def test_one_creator_wins(target, bucket, rounds):
    """32 clients create one key with If-None-Match:* through all peers. Danger: two winners, or none. Expected: exactly one 200, the rest
    412 or 409, and the object is the winner's at every peer."""
    clients = target.clients()
    for turn in range(rounds(10, 100)):
        key = f"contested-{turn}"
        attempts = [
            lambda number=number: clients[number % len(clients)].put_object(
                Bucket=bucket, Key=key, Body=f"creator {number}".encode(), IfNoneMatch="*"
            )
            for number in range(CREATORS)
        ]
        outcomes = all_at_once(attempts)
        counted = collections.Counter(outcomes)
        assert counted["200"] == 1, f"turn {turn}: {counted}"
        assert set(counted) <= {"200", "412 PreconditionFailed", "409 ConditionalRequestConflict"}, f"turn {turn}: {counted}"
        winner = f"creator {outcomes.index('200')}".encode()
        for client in clients:
            assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == winner


def test_a_counter_loses_no_step(target, bucket, rounds):
    """Eight clients raise one number by read and If-Match write, as people build locks on S3. Danger: two that both think they raised it
    from 5 to 6. Expected: the number at the end is the number of successes."""
    clients = target.clients()
    clients[0].put_object(Bucket=bucket, Key="counter", Body=b"0")

    def raise_it(number: int) -> int:
        client, successes = clients[number % len(clients)], 0
        for _ in range(rounds(12, 200)):
            answer = client.get_object(Bucket=bucket, Key="counter")
            value, etag = int(answer["Body"].read()), answer["ETag"]
            result = outcome(lambda: client.put_object(Bucket=bucket, Key="counter", Body=str(value + 1).encode(), IfMatch=etag))
            assert result in ("200", "412 PreconditionFailed", "409 ConditionalRequestConflict"), result
            successes += result == "200"
        return successes

    with concurrent.futures.ThreadPoolExecutor(8) as workers:
        successes = sum(workers.map(raise_it, range(8)))
    assert successes > 0
    for client in clients:
        assert int(client.get_object(Bucket=bucket, Key="counter")["Body"].read()) == successes


def test_overwrites_are_whole(target, bucket, rounds):
    """Writers replace one object by others of other sizes while readers read. Danger: the head of one with the tail of another.
    Expected: each read is one of the written bodies, whole, with its own ETag."""
    bodies = [samples.blob(size, size) for size in (10, 70_000, 1_100_000, 2_500_000)]
    by_etag = {f'"{samples.md5(body)}"': body for body in bodies}
    clients = target.clients()
    clients[0].put_object(Bucket=bucket, Key="k", Body=bodies[0])

    def write(number: int) -> None:
        for turn in range(rounds(8, 200)):
            clients[(number + turn) % len(clients)].put_object(Bucket=bucket, Key="k", Body=bodies[(number + turn) % 4])

    def read(number: int) -> None:
        for turn in range(rounds(15, 400)):
            answer = clients[(number + turn) % len(clients)].get_object(Bucket=bucket, Key="k")
            assert answer["Body"].read() == by_etag[answer["ETag"]]

    with concurrent.futures.ThreadPoolExecutor(6) as workers:
        for done in [workers.submit(write, number) for number in range(2)] + [workers.submit(read, number) for number in range(4)]:
            done.result()


def test_complete_at_once(target, s3, bucket):
    """Eight identical completions of one upload (a client and its retries). Expected: one object, the same ETag to each."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    etag = s3.upload_part(**where, PartNumber=1, Body=b"part")["ETag"]
    clients, etags = target.clients(), []

    def complete(client):
        parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        etags.append(client.complete_multipart_upload(**where, MultipartUpload=parts)["ETag"])

    outcomes = all_at_once([lambda number=number: complete(clients[number % len(clients)]) for number in range(8)])
    assert set(outcomes) == {"200"}, outcomes
    assert set(etags) == {samples.multipart_etag([b"part"])}
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"part"


def test_buckets_made_and_removed_at_once(target, bucket, s3, rounds):
    """One client removes an empty bucket while others write into it. Danger: an object in a bucket that is not there.
    Expected: either the bucket is gone and every write was refused, or it is there with the acknowledged objects."""
    clients = target.clients()
    for turn in range(rounds(5, 50)):
        name = f"{bucket}-{turn}"
        clients[0].create_bucket(Bucket=name)
        writes = [
            lambda number=number: clients[number % len(clients)].put_object(Bucket=name, Key=f"k{number}", Body=b"x") for number in range(6)
        ]
        outcomes = all_at_once([lambda: clients[-1].delete_bucket(Bucket=name), *writes])
        stored = {f"k{number}" for number, result in enumerate(outcomes[1:]) if result == "200"}
        if outcomes[0] == "200":
            assert not stored, f"turn {turn}: {outcomes}"
        else:
            listed = {entry["Key"] for entry in s3.list_objects_v2(Bucket=name).get("Contents", [])}
            assert stored <= listed, f"turn {turn}: {outcomes} {listed}"
            for key in listed:
                s3.delete_object(Bucket=name, Key=key)
            s3.delete_bucket(Bucket=name)
