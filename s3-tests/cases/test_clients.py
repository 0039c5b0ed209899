"""The clients that people have: aws-cli, rclone, s5cmd, s3cmd, each a real process, reading at another peer than it wrote."""

import filecmp
import os
import urllib.request

import pytest

import samples
from clients import Clients
from samples import KIB, MIB


@pytest.fixture
def at(target, tmp_path):
    """`at(i)`: the clients, pointed at peer i."""

    def clients(index: int) -> Clients:
        endpoint = target.endpoints[index % len(target.endpoints)]
        return Clients(endpoint, target.access_key, target.secret_key, tmp_path / f"home-{index}")

    return clients


@pytest.fixture
def tree(tmp_path):
    """A folder as people have them: nested, with odd names, empty files and one that clients send in parts."""
    root = tmp_path / "tree"
    files = {f"dir-{number % 7}/sub/file-{number}.txt": 100 + number * 37 for number in range(120)}
    files |= {"empty": 0, "with space/ü+&.bin": 70 * KIB, "deep/a/b/c/d/e/f": 9, "UPPER": 5, "upper": 6, "large.bin": 20 * MIB + 11}
    for name, size in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples.write_file(path, size, name)
    return root


def assert_same_tree(left, right):
    """Same names, same bytes."""
    def names(root):
        return sorted(os.path.relpath(os.path.join(folder, name), root) for folder, _, found in os.walk(root) for name in found)

    assert names(left) == names(right)
    _, different, failed = filecmp.cmpfiles(left, right, names(left), shallow=False)
    assert not different and not failed


def test_aws_cli_commands(at, tmp_path):
    """mb, cp both ways, ls, presign, mv, rm, rb. Expected: each as against AWS, and exit code 1 for what is missing."""
    one, two = at(0), at(1)
    bucket = f"s3://cli-{os.urandom(6).hex()}"
    note = tmp_path / "note.txt"
    note.write_text("hello from a file\n")
    one.aws("s3", "mb", bucket)
    one.aws("s3", "cp", note, f"{bucket}/a/note.txt")
    assert "note.txt" in two.aws("s3", "ls", f"{bucket}/a/").stdout
    assert two.aws("s3", "cp", f"{bucket}/a/note.txt", "-").stdout == note.read_text()
    link = two.aws("s3", "presign", f"{bucket}/a/note.txt").stdout.strip()
    with urllib.request.urlopen(link, timeout=30) as answer:
        assert answer.read() == note.read_bytes()
    two.aws("s3", "mv", f"{bucket}/a/note.txt", f"{bucket}/b/note.txt")
    assert "PRE b/" in one.aws("s3", "ls", f"{bucket}/").stdout
    assert one.aws("s3", "cp", f"{bucket}/a/note.txt", "-", check=False).returncode == 1
    assert one.aws("s3", "rb", bucket, check=False).returncode == 1
    one.aws("s3", "rm", bucket, "--recursive")
    two.aws("s3", "rb", bucket)


def test_aws_cli_sync(at, bucket, tree, tmp_path):
    """sync up at one peer, down at another, then again. Danger: sizes or times in listings that make sync copy again, or not at all.
    Expected: the same tree; the second run copies nothing; --delete removes what is gone."""
    at(0).aws("s3", "sync", tree, f"s3://{bucket}/tree")
    at(1).aws("s3", "sync", f"s3://{bucket}/tree", tmp_path / "back")
    assert_same_tree(tree, tmp_path / "back")
    assert at(2).aws("s3", "sync", tree, f"s3://{bucket}/tree").stdout == ""
    (tree / "upper").unlink()
    assert "delete" in at(3).aws("s3", "sync", "--delete", tree, f"s3://{bucket}/tree").stdout
    assert at(4).aws("s3", "ls", f"s3://{bucket}/tree/upper", check=False).returncode == 1


def test_aws_cli_large_file(at, bucket, tmp_path):
    """100 MiB, which aws-cli sends as ten parallel parts and reads back as parallel ranges. Expected: the same SHA-256."""
    file, back = tmp_path / "large", tmp_path / "back"
    digest = samples.write_file(file, 100 * MIB + 7, "large")
    at(0).aws("s3", "cp", file, f"s3://{bucket}/large", "--only-show-errors")
    at(1).aws("s3", "cp", f"s3://{bucket}/large", back, "--only-show-errors")
    assert samples.sha256_of(back) == digest


def test_aws_cli_streams(at, bucket):
    """From a pipe and to a pipe, no length known beforehand."""
    text = samples.text(300_000, "pipe").decode()
    at(0).aws("s3", "cp", "-", f"s3://{bucket}/piped", input=text)
    assert at(1).aws("s3", "cp", f"s3://{bucket}/piped", "-").stdout == text


def test_rclone_sync_and_check(at, bucket, tree, tmp_path):
    """sync up, check at another peer by downloading, sync down, then a second sync. Expected: no differences, nothing sent twice."""
    at(0).rclone("sync", tree, f"palm:{bucket}/tree")
    at(1).rclone("check", tree, f"palm:{bucket}/tree", "--download")
    at(2).rclone("sync", f"palm:{bucket}/tree", tmp_path / "back")
    assert_same_tree(tree, tmp_path / "back")
    again = at(3).rclone("sync", tree, f"palm:{bucket}/tree", "-v").stderr
    assert "There was nothing to transfer" in again
    assert at(4).rclone("lsf", f"palm:{bucket}/tree/with space/").stdout == "ü+&.bin\n"


def test_rclone_multipart_and_server_side_copy(at, bucket, tmp_path):
    """A file above rclone's cutoff goes up in parts; `copyto` between two keys is a copy on the server."""
    file = tmp_path / "large"
    samples.write_file(file, 24 * MIB + 3, "rclone")
    at(0).rclone("copyto", file, f"palm:{bucket}/large", "--s3-upload-cutoff", "5Mi", "--s3-chunk-size", "5Mi")
    at(1).rclone("copyto", f"palm:{bucket}/large", f"palm:{bucket}/copy", "--s3-copy-cutoff", "10Mi")
    at(2).rclone("copyto", f"palm:{bucket}/copy", tmp_path / "back")
    assert filecmp.cmp(file, tmp_path / "back", shallow=False)


def test_s5cmd(at, bucket, tree, tmp_path):
    """The fast one: many workers at once. Expected: the same tree."""
    at(0).s5cmd("cp", f"{tree}/", f"s3://{bucket}/tree/")
    assert len(at(1).s5cmd("ls", f"s3://{bucket}/tree/*").stdout.splitlines()) == 126
    at(2).s5cmd("cp", f"s3://{bucket}/tree/*", f"{tmp_path}/back/")
    assert_same_tree(tree, tmp_path / "back")
    at(3).s5cmd("rm", f"s3://{bucket}/tree/*")


def test_s3cmd(at, bucket, tmp_path):
    """The old one: no chunked signing, its own XML parsing. Expected: put in parts, get, info, ls, del work."""
    file = tmp_path / "file"
    samples.write_file(file, 16 * MIB + 1, "s3cmd")
    at(0).s3cmd("put", file, f"s3://{bucket}/dir/file", "--multipart-chunk-size-mb=5")
    at(1).s3cmd("get", f"s3://{bucket}/dir/file", tmp_path / "back")
    assert filecmp.cmp(file, tmp_path / "back", shallow=False)
    assert "dir/file" in at(2).s3cmd("ls", "--recursive", f"s3://{bucket}").stdout
    at(3).s3cmd("del", f"s3://{bucket}/dir/file")
