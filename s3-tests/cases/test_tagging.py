"""Tags of objects. AWS: userguide/object-tagging, API_PutObjectTagging, API_GetObjectTagging, API_DeleteObjectTagging."""

import pytest

import samples


def pairs(answer):
    return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


def tag_set(**tags):
    return {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}


def test_tags_are_put_read_and_removed(s3, bucket):
    """An object is tagged, tagged anew, and untagged. Danger: old tags linger, or the object changes with its tags.
    Expected: PUT replaces the whole set, HEAD counts it, bytes and metadata stay (API_PutObjectTagging)."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"bytes", Metadata={"m": "1"})
    assert pairs(s3.get_object_tagging(Bucket=bucket, Key="k")) == {}
    assert "TagCount" not in s3.head_object(Bucket=bucket, Key="k")
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(a="1", b="2"))
    assert pairs(s3.get_object_tagging(Bucket=bucket, Key="k")) == {"a": "1", "b": "2"}
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(c=""))
    assert pairs(s3.get_object_tagging(Bucket=bucket, Key="k")) == {"c": ""}
    answer = s3.get_object(Bucket=bucket, Key="k")
    assert (answer["Body"].read(), answer["Metadata"], answer["TagCount"]) == (b"bytes", {"m": "1"}, 1)
    deleted = s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert pairs(s3.get_object_tagging(Bucket=bucket, Key="k")) == {}


@pytest.mark.parametrize("operation", ["get_object_tagging", "delete_object_tagging"])
def test_nothing_has_no_tags(s3, bucket, refused, operation):
    with refused("NoSuchKey", 404):
        getattr(s3, operation)(Bucket=bucket, Key="none")


def test_tagging_nothing_makes_nothing(s3, bucket, refused):
    with refused("NoSuchKey", 404):
        s3.put_object_tagging(Bucket=bucket, Key="none", Tagging=tag_set(a="1"))
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_limits(s3, bucket, refused):
    """Ten tags, names of 128 and values of 256 characters pass; one more of each does not, and nothing changes."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    full = {f"{number}" + "n" * 127: "v" * 256 for number in range(10)}
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(**full))
    with refused(("InvalidTag", "BadRequest"), 400):
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(**full, more="x"))
    for wrong in ({"n" * 129: "v"}, {"n": "v" * 257}, {"aws:x": "v"}, {"a!": "v"}):
        with refused("InvalidTag", 400):
            s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(**wrong))
    with refused("InvalidTag", 400):
        twice = [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": twice})
    assert pairs(s3.get_object_tagging(Bucket=bucket, Key="k")) == full


def test_tags_come_with_the_object(s3, bucket, refused):
    """x-amz-tagging on PUT and CreateMultipartUpload: encoded as a query (API_PutObject). A PUT without it has no tags."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"1", Tagging="a=1&b%20c=d%2Fe&empty=&bare")
    assert pairs(s3.get_object_tagging(Bucket=bucket, Key="k")) == {"a": "1", "b c": "d/e", "empty": "", "bare": ""}
    assert s3.head_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPHeaders"]["x-amz-tagging-count"] == "4"
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    assert pairs(s3.get_object_tagging(Bucket=bucket, Key="k")) == {}
    for wrong in ("a=1&a=2", "=1"):
        with refused("InvalidArgument", 400):
            s3.put_object(Bucket=bucket, Key="k", Body=b"3", Tagging=wrong)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", Tagging="from=upload")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    s3.complete_multipart_upload(
        Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    assert pairs(s3.get_object_tagging(Bucket=bucket, Key="m")) == {"from": "upload"}


def test_copies_take_or_replace_tags(s3, bucket, refused):
    """x-amz-tagging-directive: COPY is the default and ignores the request's tags, REPLACE takes only those (API_CopyObject)."""
    source = {"Bucket": bucket, "Key": "k"}
    s3.put_object(Bucket=bucket, Key="k", Body=samples.blob(1000, "t"), Tagging="a=1")
    s3.copy_object(Bucket=bucket, Key="kept", CopySource=source)
    s3.copy_object(Bucket=bucket, Key="replaced", CopySource=source, TaggingDirective="REPLACE", Tagging="b=2")
    s3.copy_object(Bucket=bucket, Key="emptied", CopySource=source, TaggingDirective="REPLACE")
    s3.copy_object(Bucket=bucket, Key="metadata", CopySource=source, MetadataDirective="REPLACE")
    found = {key: pairs(s3.get_object_tagging(Bucket=bucket, Key=key)) for key in ("kept", "replaced", "emptied", "metadata")}
    assert found == {"kept": {"a": "1"}, "replaced": {"b": "2"}, "emptied": {}, "metadata": {"a": "1"}}
    with refused("InvalidArgument", 400):
        s3.copy_object(Bucket=bucket, Key="x", CopySource=source, TaggingDirective="MERGE")


def test_versions_have_tags_of_their_own(s3, bucket):
    """Tags of one version are changed. Expected: the others keep theirs, and answers name the version."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one = s3.put_object(Bucket=bucket, Key="k", Body=b"1", Tagging="v=1")["VersionId"]
    two = s3.put_object(Bucket=bucket, Key="k", Body=b"2", Tagging="v=2")["VersionId"]
    changed = s3.put_object_tagging(Bucket=bucket, Key="k", VersionId=one, Tagging=tag_set(v="old"))
    assert changed["VersionId"] == one
    assert pairs(s3.get_object_tagging(Bucket=bucket, Key="k", VersionId=one)) == {"v": "old"}
    current = s3.get_object_tagging(Bucket=bucket, Key="k")
    assert (pairs(current), current["VersionId"]) == ({"v": "2"}, two)
