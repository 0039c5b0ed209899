"""Versions of objects. AWS: userguide/Versioning, versioning-workflows, DeleteMarker, AddingObjectstoVersionSuspendedBuckets,
DeletingObjectsfromVersioningSuspendedBuckets; API_PutBucketVersioning, API_GetBucketVersioning, API_ListObjectVersions.
"""

import concurrent.futures
import itertools
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree

import pytest
from botocore.exceptions import ClientError

import samples
from samples import MIB

PART = 5 * MIB


@pytest.fixture
def versioned(s3, make_bucket):
    """A bucket that keeps versions; emptied of all of them after the test."""
    bucket = make_bucket()
    set_versioning(s3, bucket, "Enabled")
    yield bucket
    remove_all(s3, bucket)


@pytest.fixture
def plain(s3, make_bucket):
    """A bucket without versions, which the test may give some."""
    bucket = make_bucket()
    yield bucket
    remove_all(s3, bucket)


def set_versioning(s3, bucket, status):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def put(s3, bucket, key, body):
    return s3.put_object(Bucket=bucket, Key=key, Body=body).get("VersionId")


def read(s3, bucket, key, version=None):
    named = {} if version is None else {"VersionId": version}
    return s3.get_object(Bucket=bucket, Key=key, **named)["Body"].read()


def listed(s3, bucket, **arguments):
    """All versions and markers, as (key, version id, is latest, is marker), by key and newest first."""
    found = []
    for page in pages(s3, bucket, **arguments):
        lines = [(v["Key"], v["VersionId"], v["IsLatest"], False, v["LastModified"]) for v in page.get("Versions", [])]
        lines += [(m["Key"], m["VersionId"], m["IsLatest"], True, m["LastModified"]) for m in page.get("DeleteMarkers", [])]
        found += lines
    return found


def pages(s3, bucket, **arguments):
    markers = {}
    while True:
        page = s3.list_object_versions(Bucket=bucket, **arguments, **markers)
        yield page
        if not page["IsTruncated"]:
            return
        markers = {"KeyMarker": page["NextKeyMarker"]}
        if page.get("NextVersionIdMarker"):
            markers["VersionIdMarker"] = page["NextVersionIdMarker"]


def ids(s3, bucket, key):
    return [line[1] for line in listed(s3, bucket) if line[0] == key]


def remove_all(s3, bucket):
    while lines := listed(s3, bucket):
        objects = [{"Key": line[0], "VersionId": line[1]} for line in lines]
        for at in range(0, len(objects), 1000):
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects[at : at + 1000]})
            if answer.get("Errors"):
                return


# The bucket


def test_status_of_a_bucket(s3, plain):
    """A new bucket has no status; then it is enabled or suspended, as often as one likes, also suspended first."""
    assert "Status" not in s3.get_bucket_versioning(Bucket=plain)
    for status in ("Suspended", "Enabled", "Enabled", "Suspended", "Enabled"):
        set_versioning(s3, plain, status)
        assert s3.get_bucket_versioning(Bucket=plain)["Status"] == status


def test_status_must_be_one_of_two(s3, plain, refused):
    """Anything else is MalformedXML, nothing at all IllegalVersioningConfigurationException; no bucket, NoSuchBucket."""
    with refused("MalformedXML", 400):
        s3.put_bucket_versioning(Bucket=plain, VersioningConfiguration={"Status": "enabled"})
    with refused("IllegalVersioningConfigurationException", 400):
        s3.put_bucket_versioning(Bucket=plain, VersioningConfiguration={})
    for call in (
        lambda: s3.get_bucket_versioning(Bucket="no-such-bucket-here"),
        lambda: s3.put_bucket_versioning(Bucket="no-such-bucket-here", VersioningConfiguration={"Status": "Enabled"}),
        lambda: s3.list_object_versions(Bucket="no-such-bucket-here"),
    ):
        with refused("NoSuchBucket", 404):
            call()


def test_a_bucket_with_only_markers_is_not_empty(s3, versioned, refused):
    """userguide/delete-bucket: all versions and markers must go first."""
    marker = s3.delete_object(Bucket=versioned, Key="never-there")
    assert marker["DeleteMarker"] is True
    assert "Contents" not in s3.list_objects_v2(Bucket=versioned)
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=versioned)
    s3.delete_object(Bucket=versioned, Key="never-there", VersionId=marker["VersionId"])
    assert listed(s3, versioned) == []


# Versions with ids


def test_every_put_makes_a_version(s3, versioned):
    """Each PUT answers its version id; each id gives its own bytes; who names none gets the newest."""
    made = [put(s3, versioned, "k", f"content-{n}") for n in range(5)]
    assert len(set(made)) == 5 and "null" not in made
    for n, version in enumerate(made):
        answer = s3.get_object(Bucket=versioned, Key="k", VersionId=version)
        assert (answer["Body"].read(), answer["VersionId"]) == (f"content-{n}".encode(), version)
        assert s3.head_object(Bucket=versioned, Key="k", VersionId=version)["VersionId"] == version
    answer = s3.get_object(Bucket=versioned, Key="k")
    assert (answer["Body"].read(), answer["VersionId"]) == (b"content-4", made[-1])
    assert ids(s3, versioned, "k") == made[::-1]
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=versioned)["Contents"]] == ["k"]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_versions_are_removed_in_any_order(s3, versioned, refused, order):
    """After each deletion the rest are there, the newest of them is current, and the one deleted is NoSuchVersion."""
    made = {n: put(s3, versioned, "k", f"content-{n}") for n in range(5)}
    for n in order:
        version = made.pop(n)
        answer = s3.delete_object(Bucket=versioned, Key="k", VersionId=version)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert answer["VersionId"] == version and not answer.get("DeleteMarker")
        with refused("NoSuchVersion", 404):
            s3.get_object(Bucket=versioned, Key="k", VersionId=version)
        for other, left in made.items():
            assert read(s3, versioned, "k", left) == f"content-{other}".encode()
        if made:
            assert read(s3, versioned, "k") == f"content-{max(made)}".encode()
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=versioned, Key="k")
    assert listed(s3, versioned) == []


@pytest.mark.parametrize("key", ["_", ":", " ", "_testobj", "a/b", "ü\u2603", "k+k", "null", "a%2Fb"])
def test_keys_of_any_kind_have_versions(s3, versioned, key):
    """Special names, as clients of all kinds use them."""
    made = [put(s3, versioned, key, f"{n}") for n in range(3)]
    assert ids(s3, versioned, key) == made[::-1]
    for n, version in enumerate(made):
        assert read(s3, versioned, key, version) == str(n).encode()
        s3.delete_object(Bucket=versioned, Key=key, VersionId=version)
    assert listed(s3, versioned) == []


def test_versions_of_unknown_ids(s3, versioned, refused):
    """Another key's id is NoSuchVersion; what is no id at all is InvalidArgument; deleting an unknown one succeeds."""
    put(s3, versioned, "k", b"x")
    other = put(s3, versioned, "other", b"y")
    with refused("NoSuchVersion", 404):
        s3.get_object(Bucket=versioned, Key="k", VersionId=other)
    with refused("NoSuchVersion", 404):
        s3.get_object(Bucket=versioned, Key="k", VersionId="null")
    with refused(("InvalidArgument", "NoSuchVersion"), (400, 404)):
        s3.get_object(Bucket=versioned, Key="k", VersionId="no-id-at-all")
    for foreign in ("3HL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY", "01JD3YB4WX4ZB1Q1Q8G6W8S6QE", "7f3b2f8e-0c55-4a39-8d20-6ab1c9d2b7aa"):
        with refused("NoSuchVersion", 404):
            s3.get_object(Bucket=versioned, Key="k", VersionId=foreign)
        deleted = s3.delete_object(Bucket=versioned, Key="k", VersionId=foreign)
        assert (deleted["ResponseMetadata"]["HTTPStatusCode"], deleted.get("VersionId", foreign)) == (204, foreign)
    assert s3.delete_object(Bucket=versioned, Key="k", VersionId=other)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert read(s3, versioned, "k") == b"x"
    assert read(s3, versioned, "other") == b"y"


# Markers


def test_a_marker_hides_the_key(s3, versioned, refused):
    """DELETE without a version makes a marker: 404 with x-amz-delete-marker and its id; 405 for who names it."""
    version = put(s3, versioned, "k", b"kept")
    gone = s3.delete_object(Bucket=versioned, Key="k")
    assert gone["DeleteMarker"] is True and gone["VersionId"] != version
    for call in (s3.get_object, s3.head_object):
        with refused("NoSuchKey", 404) as caught:
            call(Bucket=versioned, Key="k")
        headers = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
        assert headers["x-amz-delete-marker"] == "true" and headers["x-amz-version-id"] == gone["VersionId"]
        with refused("MethodNotAllowed", 405) as caught:
            call(Bucket=versioned, Key="k", VersionId=gone["VersionId"])
        headers = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
        assert (headers["x-amz-delete-marker"], headers["allow"]) == ("true", "DELETE")
        made = s3.list_object_versions(Bucket=versioned)["DeleteMarkers"][0]["LastModified"]
        assert parsedate_to_datetime(headers["last-modified"]) == made.replace(microsecond=0)
    assert read(s3, versioned, "k", version) == b"kept"
    assert "Contents" not in s3.list_objects_v2(Bucket=versioned)
    assert [line[1:4] for line in listed(s3, versioned)] == [(version, False, False), (gone["VersionId"], True, True)]


def test_deleting_a_marker_brings_the_object_back(s3, versioned):
    """userguide/RemDelMarker. Each DELETE stacks another marker; only the last to go reveals the object."""
    put(s3, versioned, "k", b"kept")
    markers = [s3.delete_object(Bucket=versioned, Key="k")["VersionId"] for _ in range(2)]
    for marker in markers[::-1]:
        answer = s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
        assert answer["DeleteMarker"] is True and answer["VersionId"] == marker
    assert read(s3, versioned, "k") == b"kept"
    assert [entry["Key"] for entry in s3.list_objects(Bucket=versioned)["Contents"]] == ["k"]


def test_a_put_over_a_marker(s3, versioned):
    """A PUT after a DELETE is the current version; the marker stays below it, no longer the latest."""
    first = put(s3, versioned, "k", b"1")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    last = put(s3, versioned, "k", b"2")
    assert read(s3, versioned, "k") == b"2"
    page = s3.list_object_versions(Bucket=versioned)
    assert [(m["VersionId"], m["IsLatest"]) for m in page["DeleteMarkers"]] == [(marker, False)]
    assert [(v["VersionId"], v["IsLatest"]) for v in page["Versions"]] == [(last, True), (first, False)]


# Null versions


def test_an_object_from_before_is_the_null_version(s3, plain):
    """userguide/manage-objects-versioned-bucket: what was put before is `null` from then on, and stays."""
    assert put(s3, plain, "k", b"before") is None
    set_versioning(s3, plain, "Enabled")
    assert s3.get_object(Bucket=plain, Key="k").get("VersionId", "null") == "null"
    version = put(s3, plain, "k", b"after")
    assert read(s3, plain, "k", "null") == b"before"
    assert read(s3, plain, "k") == read(s3, plain, "k", version) == b"after"
    assert ids(s3, plain, "k") == [version, "null"]
    s3.delete_object(Bucket=plain, Key="k", VersionId=version)
    assert read(s3, plain, "k") == b"before"
    s3.delete_object(Bucket=plain, Key="k", VersionId="null")
    assert listed(s3, plain) == []


def test_the_null_version_goes_alone(s3, plain, refused):
    """Removed by its name, it takes no other version with it."""
    put(s3, plain, "k", b"before")
    set_versioning(s3, plain, "Enabled")
    version = put(s3, plain, "k", b"after")
    s3.delete_object(Bucket=plain, Key="k", VersionId="null")
    with refused("NoSuchVersion", 404):
        s3.get_object(Bucket=plain, Key="k", VersionId="null")
    assert read(s3, plain, "k") == b"after"
    assert ids(s3, plain, "k") == [version]


def test_suspended_puts_replace_the_null_version(s3, plain):
    """Versions with ids stay as they are; each PUT replaces the null version and is current."""
    put(s3, plain, "k", b"null-0")
    set_versioning(s3, plain, "Enabled")
    made = [put(s3, plain, "k", f"{n}".encode()) for n in range(2)]
    set_versioning(s3, plain, "Suspended")
    for n in (1, 2):
        assert put(s3, plain, "k", f"null-{n}".encode()) is None
        assert read(s3, plain, "k") == read(s3, plain, "k", "null") == f"null-{n}".encode()
        assert ids(s3, plain, "k") == ["null", *made[::-1]]
    assert [read(s3, plain, "k", version) for version in made] == [b"0", b"1"]
    set_versioning(s3, plain, "Enabled")
    newest = put(s3, plain, "k", b"2")
    assert ids(s3, plain, "k") == [newest, "null", *made[::-1]]
    assert read(s3, plain, "k", "null") == b"null-2"


def test_suspended_deletes_leave_a_null_marker(s3, plain, refused):
    """It takes the null version's place; deleting it by its name shows what is below."""
    set_versioning(s3, plain, "Enabled")
    version = put(s3, plain, "k", b"kept")
    set_versioning(s3, plain, "Suspended")
    put(s3, plain, "k", b"null")
    gone = s3.delete_object(Bucket=plain, Key="k")
    assert (gone["DeleteMarker"], gone["VersionId"]) == (True, "null")
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=plain, Key="k")
    with refused("MethodNotAllowed", 405):
        s3.get_object(Bucket=plain, Key="k", VersionId="null")
    assert sorted(line[1:4] for line in listed(s3, plain)) == sorted([("null", True, True), (version, False, False)])
    answer = s3.delete_object(Bucket=plain, Key="k", VersionId="null")
    assert (answer["DeleteMarker"], answer["VersionId"]) == (True, "null")
    assert read(s3, plain, "k") == b"kept"


def test_deleting_from_a_bucket_without_versions_leaves_no_marker(s3, plain):
    """No id, no marker, nothing listed afterwards; also by the name null."""
    put(s3, plain, "k", b"x")
    gone = s3.delete_object(Bucket=plain, Key="k")
    assert "DeleteMarker" not in gone and "VersionId" not in gone
    put(s3, plain, "k", b"x")
    assert [line[1:4] for line in listed(s3, plain)] == [("null", True, False)]
    s3.delete_object(Bucket=plain, Key="k", VersionId="null")
    assert listed(s3, plain) == []


# Listings


def test_a_listing_says_all_of_a_version(s3, versioned):
    """API_ObjectVersion: key, id, latest, date, tag, size, owner, class."""
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"one")
    second = s3.put_object(Bucket=versioned, Key="k", Body=b"three")
    lines = s3.list_object_versions(Bucket=versioned)["Versions"]
    for line, made, size in zip(lines, (second, first), (5, 3), strict=True):
        head = s3.head_object(Bucket=versioned, Key="k", VersionId=made["VersionId"])
        assert (line["VersionId"], line["ETag"], line["Size"]) == (made["VersionId"], made["ETag"], size)
        assert line["LastModified"].replace(microsecond=0) == head["LastModified"]
        assert line["StorageClass"] == "STANDARD" and line["Owner"]["ID"]
    assert [line["IsLatest"] for line in lines] == [True, False]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_pages_of_versions_join(s3, versioned, size):
    """Versions of several keys, markers among them, page by page. Danger: at the seams some come twice or never."""
    made = []
    for key in ("a", "b/1", "b/2", "c"):
        versions = [put(s3, versioned, key, str(n)) for n in range(3)]
        versions.append(s3.delete_object(Bucket=versioned, Key=key)["VersionId"])
        made += [(key, version) for version in versions[::-1]]
    found = []
    for page in pages(s3, versioned, MaxKeys=size):
        lines = page.get("Versions", []) + page.get("DeleteMarkers", [])
        assert len(lines) <= size and page["MaxKeys"] == size
        assert page["IsTruncated"] == ("NextKeyMarker" in page)
        found.append([(line["Key"], line["VersionId"]) for line in lines])
    assert sorted(line for page in found for line in page) == sorted(made)
    # Versions and markers come in lists of their own, so only pages are in order.
    assert all(max(before)[0] <= min(after)[0] for before, after in itertools.pairwise(found))


def test_listing_goes_on_after_a_version(s3, versioned, refused):
    """key-marker with version-id-marker: what is older of that key, then later keys. Alone: later keys. Without: 400."""
    made = [put(s3, versioned, "k", str(n)) for n in range(3)]
    last = put(s3, versioned, "l", b"x")
    page = s3.list_object_versions(Bucket=versioned, KeyMarker="k", VersionIdMarker=made[1])
    assert [(v["Key"], v["VersionId"]) for v in page["Versions"]] == [("k", made[0]), ("l", last)]
    assert (page["KeyMarker"], page["VersionIdMarker"]) == ("k", made[1])
    page = s3.list_object_versions(Bucket=versioned, KeyMarker="k")
    assert [v["Key"] for v in page["Versions"]] == ["l"]
    with refused("InvalidArgument", 400):
        s3.list_object_versions(Bucket=versioned, VersionIdMarker=made[1])


def test_prefixes_and_delimiters(s3, versioned):
    """As in other listings: a group counts as one line, and a page may end with it."""
    for key in ("a/1", "a/2", "b", "c/1", "d"):
        put(s3, versioned, key, b"1")
        put(s3, versioned, key, b"2")
    page = s3.list_object_versions(Bucket=versioned, Delimiter="/")
    assert [group["Prefix"] for group in page["CommonPrefixes"]] == ["a/", "c/"]
    assert [v["Key"] for v in page["Versions"]] == ["b", "b", "d", "d"]
    found = []
    for page in pages(s3, versioned, Delimiter="/", MaxKeys=1):
        found += [v["Key"] for v in page.get("Versions", [])] + [g["Prefix"] for g in page.get("CommonPrefixes", [])]
    assert found == ["a/", "b", "b", "c/", "d", "d"]
    page = s3.list_object_versions(Bucket=versioned, Prefix="a/", Delimiter="/")
    assert [v["Key"] for v in page["Versions"]] == ["a/1", "a/1", "a/2", "a/2"] and "CommonPrefixes" not in page
    s3.delete_object(Bucket=versioned, Key="c/1")
    page = s3.list_objects_v2(Bucket=versioned, Delimiter="/")
    assert [group["Prefix"] for group in page["CommonPrefixes"]] == ["a/"], "a group of hidden keys only is none"
    page = s3.list_object_versions(Bucket=versioned, Delimiter="/")
    assert [group["Prefix"] for group in page["CommonPrefixes"]] == ["a/", "c/"]


def test_hidden_keys_take_no_room_in_listings(s3, versioned):
    """Keys with markers on top between shown ones. Danger: pages that are short, or end early."""
    for n in range(12):
        put(s3, versioned, f"k{n:02}", b"x")
        if n % 3:
            s3.delete_object(Bucket=versioned, Key=f"k{n:02}")
    shown = [f"k{n:02}" for n in range(0, 12, 3)]
    first = s3.list_objects_v2(Bucket=versioned, MaxKeys=2)
    rest = s3.list_objects_v2(Bucket=versioned, MaxKeys=1000, ContinuationToken=first["NextContinuationToken"])
    assert [e["Key"] for e in first["Contents"] + rest["Contents"]] == shown
    assert first["KeyCount"] == 2 and not rest["IsTruncated"]


def test_encoded_listings(s3, versioned):
    """encoding-type=url encodes keys, prefixes and markers."""
    put(s3, versioned, "a b/ü", b"x")
    page = s3.list_object_versions(Bucket=versioned, EncodingType="url", Delimiter="/")
    assert page["EncodingType"] == "url"
    assert [group["Prefix"] for group in page["CommonPrefixes"]] in (["a%20b/"], ["a+b/"], ["a b/"])


def test_no_keys_asked_for(s3, versioned):
    """max-keys=0 answers an empty page that is not truncated."""
    put(s3, versioned, "k", b"x")
    page = s3.list_object_versions(Bucket=versioned, MaxKeys=0)
    assert page["IsTruncated"] is False and "Versions" not in page


# Copies, parts, many at once


def test_copies_of_versions(s3, versioned, make_bucket):
    """userguide/CopyingObjects: a version is copied by its id, also onto its own key, where it becomes the newest."""
    old = put(s3, versioned, "k", b"old")
    put(s3, versioned, "k", b"new")
    other = make_bucket()
    source = {"Bucket": versioned, "Key": "k", "VersionId": old}
    for bucket, key in ((versioned, "copy"), (other, "copy"), (versioned, "k")):
        answer = s3.copy_object(Bucket=bucket, Key=key, CopySource=source)
        assert answer["CopySourceVersionId"] == old
        assert answer.get("VersionId") == s3.get_object(Bucket=bucket, Key=key).get("VersionId")
        assert read(s3, bucket, key) == b"old"
    assert len(ids(s3, versioned, "k")) == 3
    s3.delete_object(Bucket=versioned, Key="k", VersionId=old)
    assert read(s3, other, "copy") == read(s3, versioned, "copy") == b"old"


def test_copying_what_is_deleted(s3, versioned, refused):
    """A source that is a marker: NoSuchKey; a marker by its id: InvalidRequest; a version that is gone: NoSuchVersion."""
    version = put(s3, versioned, "k", b"x")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket=versioned, Key="copy", CopySource={"Bucket": versioned, "Key": "k"})
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=versioned, Key="copy", CopySource={"Bucket": versioned, "Key": "k", "VersionId": marker})
    s3.delete_object(Bucket=versioned, Key="k", VersionId=version)
    with refused("NoSuchVersion", 404):
        s3.copy_object(Bucket=versioned, Key="copy", CopySource={"Bucket": versioned, "Key": "k", "VersionId": version})


def test_a_copy_in_a_suspended_bucket(s3, versioned):
    """The copy replaces the null version."""
    version = put(s3, versioned, "k", b"kept")
    set_versioning(s3, versioned, "Suspended")
    put(s3, versioned, "source", b"null")
    s3.copy_object(Bucket=versioned, Key="k", CopySource={"Bucket": versioned, "Key": "source"})
    assert ids(s3, versioned, "k") == ["null", version]
    assert (read(s3, versioned, "k"), read(s3, versioned, "k", version)) == (b"null", b"kept")


def multipart(s3, bucket, key, parts):
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    done = []
    for number, body in enumerate(parts, 1):
        tag = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]
        done.append({"ETag": tag, "PartNumber": number})
    arguments = {"Bucket": bucket, "Key": key, "UploadId": upload, "MultipartUpload": {"Parts": done}}
    return s3.complete_multipart_upload(**arguments), arguments


def test_uploads_in_parts_make_versions(s3, versioned):
    """Completing answers the version id; each upload makes a version; completing again makes no second one."""
    bodies, made = [samples.blob(PART + n, f"part-{n}") for n in range(2)], []
    for body in bodies:
        answer, arguments = multipart(s3, versioned, "k", [body[:PART], body[PART:] or b"tail"])
        made.append(answer["VersionId"])
        again = s3.complete_multipart_upload(**arguments)
        assert (again["ETag"], again["VersionId"]) == (answer["ETag"], answer["VersionId"])
    assert ids(s3, versioned, "k") == made[::-1]
    assert read(s3, versioned, "k", made[1])[:PART] == bodies[1][:PART]
    s3.delete_object(Bucket=versioned, Key="k", VersionId=made[1])
    assert read(s3, versioned, "k")[:PART] == bodies[0][:PART]


def test_parts_copied_from_a_version(s3, versioned):
    """UploadPartCopy with the source's version id."""
    old = put(s3, versioned, "source", b"old")
    put(s3, versioned, "source", b"new!")
    upload = s3.create_multipart_upload(Bucket=versioned, Key="k")["UploadId"]
    source = {"Bucket": versioned, "Key": "source", "VersionId": old}
    part = s3.upload_part_copy(Bucket=versioned, Key="k", UploadId=upload, PartNumber=1, CopySource=source)
    assert part["CopySourceVersionId"] == old
    parts = {"Parts": [{"ETag": part["CopyPartResult"]["ETag"], "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket=versioned, Key="k", UploadId=upload, MultipartUpload=parts)
    assert read(s3, versioned, "k") == b"old"


def test_many_versions_are_deleted_at_once(s3, versioned):
    """API_DeleteObjects with version ids: each is gone for good, and a second time that is no error."""
    made = [put(s3, versioned, "k", str(n)) for n in range(3)]
    objects = [{"Key": "k", "VersionId": version} for version in made[:2]]
    for _ in range(2):
        answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": objects})
        assert "Errors" not in answer
        assert sorted(line["VersionId"] for line in answer["Deleted"]) == sorted(made[:2])
        assert ids(s3, versioned, "k") == [made[2]]


def test_markers_are_made_and_deleted_many_at_once(s3, versioned):
    """Without version ids markers are made, and told; with a marker's id it is deleted, and told."""
    put(s3, versioned, "k", b"x")
    answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k"}, {"Key": "never-there"}]})
    markers = {line["Key"]: line for line in answer["Deleted"]}
    for key in ("k", "never-there"):
        assert markers[key]["DeleteMarker"] is True and markers[key]["DeleteMarkerVersionId"]
    assert "Contents" not in s3.list_objects_v2(Bucket=versioned)
    marker = markers["k"]["DeleteMarkerVersionId"]
    answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k", "VersionId": marker}]})
    (line,) = answer["Deleted"]
    assert (line["VersionId"], line["DeleteMarker"], line["DeleteMarkerVersionId"]) == (marker, True, marker)
    assert read(s3, versioned, "k") == b"x"


# Conditions and races


def test_conditions_are_on_the_current_version(s3, versioned, refused):
    """userguide/conditional-writes: a marker counts as no object; an older version's tag does not match."""
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=versioned, Key="k", Body=b"2", IfNoneMatch="*")
    second = s3.put_object(Bucket=versioned, Key="k", Body=b"2", IfMatch=first["ETag"])
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=versioned, Key="k", Body=b"3", IfMatch=first["ETag"])
    s3.delete_object(Bucket=versioned, Key="k")
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=versioned, Key="k", Body=b"3", IfMatch=second["ETag"])
    s3.put_object(Bucket=versioned, Key="k", Body=b"3", IfNoneMatch="*")
    assert len(ids(s3, versioned, "k")) == 4


def test_tags_and_dates_belong_to_versions(s3, versioned):
    """userguide/object-tagging: tags of one version change no other, and not its date."""
    old = put(s3, versioned, "k", b"1")
    new = put(s3, versioned, "k", b"2")
    before = s3.head_object(Bucket=versioned, Key="k", VersionId=old)["LastModified"]
    tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
    assert s3.put_object_tagging(Bucket=versioned, Key="k", VersionId=old, Tagging=tags).get("VersionId") == old
    assert s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=old)["TagSet"] == tags["TagSet"]
    assert s3.get_object_tagging(Bucket=versioned, Key="k")["TagSet"] == []
    assert s3.head_object(Bucket=versioned, Key="k", VersionId=old)["LastModified"] == before
    assert ids(s3, versioned, "k") == [new, old]


def test_clients_at_once_lose_nothing(s3, target, versioned):
    """Clients at all peers put and delete versions of one key at once. Expected: what was acknowledged and not deleted is
    listed once and can be read; what was deleted is gone."""

    def work(worker):
        client, made, gone = target.client(worker), [], []
        for n in range(6):
            made.append(client.put_object(Bucket=versioned, Key="k", Body=f"{worker}-{n}")["VersionId"])
            if n % 2:
                victim = made[n // 2]
                client.delete_object(Bucket=versioned, Key="k", VersionId=victim)
                gone.append(victim)
        return made, gone

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        outcomes = list(pool.map(work, range(5)))
    expected = {version for made, gone in outcomes for version in set(made) - set(gone)}
    found = ids(s3, versioned, "k")
    assert len(found) == len(expected) and set(found) == expected
    for version in found:
        read(s3, versioned, "k", version)
    assert s3.head_object(Bucket=versioned, Key="k")["VersionId"] == found[0]


def test_enabling_holds_at_once_everywhere(s3, target, plain):
    """Right after PutBucketVersioning is answered, a PUT through any peer makes a version."""
    for n in range(10):
        set_versioning(s3, plain, "Suspended")
        put(s3, plain, "k", f"null-{n}")
        set_versioning(s3, plain, "Enabled")
        assert put(target.client(), plain, "k", f"{n}") not in (None, "null")
        assert read(target.client(), plain, "k", "null") == f"null-{n}".encode()


def test_three_hundred_versions(s3, versioned):
    """More versions than are kept in one record: pages list them all in order, and any can be read and deleted."""
    made = [put(s3, versioned, "k", str(n)) for n in range(300)]
    found = [v["VersionId"] for page in pages(s3, versioned, MaxKeys=70) for v in page["Versions"]]
    assert found == made[::-1]
    for at in (0, 150, 299):
        assert read(s3, versioned, "k", made[at]) == str(at).encode()
        s3.delete_object(Bucket=versioned, Key="k", VersionId=made[at])
    assert read(s3, versioned, "k") == b"298"
    assert len(ids(s3, versioned, "k")) == 297


def test_a_version_is_deleted_only_if_it_matches(s3, versioned, refused):
    """API_DeleteObject, If-Match with a version id."""
    version = put(s3, versioned, "k", b"x")
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket=versioned, Key="k", VersionId=version, IfMatch='"00000000000000000000000000000000"')
    try:
        s3.delete_object(Bucket=versioned, Key="k", IfMatch='"00000000000000000000000000000000"')
        raise AssertionError("deleted what does not match")
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert read(s3, versioned, "k") == b"x"


def test_versions_and_markers_stand_in_one_order(target, s3, versioned):
    """Clients that read the XML of ListObjectVersions from its first line to its last. Danger: all versions, and then all markers. Expected:
    by key, newest first, as AWS writes them."""
    for key in ("a", "b"):
        s3.put_object(Bucket=versioned, Key=key, Body=b"1")
        s3.delete_object(Bucket=versioned, Key=key)
        s3.put_object(Bucket=versioned, Key=key, Body=b"2")
    xml = target.server.signed("GET", f"/{versioned}", query=[("versions", "")]).body
    found = [entry for entry in ElementTree.fromstring(xml) if entry.tag.endswith(("}Version", "}DeleteMarker"))]
    entries = [(entry.tag.rpartition("}")[2], entry.findtext("{*}Key")) for entry in found]
    assert entries == [(kind, key) for key in ("a", "b") for kind in ("Version", "DeleteMarker", "Version")]
