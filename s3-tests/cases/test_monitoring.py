"""monitoring/ against the real thing: Prometheus scrapes a pool under load, answers every query of every dashboard, and its alerts fire when something is
wrong. The only changes to the files as they are shipped: the address of a peer, a second instead of 15, and no waiting before an alert fires."""

import contextlib
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest
from botocore.exceptions import ClientError

from palm_cluster import HOST, Peer, Pool, eventually, free_port
from samples import MIB
from test_tls import certify

pytestmark = pytest.mark.own_pool

MONITORING = pathlib.Path(__file__).parents[2] / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana/dashboards").glob("*.json"))
WAIT_S = 180
# What a name in a query may be.
NAME = re.compile(r"\b(?:palm|process|job_pool)\w*(?::\w+)*")


def need(program: str) -> str:
    return shutil.which(program) or pytest.skip(f"{program} is not here: make setup unpacks it where apt-get can have it")


class Prometheus:
    """A server with monitoring/'s configuration, made quick. A context manager."""

    def __init__(self, root: pathlib.Path, admin: str):
        self.root, self.port = root, free_port()
        (root / "rules").mkdir(parents=True)
        for rules in (MONITORING / "rules").glob("*.yml"):
            (root / "rules" / rules.name).write_text(re.sub(r"\bfor: \w+", "for: 0s", rules.read_text()))
        shipped = (MONITORING / "prometheus.yml").read_text()
        quick = shipped.replace("127.0.0.1:9001", admin).replace(": 15s", ": 1s").replace(": 30s", ": 2s")
        assert quick.count(admin) == 2 and quick.count(": 1s") == 2, "prometheus.yml has changed: so must this"
        (root / "prometheus.yml").write_text(quick)

    def __enter__(self):
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [need("prometheus"), f"--config.file={self.root / 'prometheus.yml'}", f"--storage.tsdb.path={self.root / 'data'}",
                 f"--web.listen-address={HOST}:{self.port}", "--log.level=warn"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        eventually(self.answers, WAIT_S, "Prometheus answers")
        return self

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.ask("status/buildinfo"))
        return False

    def __exit__(self, *_exception):
        self.process.kill()
        self.process.wait()

    def ask(self, path: str, **arguments) -> dict:
        assert self.process.poll() is None, (self.root / "log").read_text()
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def has(self, query: str) -> bool:
        """Whether there is an answer that is a number."""
        return any(sample["value"][1] != "NaN" for sample in self.ask("query", query=query)["result"])

    def firing(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def wait_firing(self, *names: str) -> None:
        for name in names:
            eventually(lambda name=name: name in self.firing(), WAIT_S, f"{name} fires", every_s=0.5)


def load(client, ending: threading.Event) -> None:
    """What clients do, some of it refused, until the end."""
    client.create_bucket(Bucket="load")
    client.create_multipart_upload(Bucket="load", Key="begun")
    begun = client.create_multipart_upload(Bucket="load", Key="open")["UploadId"]
    client.upload_part(Bucket="load", Key="open", UploadId=begun, PartNumber=1, Body=b"x" * 100_000)
    turn = 0
    while not ending.is_set():
        key, turn = f"key-{turn % 8}", turn + 1
        # Failures belong to what is staged here, and show in what is measured.
        with contextlib.suppress(ClientError):
            client.put_object(Bucket="load", Key=key, Body=bytes(1000 if turn % 4 else MIB))
            client.get_object(Bucket="load", Key=key)["Body"].read()
            client.list_objects_v2(Bucket="load")
            client.head_object(Bucket="load", Key="none")
        ending.wait(0.05)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Four peers under load, the last of them with a certificate and hardly any room, and Prometheus that scrapes them through the first."""
    need("prometheus")
    root = tmp_path_factory.mktemp("watched")
    certify(root, "short-lived")
    with Pool(root / "pool", settings={"repair.every": "2s"}) as pool:
        founder = pool.create("--policy", "2-of-3")
        pool.join()
        pool.join()
        small = pool.new_peer()
        small.use_disks(small.disks, "?max_bytes=1000KiB")
        small.environment |= {
            "PALM_S3__TLS_ADDRESS": f"{HOST}:{free_port()}", "PALM_S3__TLS_CERTIFICATE": str(root / "tls.crt"), "PALM_S3__TLS_KEY": str(root / "tls.key"),
        }
        small.spawn_join(pool.id, founder.quic_address, founder.invite())
        small.wait_ready()
        pool.wait_settled()
        ending = threading.Event()
        loading = threading.Thread(target=load, args=(founder.client(), ending))
        with Prometheus(root / "prometheus", f"{HOST}:{founder.admin_port}") as prometheus:
            loading.start()
            try:
                yield pool, prometheus
            finally:
                ending.set()
                loading.join()


def queries() -> list[tuple[str, str]]:
    """Every query of every dashboard, with its panel, as Grafana would send it with "All" chosen."""
    found = []
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                query = re.sub(r"\$(job|pool|instance)", ".*", target["expr"]).replace("$__rate_interval", "15s")
                assert "$" not in query, query
                found.append((f"{path.stem}: {panel['title']}", query))
    return found


def readiness(peer: Peer) -> tuple[int, dict]:
    """What `/health/ready` answers."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{peer.admin_port}/health/ready", timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as failure:
        return failure.code, json.load(failure)


def alerts(prometheus: Prometheus) -> list[dict]:
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    return [rule for rule in rules if rule["type"] == "alerting"]


def test_rules_are_sound():
    """promtool reads the configuration, and pools in staged states tell exactly the alerts that they should (monitoring/tests)."""
    promtool = need("promtool")
    for command in (["check", "config", MONITORING / "prometheus.yml"], ["test", "rules", *sorted((MONITORING / "tests").glob("*.yml"))]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_explained():
    """An alert that nobody ever saw fire, or that wakes somebody and does not say what to do. Expected: each is in monitoring/tests and in docs/alerts.md."""
    names = re.findall(r"- alert: (\w+)", (MONITORING / "rules/alerts.yml").read_text())
    tests = "".join(path.read_text() for path in (MONITORING / "tests").glob("*.yml"))
    page = (MONITORING.parent / "docs/alerts.md").read_text()
    assert len(names) > 20
    assert not [name for name in names if f'"{name}"' not in tests]
    assert re.findall(r"^### (\w+)", page, re.M) == names
    assert (MONITORING / "rules/alerts.yml").read_text().count("action:") == len(names)


def test_dashboards_are_as_their_script_writes_them():
    spec = importlib.util.spec_from_file_location("dashboards", MONITORING / "dashboards.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert {path.name: path.read_text() for path in DASHBOARDS} == script.ALL, "run monitoring/dashboards.py"


def test_every_panel_has_data(watched):
    """Danger: a panel that shows nothing, for a metric that was renamed or a label that does not exist. Expected: all have data."""
    pool, prometheus = watched
    # A round of scrubbing, so that there is one to show.
    pool.peers[1].ask("scrub")
    waiting = queries()
    assert len(waiting) > 80

    def all_answered() -> bool:
        waiting[:] = [(panel, query) for panel, query in waiting if not prometheus.has(query)]
        return not waiting

    with contextlib.suppress(AssertionError):
        eventually(all_answered, WAIT_S, "data in all panels", every_s=1)
    assert not waiting


def test_every_alert_looks_at_something(watched):
    """Danger: an alert about a metric that is not there, which never fires. Expected: what each names exists, and a pool that is well is silent."""
    _, prometheus = watched
    rules = eventually(lambda: alerts(prometheus), WAIT_S, "rules are loaded")
    assert len(rules) > 20
    lacking = [(rule["name"], name) for rule in rules for name in set(NAME.findall(re.sub(r'"[^"]*"', '""', rule["query"]))) if name not in ("job", "pool")]
    eventually(
        lambda: not [pair for pair in lacking if not prometheus.ask("query", query=f"count({pair[1]})")["result"]], WAIT_S, f"series of {lacking}", every_s=1
    )
    unwell = {"PalmPeerDown", "PalmNoPeerMayFail", "PalmCorruptFragments", "PalmNoQuorum", "PalmObjectsUnreadable", "PalmObjectsWithoutRedundancy", "PalmBackendIll", "PalmDown", "PalmS3Errors"}
    eventually(lambda: not prometheus.firing() & unwell, WAIT_S, "nothing is told of a pool that is well", every_s=0.5)
    errors = [(rule["name"], rule["lastError"]) for rule in alerts(prometheus) if rule["health"] == "err"]
    assert not errors


def test_what_is_staged_is_told(watched):
    """A certificate that expires in two days and a disk without room are there from the start; then a fragment rots, and two voters
    of three are killed, one after the other. Danger: nobody is told, or clients are sent to a peer that cannot serve them. Expected: the alerts about it
    fire, and the peer that is left is not ready and says why."""
    pool, prometheus = watched
    prometheus.wait_firing("PalmCertificateExpires", "PalmBackendFull")

    rotten = pool.peers[1]
    file = eventually(lambda: next((path for path in rotten.disks[0].glob("files/*/*") if path.stat().st_size), None), WAIT_S, "a fragment in a file")
    turned = bytearray(file.read_bytes())
    turned[len(turned) // 2] ^= 1
    file.write_bytes(turned)
    rotten.ask("scrub")
    prometheus.wait_firing("PalmCorruptFragments")

    asked = pool.peers[0]
    assert readiness(asked)[0] == 200
    voters = asked.voters()
    first, second, *_ = (peer for peer in pool.peers[1:] if peer.id in voters)
    first.kill()
    prometheus.wait_firing("PalmPeerDown", "PalmNoPeerMayFail")
    second.kill()
    prometheus.wait_firing("PalmNoQuorum")
    # The alert is fired by the first peer that believes the voters dead; this one may need a few seconds more.
    eventually(lambda: readiness(asked)[0] == 503, WAIT_S, "a peer without a majority is not ready")
    _, told = readiness(asked)
    assert not told["ready"], told
    assert {check["name"]: check["ok"] for check in told["checks"]} == {"quorum": False, "backends": True}, told
