"""Five real peers, clients that never retry, and a nemesis that kills, freezes and cuts them off: is what clients saw linearizable?

Runs in a network namespace of its own (`unshare --net`), so that cutting links touches nothing else. Every key's history of PUT, conditional PUT,
DELETE, GET and LIST goes through `linearizable`; LIST counts as one look at each key. Prints its seed and its figures; ends with 1 on a violation.

    unshare --net python consistency.py --seconds 600
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

from botocore.exceptions import BotoCoreError, ClientError

import linearizable
from linearizable import Op
from palm_cluster import Peer, Pool, eventually, s3_client

BUCKET = "consistency"
CLIENTS = 6
KEYS_AT_ONCE = 3
# Keys are left for fresh ones after this long: a short history is quickly checked, however many outcomes are unknown.
ERA_S = 4.0
CALL_TIMEOUT_S = 8
# After a trouble the pool serves again at every peer within this: a bound on a loaded machine, not what it usually takes (the report says that).
SERVES_WITHIN_S = 60
# How often the nemesis waits for that. Else the next trouble meets a pool that is still getting over the last one.
PEACE_SHARE = 0.5


class History:
    """What all clients saw, by key."""

    def __init__(self):
        self._ops: dict[str, list[Op]] = collections.defaultdict(list)
        self._lock = threading.Lock()
        self.counts: collections.Counter = collections.Counter()

    def add(self, key: str, op: Op) -> None:
        with self._lock:
            self._ops[key].append(op)
            self.counts[f"{op.kind} {op.result}"] += 1

    def keys(self) -> list[str]:
        with self._lock:
            return sorted(self._ops)

    def problems(self) -> list[str]:
        found = ((key, linearizable.problem(ops)) for key, ops in sorted(self._ops.items()))
        return [f"{key}: {problem}" for key, problem in found if problem]


class Client:
    """One client: random operations on the keys of the day, each at a random peer."""

    def __init__(self, name: str, peers: list[Peer], history: History, seed: str, began: float):
        self.name, self.history, self.began = name, history, began
        self.rng = random.Random(f"{seed}/{name}")
        self.clients = [
            s3_client(peer.endpoint, peer.pool.access_key, peer.pool.secret_key, CALL_TIMEOUT_S, max_pool_connections=2) for peer in peers
        ]
        self.written = 0

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            era = int((time.monotonic() - self.began) / ERA_S)
            keys = [f"era-{era:04}/{number}" for number in range(KEYS_AT_ONCE)]
            kind = self.rng.choices(["put", "create", "swap", "delete", "get", "list"], [3, 3, 3, 2, 6, 2])[0]
            getattr(self, kind)(keys if kind == "list" else self.rng.choice(keys))

    def _value(self) -> str:
        self.written += 1
        return f"{self.name}-{self.written}"

    def _call(self, operation: str, key: str, make, **arguments):
        """Calls once; `make(result, answer)` turns the outcome into an Op's own fields."""
        called = time.monotonic()
        answer, result = None, "ok"
        try:
            answer = getattr(self.rng.choice(self.clients), operation)(Bucket=BUCKET, **arguments)
            if "Body" in answer:
                answer["Body"] = answer["Body"].read()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            result = {"PreconditionFailed": "refused", "NoSuchKey": "absent"}.get(code, "unknown")
        except (BotoCoreError, OSError):
            result = "unknown"
        fields = make(result, answer)
        if fields is not None:
            self.history.add(key, Op(called=called, returned=time.monotonic(), client=self.name, **fields))
        return answer

    def put(self, key: str) -> None:
        value = self._value()
        self._call("put_object", key, lambda result, _: {"kind": "put", "value": value, "result": result}, Key=key, Body=value.encode())

    def create(self, key: str) -> None:
        value = self._value()
        self._call(
            "put_object", key, lambda result, _: {"kind": "create", "value": value, "result": result}, Key=key, Body=value.encode(), IfNoneMatch="*"
        )

    def swap(self, key: str) -> None:
        """Replaces what a GET just saw, if it is still there. A refusal because the key is gone is one too."""
        seen = self.get(key)
        if not seen:
            return
        value, expected = self._value(), seen["Body"].decode()
        made = lambda result, _: {  # noqa: E731
            "kind": "swap", "value": value, "expected": expected, "result": "refused" if result == "absent" else result,
        }
        self._call("put_object", key, made, Key=key, Body=value.encode(), IfMatch=seen["ETag"])

    def delete(self, key: str) -> None:
        self._call("delete_object", key, lambda result, _: {"kind": "delete", "result": result}, Key=key)

    def get(self, key: str):
        def made(result: str, answer) -> dict:
            value = answer["Body"].decode() if answer else None
            return {"kind": "get", "value": value, "result": "ok" if result in ("ok", "absent") else "unknown"}

        return self._call("get_object", key, made, Key=key)

    def list(self, keys: list[str]) -> None:
        called = time.monotonic()
        answer = self._call("list_objects_v2", "", lambda _result, _answer: None, Prefix=keys[0].split("/")[0] + "/")
        if answer is None:
            return
        returned, listed = time.monotonic(), {entry["Key"] for entry in answer.get("Contents", [])}
        for key in keys:
            self.history.add(key, Op("exists", called, returned, "ok", seen=key in listed, client=self.name))


class Nemesis:
    """One trouble after another, each for a few seconds, and peace between them."""

    def __init__(self, pool: Pool, rng: random.Random):
        self.pool, self.rng = pool, rng
        self.counts: collections.Counter = collections.Counter()
        self.recoveries_s: list[float] = []
        self._numbers = itertools.count()
        self._witnesses = [s3_client(peer.endpoint, pool.access_key, pool.secret_key, CALL_TIMEOUT_S) for peer in pool.peers]
        self.troubles = [self.kill, self.freeze, self.split, self.one_way, self.kill_in_a_split, self.kill_all]
        nft("add table inet nemesis", "add chain inet nemesis out { type filter hook output priority 0 ; }")

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            time.sleep(self.rng.uniform(0.3, 2))
            trouble = self.rng.choice(self.troubles)
            self.counts[trouble.__name__] += 1
            trouble()
            if self.rng.random() < PEACE_SHARE:
                self.await_service()

    def await_service(self) -> None:
        """Waits until each peer has taken a write and given it back. Counts of failed calls would say little: a dead peer refuses thousands."""
        began = time.monotonic()
        for peer, witness in zip(self.pool.peers, self._witnesses, strict=True):
            eventually(lambda: self._serves(witness), began + SERVES_WITHIN_S - time.monotonic(), f"{peer.name} serves after {dict(self.counts)}")  # noqa: B023
        self.recoveries_s.append(time.monotonic() - began)

    def _serves(self, witness) -> bool:
        value = str(next(self._numbers)).encode()
        try:
            witness.put_object(Bucket=BUCKET, Key="witness", Body=value)
            return witness.get_object(Bucket=BUCKET, Key="witness")["Body"].read() == value
        except (ClientError, BotoCoreError, OSError):
            return False

    def _wait(self) -> None:
        time.sleep(self.rng.uniform(0.5, 5))

    def kill(self, how_many: int = 1) -> None:
        victims = self.rng.sample(self.pool.peers, how_many)
        for peer in victims:
            peer.kill()
        self._wait()
        for peer in victims:
            peer.start()

    def kill_all(self) -> None:
        self.kill(len(self.pool.peers))

    def freeze(self) -> None:
        """Stops a peer in the middle of whatever it does, so that what it sends later is late."""
        peer = self.rng.choice(self.pool.peers)
        peer.process.send_signal(signal.SIGSTOP)
        self._wait()
        peer.process.send_signal(signal.SIGCONT)

    def _cut(self, pairs) -> None:
        nft(*(f"add rule inet nemesis out udp sport {one.quic_port} udp dport {other.quic_port} drop" for one, other in pairs))

    def split(self, meanwhile=None) -> None:
        """Two parties that hear nothing of each other: two of five, or one."""
        few = self.rng.sample(self.pool.peers, self.rng.choice([1, 2]))
        many = [peer for peer in self.pool.peers if peer not in few]
        self._cut([(one, other) for one in few for other in many] + [(one, other) for one in many for other in few])
        (meanwhile or self._wait)()
        self.heal()

    def one_way(self) -> None:
        """A peer is heard by nobody, or by some only, but hears all."""
        peer = self.rng.choice(self.pool.peers)
        others = [other for other in self.pool.peers if other is not peer]
        self._cut([(peer, other) for other in self.rng.sample(others, self.rng.randint(1, 4))])
        self._wait()
        self.heal()

    def kill_in_a_split(self) -> None:
        self.split(meanwhile=self.kill)

    def heal(self) -> None:
        nft("flush chain inet nemesis out")


def nft(*commands: str) -> None:
    subprocess.run(["nft", "-f", "-"], input="\n".join(commands), text=True, check=True)


def run(seconds: float, seed: str, root: pathlib.Path) -> dict:
    rng = random.Random(seed)
    with Pool.form(root, 5) as pool:
        pool.peers[0].client().create_bucket(Bucket=BUCKET)
        history, began = History(), time.monotonic()
        until = began + seconds
        clients = [Client(f"c{number}", pool.peers, history, seed, began) for number in range(CLIENTS)]
        threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
        for thread in threads:
            thread.start()
        nemesis = Nemesis(pool, rng)
        nemesis.run(until)
        for thread in threads:
            thread.join()
        pool.wait_live(len(pool.peers))
        nemesis.await_service()
        # What is there when all is well again belongs to the histories.
        for number, key in enumerate(history.keys()):
            clients[number % CLIENTS].get(key)
        pool.assert_up()
        return {
            "seed": seed, "seconds": seconds, "keys": len(history.keys()), "operations": dict(sorted(history.counts.items())),
            "troubles": dict(sorted(nemesis.counts.items())), "slowest recovery s": round(max(nemesis.recoveries_s), 2), "violations": history.problems(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default=f"{random.SystemRandom().getrandbits(32):08x}")
    parser.add_argument("--root", type=pathlib.Path, help="where the peers live; kept (default: a temporary directory)")
    options = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up", "multicast", "on"], check=True)
    with tempfile.TemporaryDirectory() as temporary:
        report = run(options.seconds, options.seed, options.root or pathlib.Path(temporary))
    print(json.dumps(report, indent=2))
    sys.exit(1 if report["violations"] else 0)


if __name__ == "__main__":
    main()
