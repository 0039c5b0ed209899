"""Options and fixtures shared by every family of tests.

By default the S3 families run against a pool of four peers and every single request goes to a peer picked at random, so each of them is a
test of the pool too. `--peers 1` takes a lone peer; `--endpoint URL --access-key A --secret-key S` takes any other S3 server, so that
its verdicts can be compared (cases that need peers of their own are skipped). `-m conformance` leaves out those that start their own pools.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import uuid

import pytest
from botocore.exceptions import ClientError

import palm_cluster
import sigv4
from observed import OBSERVER
from palm_cluster import Pool, palm_binary
from people import People
from target import Target

DELETE_BATCH = 1000


def pytest_addoption(parser):
    group = parser.getgroup("palm")
    group.addoption("--peers", type=int, default=4, help="peers of the pool under test (default 4)")
    group.addoption("--policy", default=None, help="k-of-n of the pool under test (default: the pool's own choice)")
    group.addoption("--endpoint", action="append", default=[], help="test this S3 server instead; may be given more than once")
    group.addoption("--access-key", default=os.environ.get("AWS_ACCESS_KEY_ID", ""))
    group.addoption("--secret-key", default=os.environ.get("AWS_SECRET_ACCESS_KEY", ""))
    group.addoption("--long", action="store_true", help="full numbers of rounds and sizes, and the tests marked long")
    group.addoption("--results", type=pathlib.Path, help="write here, as JSON, which operations each test called and how it ended")
    group.addoption("--seed", default=None, help="repeats the random choices of an earlier run")


def pytest_configure(config):
    if config.getoption("--seed") is None:
        config.option.seed = f"{random.SystemRandom().getrandbits(32):08x}"
    palm_cluster.on_client = OBSERVER.watch
    sigv4.on_answer = OBSERVER.request


def mode(config) -> str:
    """Against what this run tests, in words."""
    if config.getoption("--endpoint"):
        return "another server"
    peers = config.getoption("--peers")
    return "one peer" if peers == 1 else f"a random peer of {peers}"


def pytest_sessionfinish(session):
    if path := session.config.getoption("--results"):
        OBSERVER.write(path, mode(session.config))


def pytest_report_header(config):
    return f"against {mode(config)}   seed: --seed {config.getoption('--seed')}   binary: {palm_binary()}"


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="long: runs with --long"))
        if not item.get_closest_marker("own_pool"):
            item.add_marker(pytest.mark.conformance)
        if config.getoption("--endpoint") and any(map(item.get_closest_marker, ["own_pool", "palm"])):
            item.add_marker(pytest.mark.skip(reason="needs PALM and peers of its own"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    OBSERVER.begin()
    outcome = "failed"
    try:
        result = yield
        outcome = "passed"
        return result
    except pytest.skip.Exception:
        outcome = "skipped"
        raise
    finally:
        OBSERVER.end(item.nodeid, outcome)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of the log of every peer that it used."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            pool = value.pool if isinstance(value, Target) else value
            if isinstance(pool, Pool):
                report.sections.append(("peer logs", pool.logs()))
                break
    return report


@pytest.fixture
def rng(request) -> random.Random:
    """Random choices of this test, the same for the same --seed."""
    return random.Random(f"{request.config.getoption('--seed')}/{request.node.nodeid}")


@pytest.fixture
def rounds(request):
    """`rounds(usual, long)`: how often to repeat; the second number with --long."""
    is_long = request.config.getoption("--long")
    return lambda usual, long: long if is_long else usual


@pytest.fixture(scope="session")
def target(request, tmp_path_factory):
    options = request.config.option
    rng = random.Random(options.seed)
    if options.endpoint:
        yield Target(options.endpoint, options.access_key, options.secret_key, None, rng)
        return
    with Pool.form(tmp_path_factory.mktemp("pool"), options.peers, options.policy) as pool:
        yield Target([peer.endpoint for peer in pool.peers], pool.access_key, pool.secret_key, pool, rng)
        pool.assert_up()


@pytest.fixture(scope="session")
def _client(target):
    return target.client()


@pytest.fixture
def s3(target, _client, request):
    """The S3 client of the families: another peer at every request."""
    # The same peers in the same order for the same --seed, whichever tests run.
    target.rng.seed(f"{request.config.getoption('--seed')}/{request.node.nodeid}")
    yield _client
    if target.pool:
        target.pool.assert_up()


@pytest.fixture(scope="session")
def people(target) -> People:
    """Makes keys of other accounts and users."""
    return People(target)


@pytest.fixture(scope="session")
def owner(people):
    """Who owns the buckets of the tests."""
    return people.owner()


@pytest.fixture(scope="module")
def other(people):
    """The root key of another account."""
    return people.other()


@pytest.fixture
def make_bucket(s3):
    """Makes buckets; empties and removes them after the test."""
    made = []

    def make(name: str | None = None, **arguments) -> str:
        name = name or f"test-{uuid.uuid4().hex[:20]}"
        made.append(name)
        s3.create_bucket(Bucket=name, **arguments)
        return name

    yield make
    for name in made:
        with contextlib.suppress(ClientError):
            empty_bucket(s3, name)
            s3.delete_bucket(Bucket=name)


@pytest.fixture
def bucket(make_bucket) -> str:
    """A bucket of this test alone."""
    return make_bucket()


@pytest.fixture
def new_pool(tmp_path):
    """Forms pools that this test alone uses and may break."""
    with contextlib.ExitStack() as stack:
        yield lambda size, policy=None, name="test", settings=None: stack.enter_context(
            Pool.form(tmp_path / f"pool-{uuid.uuid4().hex[:6]}", size, policy, name, settings)
        )


def empty_bucket(s3, bucket: str) -> None:
    for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    bypass: dict = {}
    while keys := versions_of(s3, bucket):
        if s3.delete_objects(Bucket=bucket, Delete={"Objects": keys[:DELETE_BATCH], "Quiet": True}, **bypass).get("Errors"):
            if bypass:
                return  # locked for good
            bypass = {"BypassGovernanceRetention": True}


def versions_of(s3, bucket: str) -> list[dict]:
    page = s3.list_object_versions(Bucket=bucket)
    entries = page.get("Versions", []) + page.get("DeleteMarkers", [])
    return [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]


@pytest.fixture
def refused():
    """`with refused("NoSuchKey", 404): …`: the call inside must fail with that code (or one of several) and status.

    A refused HEAD has no body, so its code is the status alone.
    """

    @contextlib.contextmanager
    def expect(codes: str | tuple[str, ...], status: int | tuple[int, ...]):
        codes = (codes,) if isinstance(codes, str) else codes
        statuses = (status,) if isinstance(status, int) else status
        with pytest.raises(ClientError) as caught:
            yield caught
        answer = caught.value.response
        got_status, got_code = answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]
        allowed = codes + ((str(got_status),) if caught.value.operation_name.startswith("Head") else ())
        assert got_code in allowed and got_status in statuses, f"expected {codes} {statuses}, got {got_code} {got_status}: {answer['Error']}"

    return expect


@pytest.fixture
def body_of():
    """The whole body of a get_object answer."""
    return lambda answer: answer["Body"].read()
