"""Storage backends whose system calls fail or never return: strace ends the process, or answers with an error, at one call after another."""

import pathlib
import shutil
import subprocess

import pytest

from palm_cluster import tool

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(600)]

PLUG_IN = pathlib.Path(__file__).parents[2] / "examples/backend-plugin/palm-backend-dir"
BACKENDS = {
    "disk": "disk://{dir}/store?reserve=0",
    "rocksdb": "rocksdb://{dir}/store?reserve=0",
    "opendal": "opendal+fs://{dir}/store?adopt=true",
    "exec": f"exec://{PLUG_IN}?dir={{dir}}/store",
}
SYNCS, CHANGES = "fsync,fdatasync", "rename,renameat,renameat2,unlink,unlinkat"
# The first calls of a thread one by one, later ones here and there.
STEPS = [1, 2, 3, 4, 6, 9, 14]


def can_trace() -> bool:
    """Whether this machine has strace and lets it trace."""
    return shutil.which("strace") is not None and subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode == 0


needs_strace = pytest.mark.skipif(not can_trace(), reason="needs strace, and to be let trace")


def write(url: str, *strace: str) -> tuple[int, str]:
    """Stores and deletes some fragments; how it ended, and what it noted."""
    done = subprocess.run([*strace, tool("conformance"), "write", url], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout


def check(url: str, notes: str) -> None:
    """Opens what is left: what was acknowledged is there, everything there is whole, the counters agree."""
    done = subprocess.run([tool("conformance"), "check", url], input=notes, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{notes}\n{done.stderr[-4000:]}"


def injected(calls: str, what: str, when: str) -> list[str]:
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:{what}:when={when}"]


@needs_strace
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_at_each_step(backend, tmp_path):
    """The process ends at one sync, rename or removal after the other. Danger: an acknowledged fragment is lost, half of one is there,
    counters drift, the store does not open. Expected: none of that, wherever it ends."""
    killed = 0
    for step in STEPS:
        for calls in (SYNCS, CHANGES):
            root = tmp_path / f"{step}-{calls[:2]}"
            root.mkdir()
            url = BACKENDS[backend].format(dir=root)
            code, notes = write(url, *injected(calls, "signal=KILL", str(step)))
            killed += code != 0 or "!" in notes
            check(url, notes)
            shutil.rmtree(root)
    assert killed >= len(STEPS) // 2, "the process was hardly ever killed: this tests nothing"


@needs_strace
@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_of_the_disk(backend, tmp_path):
    """The disk answers one sync with EIO, or has no room from one write on. Danger: acknowledged all the same; tried again and believed; a
    store that is no store any more. Expected: errors for those operations, and after opening again all that was acknowledged."""
    refused = 0
    for step in STEPS:
        for calls, what, when in ((SYNCS, "error=EIO", str(step)), ("fsync,fdatasync,fallocate", "error=ENOSPC", f"{step}+")):
            root = tmp_path / f"{step}-{what[6:]}"
            root.mkdir()
            url = BACKENDS[backend].format(dir=root)
            code, notes = write(url, *injected(calls, what, when))
            refused += code != 0 or "!" in notes
            check(url, notes)
            shutil.rmtree(root)
    assert refused >= len(STEPS) // 2, "hardly any error was met: this tests nothing"
