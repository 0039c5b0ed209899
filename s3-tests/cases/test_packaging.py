"""What people install: the Debian package, the systemd unit, the container files."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from docs_run import ROOT
from palm_cluster import palm_binary

UNIT = ROOT / "examples" / "palm.service"
DOCKER = ROOT / "examples" / "docker"
# Of ten, in tenths: systemd's own measure of what a service could reach.
MOST_EXPOSED = 20
INSTALL_TIMEOUT_S = 200


def call(*words: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)


# A copy of this machine that nobody else sees, on which everything that is written is gone at the end.
THROWAWAY = """\
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t tmpfs tmpfs "$1/root/tmp"
mount --bind "$2" "$1/root/mnt"
mount -t proc proc "$1/root/proc" 2>/dev/null || mount --bind /proc "$1/root/proc"
mount --bind /dev "$1/root/dev"
ip link set lo up
chroot "$1/root" bash -euo pipefail -c "$3"
"""
# What README.Debian says, without sudo; nothing is started by the installation.
AS_AN_OWNER = """\
dpkg --install /mnt/*.deb >&2
palm --version
test "$(stat -c '%U %a' /var/lib/palm)" = 'palm 700'
runuser -u palm -- palm config --print --config /etc/palm/palm.toml > /dev/null
export PALM_DISCOVERY__INTERFACES=lo PALM_QUIC__ADDRESS=127.0.0.1:5000
mkfifo /tmp/said
chown palm /tmp/said
runuser -u palm -- palm create-pool --name home --data /var/lib/palm --s3 127.0.0.1:9000 --admin 127.0.0.1:9001 --json > /tmp/said &
read -r ready < /tmp/said
echo "$ready"
runuser -u palm -- palm status --data /var/lib/palm
kill -TERM $!
wait $! || true
dpkg --purge palm >&2
test -e /var/lib/palm
test ! -e /usr/bin/palm
"""


@pytest.mark.own_pool
@pytest.mark.timeout(2400)
def test_debian_package(tmp_path):
    """The package is made of the binary under test, installed by dpkg on a throwaway copy of this machine (in namespaces of its own: mounts,
    processes, network), used as its README says, and purged. Danger: a missing library, a file in a wrong place, a user that is not there,
    a peer started unasked, data lost by purging. Expected: a pool, as the user `palm`; afterwards the data is still there."""
    for program in ("dpkg", "unshare", "systemd-sysusers", "runuser", "ip"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    root, given = tmp_path / "root", tmp_path / "given"
    root.mkdir()
    given.mkdir()
    alone = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
    if call(*alone, "mount", "-t", "tmpfs", "tmpfs", root).returncode != 0:
        pytest.skip("needs root, and namespaces")
    built = {"CARGO_TARGET_DIR": str(palm_binary().parent.parent)}
    made = call(ROOT / "packaging" / "deb.sh", "dev", given, env=os.environ | built)
    assert made.returncode == 0, made.stderr
    done = call(*alone, "bash", "-c", THROWAWAY, "throwaway", root, given, AS_AN_OWNER, timeout=INSTALL_TIMEOUT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert '"event":"ready"' in done.stdout


def test_unit(tmp_path):
    """The unit as systemd reads it. Danger: a misspelt directive, which systemd passes over with a line in its log that nobody reads, so that a
    hardening is not there. Expected: nothing to say, and little exposed."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "palm.service"
    # Verified against the binary at hand, as the installed one is not there.
    unit.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={palm_binary()}", UNIT.read_text()).replace("man:palm(1) ", ""))
    said = call("systemd-analyze", "verify", "--man=no", unit)
    assert str(unit.name) not in said.stderr, said.stderr
    judged = call("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit)
    assert judged.returncode == 0, judged.stdout[-300:] + judged.stderr


def test_container_files():
    """The container files, which are not built here. Danger: paths and names that have moved on. Expected: what they copy and mount is in the
    source, each image has a tag, nothing listens beyond loopback, and the image runs without root."""
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert "build" in service or re.search(r":v?\d", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for source, _, _ in (volume.partition(":") for volume in service.get("volumes", [])):
            assert source in compose["volumes"] or (DOCKER / source).exists(), f"{name}: {source}"
        assert service.get("network_mode", "service:peer-1").removeprefix("service:") in compose["services"]
    dockerfile = (DOCKER / "Dockerfile").read_text()
    build = compose["services"]["peer-1"]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == DOCKER / "Dockerfile"
    froms = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert froms[-1].endswith(":nonroot")
    command = re.search(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)[1]
    assert call(palm_binary(), *yaml.safe_load(command), "--help").returncode == 0
