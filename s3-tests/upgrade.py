"""A pool with some of everything in it, and all that can be read of it: what an upgrade must not change.

    PALM_BIN=… python upgrade.py COMMIT     makes fixtures/pool-COMMIT.tar.xz with the binary of that commit

The archive holds the data directories of three stopped peers and `written.json`: the root key, what is still to be done (an upload to
complete), and the whole of `read` as the binary that wrote it answered. Kept for good: every later binary must read it.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
import sys
import tarfile
import tempfile

from botocore.exceptions import ClientError

import samples
from palm_cluster import Pool, eventually, s3_client
from samples import KIB

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
PEERS = 3
CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "0123456789abcdef0123456789abcdef"}
# Nobody who runs these tests sees the lock end.
LOCKED_UNTIL = "2199-01-01T00:00:00Z"
PUBLIC = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::settings/public/*"}]}
SETTINGS = [
    "bucket_versioning", "bucket_tagging", "bucket_policy", "bucket_cors", "bucket_lifecycle_configuration", "bucket_website", "bucket_ownership_controls",
    "public_access_block", "bucket_encryption", "bucket_acl", "bucket_location", "object_lock_configuration",
]
# A pool whose members were all away for long: none may be given up before the last one is back.
PATIENT = {"members.grace": "1h"}


def write(pool: Pool) -> dict:
    """Fills a new pool; what its next binary must be told: keys, and the upload that is still open."""
    s3 = pool.peers[0].client()
    objects(s3)
    versions(s3)
    locked(s3)
    settings(s3)
    pool.peers[0].ask("bucket quota", "settings", "--objects", "100")
    user = pool.peers[0].ask("key create", "--user", "reader", "--policy", "readonly")
    upload = s3.create_multipart_upload(Bucket="plain", Key="completed-later", ContentType="text/plain")["UploadId"]
    part = s3.upload_part(Bucket="plain", Key="completed-later", UploadId=upload, PartNumber=1, Body=samples.text(20 * KIB))["ETag"]
    return {
        "root": [pool.access_key, pool.secret_key], "reader": [user["access_key"], user["secret_key"]],
        "upload": {"UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": part}]}},
    }


def objects(s3) -> None:
    """Objects of every way they are kept: empty, packed, a file, in parts, copied, encrypted by the client, told of in headers."""
    s3.create_bucket(Bucket="plain")
    for size in (0, 1, 5 * KIB, 130 * KIB):
        s3.put_object(Bucket="plain", Key=f"of/{size}", Body=samples.blob(size, "upgrade"), ChecksumAlgorithm="SHA256")
    s3.put_object(
        Bucket="plain", Key="headers/ü +&.txt", Body=b"x", ContentType="text/plain; charset=utf-8", CacheControl="max-age=9", ContentLanguage="de",
        ContentDisposition="attachment", Metadata={"colour": "green"}, Tagging="age=old&kind=fixture", StorageClass="STANDARD_IA",
    )
    s3.copy_object(Bucket="plain", Key="copied", CopySource="plain/of/5120", MetadataDirective="REPLACE", Metadata={"from": "copy"})
    s3.put_object(Bucket="plain", Key="sse-c", Body=samples.blob(3 * KIB, "secret"), **CUSTOMER)
    upload = s3.create_multipart_upload(Bucket="plain", Key="in-parts", ChecksumAlgorithm="CRC32C")["UploadId"]
    part = s3.upload_part(Bucket="plain", Key="in-parts", UploadId=upload, PartNumber=1, Body=samples.blob(70 * KIB, "part"), ChecksumAlgorithm="CRC32C")
    s3.complete_multipart_upload(
        Bucket="plain", Key="in-parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32C": part["ChecksumCRC32C"]}]}
    )
    s3.put_object(Bucket="plain", Key="gone", Body=b"gone")
    s3.delete_object(Bucket="plain", Key="gone")


def versions(s3) -> None:
    """A null version, two versions over it, a delete marker over a third."""
    s3.create_bucket(Bucket="versions")
    s3.put_object(Bucket="versions", Key="k", Body=b"before versioning")
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"first", b"second"):
        s3.put_object(Bucket="versions", Key="k", Body=body)
    s3.put_object(Bucket="versions", Key="hidden", Body=b"under a marker")
    s3.delete_object(Bucket="versions", Key="hidden")


def locked(s3) -> None:
    """Retention of both modes, and a legal hold."""
    s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    s3.put_object_lock_configuration(Bucket="locked", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule})
    for mode in ("GOVERNANCE", "COMPLIANCE"):
        s3.put_object(Bucket="locked", Key=mode.lower(), Body=mode.encode(), ObjectLockMode=mode, ObjectLockRetainUntilDate=LOCKED_UNTIL)
    s3.put_object(Bucket="locked", Key="held", Body=b"held", ObjectLockLegalHoldStatus="ON")


def settings(s3) -> None:
    """One bucket that has every setting."""
    name = {"Bucket": "settings"}
    s3.create_bucket(**name, ObjectOwnership="ObjectWriter")
    s3.put_object(**name, Key="public/page", Body=b"for all")
    s3.put_public_access_block(**name, PublicAccessBlockConfiguration={"BlockPublicAcls": True, "BlockPublicPolicy": False})
    s3.put_bucket_policy(**name, Policy=json.dumps(PUBLIC))
    s3.put_bucket_tagging(**name, Tagging={"TagSet": [{"Key": "team", "Value": "reef"}]})
    s3.put_bucket_cors(**name, CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://example.org"], "MaxAgeSeconds": 5}]})
    rules = [{"ID": "never-matches", "Status": "Enabled", "Filter": {"Prefix": "nothing/"}, "Expiration": {"Days": 3650}}]
    s3.put_bucket_lifecycle_configuration(**name, LifecycleConfiguration={"Rules": rules})
    s3.put_bucket_website(**name, WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}, "ErrorDocument": {"Key": "error.html"}})


def read(s3) -> dict:
    """Everything that a client can see, by bucket: settings, versions, and of each object headers, tags, lock and the hash of its bytes."""
    names = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    everything = {name: {"settings": bucket_settings(s3, name), "versions": bucket_versions(s3, name)} for name in names}
    return json.loads(json.dumps(everything, default=str))


def bucket_settings(s3, bucket: str) -> dict:
    return {setting: answered(getattr(s3, f"get_{setting}"), Bucket=bucket) for setting in SETTINGS}


def bucket_versions(s3, bucket: str) -> list[dict]:
    listed = s3.list_object_versions(Bucket=bucket)
    objects = [entry | {"object": version(s3, bucket, entry)} for entry in listed.get("Versions", [])]
    return objects + listed.get("DeleteMarkers", [])


def version(s3, bucket: str, entry: dict) -> dict:
    """One version read in full."""
    which = {"Bucket": bucket, "Key": entry["Key"], "VersionId": entry["VersionId"]}
    answer = s3.get_object(**which, ChecksumMode="ENABLED", **(CUSTOMER if entry["Key"] == "sse-c" else {}))
    body = hashlib.sha256(answer.pop("Body").read()).hexdigest()
    asked = {"tags": s3.get_object_tagging, "retention": s3.get_object_retention, "hold": s3.get_object_legal_hold, "acl": s3.get_object_acl}
    return {"sha256": body, "headers": told(answer)} | {name: answered(ask, **which) for name, ask in asked.items()}


def answered(ask, **which) -> dict:
    """What the server says, or the code by which it says that there is none."""
    try:
        return told(ask(**which))
    except ClientError as error:
        return {"error": error.response["Error"]["Code"]}


def told(answer: dict) -> dict:
    """Without what belongs to this one request."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def missing(old, new, path: str = "") -> list[str]:
    """Where `new` does not say what `old` said. What it says besides is welcome."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for name, value in old.items() for line in missing(value, new.get(name), f"{path}/{name}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for index, value in enumerate(old) for line in missing(value, new[index], f"{path}/{index}")]
    return [] if old == new else [f"{path}: {old!r} became {new!r}"]


def archive(binary_of: str) -> pathlib.Path:
    """Makes the fixture with the binary under test."""
    path = FIXTURES / f"pool-{binary_of}.tar.xz"
    with tempfile.TemporaryDirectory() as root, Pool.form(pathlib.Path(root), PEERS, name="kept") as pool:
        written = write(pool)
        written["read"] = read(pool.peers[1].client())
        pool.stop_all()
        written_file = pathlib.Path(root) / "written.json"
        written_file.write_text(json.dumps(written, indent=1, ensure_ascii=False))
        FIXTURES.mkdir(exist_ok=True)
        with tarfile.open(path, "w:xz", preset=9) as tar:
            tar.add(written_file, "written.json", filter=portable)
            for peer in pool.peers:
                tar.add(peer.data, f"{peer.name}/data", filter=portable)
    return path


def portable(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Nobody's own, and without sockets and what RocksDB tells its operator."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    is_log = pathlib.PurePath(entry.name).name.startswith("LOG")
    return entry if (entry.isfile() or entry.isdir()) and not is_log else None


def restore(path: pathlib.Path, root: pathlib.Path) -> tuple[Pool, dict]:
    """The pool of an archive, not started, and what was written in it."""
    with tarfile.open(path) as tar:
        tar.extractall(root / "unpacked", filter="data")
    written = json.loads((root / "unpacked" / "written.json").read_text())
    pool = Pool(root, "kept", PATIENT)
    pool.access_key, pool.secret_key = written["root"]
    for _ in range(PEERS):
        peer = pool.new_peer()
        shutil.move(root / "unpacked" / peer.name / "data", peer.data)
    # Ports of their own, unlike those that they remember of each other.
    pool.environment["PALM_DISCOVERY__PEERS"] = ",".join(peer.quic_address for peer in pool.peers)
    return pool, written


def check(pool: Pool, written: dict) -> None:
    """A started pool tells all that it told before, at every peer, keeps its locks and its keys, and goes on where it was."""
    for peer in pool.peers:
        lost = missing(written["read"], read(peer.client()))
        assert not lost, f"{peer.name}: " + "\n".join(lost[:20])
    s3 = pool.peers[0].client()
    held = next(entry for entry in written["read"]["locked"]["versions"] if entry["Key"] == "compliance")
    refused(s3.delete_object, "AccessDenied", Bucket="locked", Key="compliance", VersionId=held["VersionId"])
    reader = s3_client(pool.peers[1].endpoint, *written["reader"])
    assert reader.get_object(Bucket="plain", Key="of/1")["ContentLength"] == 1
    refused(reader.put_object, "AccessDenied", Bucket="plain", Key="of/1", Body=b"")
    assert pool.peers[2].ask("bucket quota", "settings")["quota"]["objects"] == 100


def go_on(pool: Pool, written: dict) -> None:
    """What was begun is ended, and all kinds of changes are made, each read at another peer than made it."""
    first, second, third = (peer.client() for peer in pool.peers)
    first.complete_multipart_upload(Bucket="plain", Key="completed-later", **written["upload"])
    assert second.get_object(Bucket="plain", Key="completed-later")["Body"].read() == samples.text(20 * KIB)
    second.put_object(Bucket="plain", Key="of/5120", Body=b"replaced")
    assert third.get_object(Bucket="plain", Key="of/5120")["Body"].read() == b"replaced"
    marker = third.list_object_versions(Bucket="versions", Prefix="hidden")["DeleteMarkers"][0]
    third.delete_object(Bucket="versions", Key="hidden", VersionId=marker["VersionId"])
    assert first.get_object(Bucket="versions", Key="hidden")["Body"].read() == b"under a marker"
    first.delete_object(Bucket="plain", Key="copied")
    eventually(lambda: "copied" not in [entry["Key"] for entry in second.list_objects_v2(Bucket="plain")["Contents"]], 10, "the deleted object is not listed")
    refused(first.put_object, "PreconditionFailed", Bucket="plain", Key="of/1", Body=b"", IfNoneMatch="*")


def refused(ask, code: str, **arguments) -> None:
    try:
        ask(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return
    raise AssertionError(f"{arguments} was not refused with {code}")


if __name__ == "__main__":
    print(archive(sys.argv[1]))
