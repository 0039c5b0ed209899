"""Storage classes. AWS: userguide/storage-class-intro, API_PutObject; as policies: examples/palm.toml, `pool.storage_classes`."""

import pytest

import disks
import samples
from samples import MIB

OTHERS = ["REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"]


def class_of(s3, bucket, key):
    return s3.head_object(Bucket=bucket, Key=key).get("StorageClass")


@pytest.mark.parametrize("name", OTHERS)
def test_a_class_is_kept_and_told(s3, bucket, name):
    """An object of each class, put, uploaded in parts, and copied. Expected: HEAD and LIST tell it; STANDARD is told by LIST only."""
    s3.put_object(Bucket=bucket, Key="put", Body=b"x", StorageClass=name)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", StorageClass=name)["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    assert s3.list_parts(Bucket=bucket, Key="parts", UploadId=upload)["StorageClass"] == name
    named = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload=named)
    source = {"Bucket": bucket, "Key": "put"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    s3.copy_object(Bucket=bucket, Key="onto", CopySource=source, StorageClass=name)
    assert [class_of(s3, bucket, key) for key in ("put", "parts", "copy", "onto")] == [name, name, None, name]
    listed = {entry["Key"]: entry["StorageClass"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert listed == {"put": name, "parts": name, "copy": "STANDARD", "onto": name}


def test_a_class_is_changed_by_a_copy_onto_itself(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"m": "1"})
    s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k"}, StorageClass="STANDARD_IA")
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["StorageClass"], head["Metadata"]) == ("STANDARD_IA", {"m": "1"})


def test_unknown_classes(s3, bucket, refused):
    for call in (
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="PAPER"),
        lambda: s3.create_multipart_upload(Bucket=bucket, Key="k", StorageClass="PAPER"),
    ):
        with refused("InvalidStorageClass", 400):
            call()


@pytest.mark.own_pool
def test_classes_are_policies(new_pool):
    """A pool of four (3-of-4) where one class has no redundancy and another survives two losses. Danger: a class is only a word; or
    repair, which knows the pool's policy, codes all of them alike. Expected: every object is coded as its class says, copies into
    another class too, and stays so after repair has counted it."""
    settings = {
        "pool.storage_classes": "REDUCED_REDUNDANCY=2-of-2,STANDARD_IA=1-of-3",
        "repair.every": "1s",
        "repair.settle": "1s",
    }
    pool = new_pool(4, settings=settings)
    s3 = pool.peers[0].client()
    s3.create_bucket(Bucket="classes")
    for size in (100, 3 * MIB):
        for name in ("STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA"):
            s3.put_object(Bucket="classes", Key=f"{name}/{size}", Body=samples.blob(size, name), StorageClass=name)
        source = {"Bucket": "classes", "Key": f"STANDARD/{size}"}
        s3.copy_object(Bucket="classes", Key=f"copy/{size}", CopySource=source, StorageClass="STANDARD_IA")
        s3.copy_object(Bucket="classes", Key=f"shared/{size}", CopySource=source, StorageClass="ONEZONE_IA")
    pool.wait_full(120, objects=12)
    pool.stop_all()
    verified = disks.count(pool.peers)["verified"]
    found = {policy: sum(tally["segments"] for tally in by_found.values()) for policy, by_found in verified.items()}
    assert found == {"3-of-4": 4, "2-of-2": 2, "1-of-3": 4}
    pool.start_all()
    for key, name in (("copy", "STANDARD"), ("STANDARD_IA", "STANDARD_IA"), ("REDUCED_REDUNDANCY", "REDUCED_REDUNDANCY")):
        body = pool.peers[1].client().get_object(Bucket="classes", Key=f"{key}/{3 * MIB}")["Body"].read()
        assert body == samples.blob(3 * MIB, name)
