"""Buckets. AWS: API_CreateBucket, API_HeadBucket, API_DeleteBucket, API_ListBuckets, userguide/bucketnamingrules."""

import datetime
import uuid

import pytest
from botocore.exceptions import ClientError

BAD_NAMES = [
    "ab", "a" * 64, "Uppercase", "under_score", "-starts-with-dash", "ends-with-dash-", ".starts-with-dot", "ends-with-dot.",
    "two..dots", "192.168.5.4", "xn--punycode", "name-s3alias", "name--ol-s3", "sthree-name",
]


def test_a_buckets_life(s3, make_bucket, refused):
    """A bucket is made, found, listed and removed, each step at another peer. Danger: a peer that learns of it late.
    Expected: each step is seen at once."""
    name = f"life-{uuid.uuid4().hex[:12]}"
    with refused("NoSuchBucket", 404):
        s3.head_bucket(Bucket=name)
    make_bucket(name)
    s3.head_bucket(Bucket=name)
    entry = next(entry for entry in s3.list_buckets()["Buckets"] if entry["Name"] == name)
    age = datetime.datetime.now(datetime.timezone.utc) - entry["CreationDate"]
    assert abs(age) < datetime.timedelta(minutes=5)
    s3.delete_bucket(Bucket=name)
    with refused("NoSuchBucket", 404):
        s3.head_bucket(Bucket=name)
    assert name not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(s3, refused, name):
    """AWS's naming rules (userguide/bucketnamingrules). Danger: a name that cannot be a host name later. Expected: InvalidBucketName."""
    with refused("InvalidBucketName", 400):
        s3.create_bucket(Bucket=name)


def test_making_it_again_keeps_what_is_in_it(s3, bucket, refused, body_of):
    """The owner creates a bucket that exists (API_CreateBucket, errors). Danger: a fresh record hides the objects.
    Expected: 200 as in us-east-1 or BucketAlreadyOwnedByYou, and the object is still there."""
    s3.put_object(Bucket=bucket, Key="kept", Body=b"kept")
    try:
        s3.create_bucket(Bucket=bucket)
    except ClientError as refusal:
        assert refusal.response["Error"]["Code"] == "BucketAlreadyOwnedByYou"
        assert refusal.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    assert body_of(s3.get_object(Bucket=bucket, Key="kept")) == b"kept"


def test_only_an_empty_bucket_can_go(s3, bucket, refused):
    """API_DeleteBucket: all objects must be gone first. Danger: orphans. Expected: BucketNotEmpty, then success once empty."""
    s3.put_object(Bucket=bucket, Key="in/the/way", Body=b"x")
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="in/the/way")
    s3.delete_bucket(Bucket=bucket)


def test_a_reborn_bucket_is_empty(s3, bucket, refused):
    """A bucket is emptied, removed and made again under its name. Danger: old records show through. Expected: an empty bucket."""
    s3.put_object(Bucket=bucket, Key="old", Body=b"old")
    s3.delete_object(Bucket=bucket, Key="old")
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key="old")


def test_no_bucket_no_object(s3, refused):
    """Every kind of access to a bucket that is not there. Danger: an object without a bucket. Expected: NoSuchBucket each time."""
    missing = f"missing-{uuid.uuid4().hex[:12]}"
    attempts = [
        lambda: s3.put_object(Bucket=missing, Key="k", Body=b"x"),
        lambda: s3.get_object(Bucket=missing, Key="k"),
        lambda: s3.head_object(Bucket=missing, Key="k"),
        lambda: s3.delete_object(Bucket=missing, Key="k"),
        lambda: s3.list_objects_v2(Bucket=missing),
        lambda: s3.list_objects(Bucket=missing),
        lambda: s3.create_multipart_upload(Bucket=missing, Key="k"),
        lambda: s3.list_multipart_uploads(Bucket=missing),
        lambda: s3.get_bucket_location(Bucket=missing),
        lambda: s3.delete_bucket(Bucket=missing),
    ]
    for attempt in attempts:
        with refused("NoSuchBucket", 404):
            attempt()


def test_location_is_told(s3, bucket):
    """API_GetBucketLocation: SDKs ask it to find the region. Expected: an answer that has the field."""
    assert "LocationConstraint" in s3.get_bucket_location(Bucket=bucket)


def test_bucket_listing_has_prefix_and_pages(s3, make_bucket):
    """API_ListBuckets: Prefix and MaxBuckets with ContinuationToken, alphabetical. Danger: a page border that loses or repeats one."""
    prefix = f"pages-{uuid.uuid4().hex[:8]}-"
    names = sorted(make_bucket(f"{prefix}{letter}") for letter in "edcba")
    found, arguments = [], {"Prefix": prefix, "MaxBuckets": 2}
    while True:
        page = s3.list_buckets(**arguments)
        assert len(page["Buckets"]) <= 2
        found += [entry["Name"] for entry in page["Buckets"]]
        if not (token := page.get("ContinuationToken")):
            break
        arguments["ContinuationToken"] = token
    assert found == names
