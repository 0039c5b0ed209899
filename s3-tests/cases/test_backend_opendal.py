"""Fragments kept in other stores, through OpenDAL: the conformance suite over S3 and WebDAV servers, and a pool whose peers keep them there."""

import contextlib
import subprocess
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError

from contents import BUCKET, Contents
from palm_cluster import HOST, Pool, eventually, free_port, s3_client, tool

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(900)]

KEY, SECRET = "remote-access-key", "remote-secret-key"


@contextlib.contextmanager
def rclone(protocol: str, root, *args: str):
    """rclone as a server of that protocol over a directory; its URL."""
    root.mkdir()
    url = f"http://{HOST}:{free_port()}"
    with (root.parent / f"{protocol}.log").open("wb") as log:
        command = ["rclone", "--config", "", "serve", protocol, root, "--addr", url.removeprefix("http://"), "--vfs-cache-mode", "off", *args]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        eventually(lambda: answers(url), 30, f"rclone serves {protocol}")
        yield url
    finally:
        server.kill()
        server.wait()


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def s3_url(endpoint: str, place: str, key: str = KEY, secret: str = SECRET) -> str:
    return f"opendal+s3://{place}?endpoint={endpoint}&region=us-east-1&access_key_id={key}&secret_access_key={secret}"


def conforms(url: str) -> int:
    """Runs the suite on the store of a URL; how many checks passed."""
    done = subprocess.run([tool("conformance"), "short", url], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    checks = int(done.stdout.split("checks passed")[0].split()[-1])
    assert checks > 200, done.stdout
    return checks


def test_conforms_over_another_s3_server(tmp_path):
    """The whole contract with the fragments in a bucket of rclone. Danger: what S3 servers do differently. Expected: every check passes."""
    with rclone("s3", tmp_path / "remote", "--auth-key", f"{KEY},{SECRET}") as endpoint:
        s3_client(endpoint, KEY, SECRET).create_bucket(Bucket="suite")
        conforms(s3_url(endpoint, "suite/{name}"))


def test_conforms_over_webdav(tmp_path):
    """The same over WebDAV, which renames, lists as it likes and takes an object in one request. Expected: every check passes."""
    with rclone("webdav", tmp_path / "remote") as endpoint:
        conforms(f"opendal+webdav:///{{name}}?endpoint={endpoint}")


def test_conforms_over_palm(tmp_path):
    """The same with the fragments in a bucket of a pool. Expected: every check passes."""
    with Pool.form(tmp_path / "remote", 1) as remote:
        remote.peers[0].client().create_bucket(Bucket="suite")
        conforms(s3_url(remote.peers[0].endpoint, "suite/{name}", remote.access_key, remote.secret_key))


def test_a_pool_over_a_pool(tmp_path, rng):
    """Three peers keep their fragments in buckets of another pool; one is killed and comes back, and for a while the other pool is away.
    Danger: an acknowledged object that is not there; other bytes, or no answer at all, for what cannot be reached. Expected: everything reads
    back while one peer is dead and after it is back; an error while the other pool is away, and when it is back all is well; no secret is in a log."""
    with Pool.form(tmp_path / "remote", 1) as remote, Pool(tmp_path / "pool") as pool:
        store = remote.peers[0]
        store.client().create_bucket(Bucket="fragments")

        def there(name: str) -> str:
            url = s3_url(store.endpoint, f"fragments/{name}", remote.access_key, "env:REMOTE_SECRET")
            return f"{url}&max_bytes=10GiB"

        for _ in range(3):
            peer = pool.new_peer()
            peer.environment |= {"PALM_BACKEND__URLS": there(peer.name), "REMOTE_SECRET": remote.secret_key}
            if peer is pool.peers[0]:
                peer.create_pool("over")
                pool.id, pool.access_key, pool.secret_key = (peer.ready[name] for name in ("pool_id", "access_key", "secret_key"))
            else:
                peer.spawn_join(pool.id, pool.peers[0].quic_address, pool.peers[0].invite())
                peer.wait_ready()
        pool.wait_settled()
        contents = Contents(pool, rng)
        contents.fill(20)
        killed = pool.peers[2]
        killed.kill()
        contents.verify(pool.up)
        killed.start()
        pool.wait_live(3)
        contents.verify([killed])

        store.kill()
        with pytest.raises(ClientError):
            pool.peers[0].client().get_object(Bucket=BUCKET, Key=next(iter(contents.objects)))
        store.start()
        contents.verify()
        contents.fill(5, name="later")
        contents.verify()
        assert remote.secret_key not in pool.logs(), "a secret in a log"
