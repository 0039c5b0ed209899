"""What clients see while peers are killed, frozen and cut off is linearizable; and the checker that says so can say no."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from linearizable import Op, problem

SCRIPT = pathlib.Path(__file__).parent.parent / "consistency.py"


def can_unshare() -> bool:
    return os.geteuid() == 0 and bool(shutil.which("nft")) and subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0


@pytest.mark.own_pool
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not can_unshare(), reason="needs root, unshare and nft for a network of its own")
def test_histories_are_linearizable(request, rounds, tmp_path):
    """Five peers, six clients without retries; kills, freezes, splits and one-way splits. Danger: a stale read, a lost write, two creators,
    an undone delete. Expected: every key's history has an order that explains it."""
    command = ["unshare", "--net", sys.executable, SCRIPT, "--seconds", str(rounds(60, 600)), "--seed", request.config.getoption("--seed")]
    done = subprocess.run([*command, "--root", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    report = json.loads(done.stdout)
    print(done.stdout)
    assert report["operations"]["get ok"] > 100 and sum(report["troubles"].values()) >= 3


def op(kind: str, called: float, returned: float, result: str = "ok", **fields) -> Op:
    return Op(kind, called, returned, result, **fields)


@pytest.mark.parametrize(
    ("wrong", "history"),
    [
        ("a stale read", [op("put", 0, 1, value="a"), op("put", 2, 3, value="b"), op("get", 4, 5, value="a")]),
        ("a lost write", [op("put", 0, 1, value="a"), op("get", 2, 3)]),
        ("two creators", [op("create", 0, 3, value="a"), op("create", 1, 4, value="b")]),
        ("no creator", [op("create", 0, 3, "refused", value="a"), op("get", 1, 4)]),
        ("an undone delete", [op("put", 0, 1, value="a"), op("delete", 2, 3), op("exists", 4, 5, seen=True)]),
        ("a read that goes back", [op("put", 0, 9, value="a"), op("get", 1, 2, value="a"), op("get", 3, 4)]),
        ("a swap over another", [op("put", 0, 1, value="a"), op("put", 2, 3, value="b"), op("swap", 4, 5, value="c", expected="a")]),
    ],
)
def test_the_checker_says_no(wrong, history):
    """Danger: a checker that accepts everything. Expected: each classic violation is one."""
    assert problem(history), wrong


@pytest.mark.parametrize(
    ("right", "history"),
    [
        ("writes at once, either order", [op("put", 0, 9, value="a"), op("put", 0, 9, value="b"), op("get", 10, 11, value="a")]),
        ("unknown that took effect late", [op("put", 0, 1, "unknown", value="a"), op("get", 5, 6), op("get", 7, 8, value="a")]),
        ("unknown that never did", [op("put", 0, 1, "unknown", value="a"), op("get", 5, 6), op("exists", 7, 8, seen=False)]),
        ("refused by a write under way", [op("put", 0, 9, value="a"), op("create", 1, 2, "refused", value="b"), op("get", 3, 4, value="a")]),
    ],
)
def test_the_checker_says_yes(right, history):
    """Expected: what concurrency and unknown outcomes allow is allowed."""
    assert problem(history) is None, right
