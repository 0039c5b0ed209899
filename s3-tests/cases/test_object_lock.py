"""Object lock. AWS: userguide/object-lock, API_PutObjectLockConfiguration, API_PutObjectRetention, API_PutObjectLegalHold."""

import datetime

import pytest

HOUR = datetime.timedelta(hours=1)


def soon(hours=24):
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + hours * HOUR


def rule(mode="GOVERNANCE", **period):
    return {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": mode, **period}}}


@pytest.fixture
def locked(s3, make_bucket):
    """A bucket with object lock, all of whose versions are freed in the end."""
    name = make_bucket(ObjectLockEnabledForBucket=True)
    yield name
    listed = s3.list_object_versions(Bucket=name)
    for entry in listed.get("Versions", []) + listed.get("DeleteMarkers", []):
        place = {"Bucket": name, "Key": entry["Key"], "VersionId": entry["VersionId"]}
        if entry in listed.get("Versions", []):
            s3.put_object_legal_hold(**place, LegalHold={"Status": "OFF"})
        s3.delete_object(**place, BypassGovernanceRetention=True)


def test_a_bucket_is_made_with_lock(s3, locked):
    """ObjectLockEnabledForBucket enables versioning too (API_CreateBucket)."""
    assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == {"ObjectLockEnabled": "Enabled"}
    assert s3.get_bucket_versioning(Bucket=locked)["Status"] == "Enabled"


def test_configuration(s3, locked):
    for configuration in (rule(Days=1), rule("COMPLIANCE", Days=2), {"ObjectLockEnabled": "Enabled"}):
        s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=configuration)
        assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == configuration


@pytest.mark.parametrize(
    ("configuration", "codes"),
    [
        (rule(Days=0), ("InvalidRetentionPeriod", "InvalidArgument")),
        (rule(Days=-1), ("InvalidRetentionPeriod", "InvalidArgument")),
        (rule(Years=0), ("InvalidRetentionPeriod", "InvalidArgument")),
        (rule(Days=40_000), ("InvalidRetentionPeriod", "InvalidArgument")),
        (rule(Days=1, Years=1), "MalformedXML"),
        (rule(), "MalformedXML"),
        (rule("governance", Days=1), "MalformedXML"),
        ({"ObjectLockEnabled": "Disabled"}, "MalformedXML"),
    ],
)
def test_wrong_configurations(s3, locked, refused, configuration, codes):
    with refused(codes, 400):
        s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=configuration)
    assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == {"ObjectLockEnabled": "Enabled"}


def test_lock_needs_versioning(s3, make_bucket, refused):
    """Lock can be enabled later, where versioning is on; and then versioning stays on (userguide/object-lock-configure)."""
    bucket = make_bucket()
    with refused("ObjectLockConfigurationNotFoundError", 404):
        s3.get_object_lock_configuration(Bucket=bucket)
    with refused("InvalidBucketState", 409):
        s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=rule(Days=1))
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    with refused("InvalidBucketState", 409):
        s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=rule(Days=1))
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    with refused("InvalidBucketState", 409):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})


def test_without_lock(s3, bucket, refused):
    """Every operation and header of object lock in a bucket without: InvalidRequest."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    place = {"Bucket": bucket, "Key": "k"}
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": soon()}
    for call in (
        lambda: s3.put_object_retention(**place, Retention=retention),
        lambda: s3.get_object_retention(**place),
        lambda: s3.put_object_legal_hold(**place, LegalHold={"Status": "ON"}),
        lambda: s3.get_object_legal_hold(**place),
        lambda: s3.put_object(**place, Body=b"x", ObjectLockLegalHoldStatus="ON"),
        lambda: s3.put_object(**place, Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon()),
    ):
        with refused("InvalidRequest", 400):
            call()


def test_governance_keeps_a_version(s3, locked, refused):
    """A version under governance. Expected: no deletion and no shortening but with bypass, prolonging always, a marker on top always."""
    version = s3.put_object(Bucket=locked, Key="k", Body=b"kept")["VersionId"]
    place = {"Bucket": locked, "Key": "k", "VersionId": version}
    with refused("NoSuchObjectLockConfiguration", 404):
        s3.get_object_retention(**place)
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": soon()}
    s3.put_object_retention(**place, Retention=retention)
    assert s3.get_object_retention(**place)["Retention"] == retention
    with refused("AccessDenied", 403):
        s3.delete_object(**place)
    with refused("AccessDenied", 403):
        s3.put_object_retention(**place, Retention={**retention, "RetainUntilDate": soon(1)})
    s3.put_object_retention(**place, Retention={**retention, "RetainUntilDate": soon(48)})
    assert s3.delete_object(Bucket=locked, Key="k")["DeleteMarker"] is True
    assert s3.get_object(**place)["Body"].read() == b"kept"
    with refused("AccessDenied", 403):
        s3.put_object_retention(**place, Retention={**retention, "Mode": "COMPLIANCE"})
    s3.put_object_retention(**place, Retention={**retention, "RetainUntilDate": soon(1)}, BypassGovernanceRetention=True)
    assert s3.delete_object(**place, BypassGovernanceRetention=True)["VersionId"] == version
    with refused("NoSuchVersion", 404):
        s3.get_object(**place)


def test_compliance_keeps_a_version_from_everybody(s3, locked, refused):
    """A version under compliance, for some seconds: bypass does not help. Afterwards it goes."""
    until = soon(0) + datetime.timedelta(seconds=20)
    version = s3.put_object(
        Bucket=locked, Key="k", Body=b"kept", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until
    )["VersionId"]
    place = {"Bucket": locked, "Key": "k", "VersionId": version}
    for arguments in ({}, {"BypassGovernanceRetention": True}):
        with refused("AccessDenied", 403):
            s3.delete_object(**place, **arguments)
        with refused("AccessDenied", 403):
            weaker = {"Mode": "GOVERNANCE", "RetainUntilDate": soon()}
            s3.put_object_retention(**place, Retention=weaker, **arguments)
    answer = s3.delete_objects(
        Bucket=locked, Delete={"Objects": [{"Key": "k", "VersionId": version}]}, BypassGovernanceRetention=True
    )
    assert [(error["Code"], error["VersionId"]) for error in answer["Errors"]] == [("AccessDenied", version)]
    # The end of a retention is a time, not an event that could be awaited.
    import time

    time.sleep(max(0.0, (until - datetime.datetime.now(datetime.timezone.utc)).total_seconds()) + 1)
    s3.delete_object(**place)


def test_legal_hold(s3, locked, refused):
    """A hold keeps a version whatever its retention, bypass does not help, and taking it off frees the version."""
    version = s3.put_object(Bucket=locked, Key="k", Body=b"held")["VersionId"]
    place = {"Bucket": locked, "Key": "k", "VersionId": version}
    with refused("NoSuchObjectLockConfiguration", 404):
        s3.get_object_legal_hold(**place)
    s3.put_object_legal_hold(**place, LegalHold={"Status": "ON"})
    assert s3.get_object_legal_hold(**place)["LegalHold"] == {"Status": "ON"}
    assert s3.head_object(**place)["ObjectLockLegalHoldStatus"] == "ON"
    for arguments in ({}, {"BypassGovernanceRetention": True}):
        with refused("AccessDenied", 403):
            s3.delete_object(**place, **arguments)
    with refused("MalformedXML", 400):
        s3.put_object_legal_hold(**place, LegalHold={"Status": "abc"})
    s3.put_object_legal_hold(**place, LegalHold={"Status": "OFF"})
    assert s3.get_object_legal_hold(**place)["LegalHold"] == {"Status": "OFF"}
    s3.delete_object(**place)


def test_versions_are_made_locked(s3, locked, refused):
    """Headers of PUT, COPY and CreateMultipartUpload, and the bucket's default for those that bring none; HEAD tells."""
    until = soon()
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until, "ObjectLockLegalHoldStatus": "ON"}

    def told(key):
        head = s3.head_object(Bucket=locked, Key=key)
        return {name: head.get(name) for name in lock}

    s3.put_object(Bucket=locked, Key="put", Body=b"x", **lock)
    s3.copy_object(Bucket=locked, Key="copied", CopySource={"Bucket": locked, "Key": "put"}, **lock)
    s3.copy_object(Bucket=locked, Key="free", CopySource={"Bucket": locked, "Key": "put"})
    upload = s3.create_multipart_upload(Bucket=locked, Key="parts", **lock)["UploadId"]
    etag = s3.upload_part(Bucket=locked, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    named = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(Bucket=locked, Key="parts", UploadId=upload, MultipartUpload=named)
    for key in ("put", "copied", "parts"):
        assert told(key) == lock, key
    assert told("free") == dict.fromkeys(lock), "a copy does not take the lock along (API_CopyObject)"
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=rule(Days=2))
    s3.put_object(Bucket=locked, Key="default", Body=b"x")
    default = told("default")
    assert default["ObjectLockMode"] == "GOVERNANCE"
    assert abs(default["ObjectLockRetainUntilDate"] - soon(48)) < HOUR
    s3.put_object(Bucket=locked, Key="default", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until)
    assert told("default")["ObjectLockRetainUntilDate"] == until, "what comes with the version is stronger"
    with refused("InvalidArgument", 400):
        s3.put_object(Bucket=locked, Key="x", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon(-1))
    with refused("InvalidArgument", 400):
        s3.put_object(Bucket=locked, Key="x", Body=b"x", ObjectLockMode="GOVERNANCE")


def test_bypass_where_nothing_is_locked(s3, bucket):
    """Tools that empty any bucket in one way ask for the bypass everywhere (API_DeleteObjects). Expected: both ways delete."""
    for key in ("one", "two"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    s3.delete_object(Bucket=bucket, Key="one", BypassGovernanceRetention=True)
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "two"}]}, BypassGovernanceRetention=True)
    assert "Errors" not in answer
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("mode", ["governance", "abc"])
def test_wrong_modes(s3, locked, refused, mode):
    s3.put_object(Bucket=locked, Key="k", Body=b"x")
    with refused("MalformedXML", 400):
        s3.put_object_retention(Bucket=locked, Key="k", Retention={"Mode": mode, "RetainUntilDate": soon()})
