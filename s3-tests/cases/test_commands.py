"""Every command as people and scripts meet it: help, JSON, exit codes, what errors say to do next, terminals and pipes, systemd."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import urllib.parse

import pytest

from contents import Contents
from palm_cluster import COMMAND_TIMEOUT_S, HOST, QUICK, Peer, Pool, eventually, palm_binary, peer_environment
from samples import KIB

pytestmark = [pytest.mark.own_pool, pytest.mark.timeout(600)]

COMMANDS_PAGE = pathlib.Path(__file__).parents[2] / "docs" / "commands.md"
# A status that is longer is not read to its end.
STATUS_LINES = 10


def run(*args: object, **variables: str) -> subprocess.CompletedProcess:
    """One command, as typed in a shell whose output goes to a file."""
    return subprocess.run(
        [palm_binary(), *map(str, args)], env=peer_environment() | variables, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False,
    )


def ended(done: subprocess.CompletedProcess, code: int) -> subprocess.CompletedProcess:
    assert done.returncode == code, f"{done.args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def lone(tmp_path_factory) -> Peer:
    """A pool of one."""
    with Pool(tmp_path_factory.mktemp("lone")) as pool:
        yield pool.create()


def documented() -> list[list[str]]:
    """The chapters of docs/commands.md, which a unit test compares with the grammar."""
    return [line.split()[1:] for line in re.findall(r"^## `(.+)`$", COMMANDS_PAGE.read_text(), re.MULTILINE)]


def test_every_command_has_help():
    """Somebody types --help after whatever they see in a list. Expected: words and 0, everywhere."""
    commands = documented()
    assert len(commands) > 30 and ["key", "create"] in commands and ["doctor"] in commands
    for command in commands:
        said = ended(run(*command, "--help"), 0).stdout
        assert f"palm {' '.join(command)}" in said and "--json" in said, said
    assert ended(run("daemon", "--help"), 0).stdout == ended(run("serve", "--help"), 0).stdout


def test_exit_codes_and_what_to_do_next(tmp_path):
    """Commands that cannot work: mistyped, without a peer, with a wrong address or setting. Danger: a script that takes failure for
    success; a person who is told what is wrong and not what to do. Expected: 2 for what is typed or set wrong, 1 for what fails, the
    next step in words, and all of it in one line of JSON with --json."""
    nowhere = tmp_path / "nowhere"
    ended(run(), 2)
    ended(run("dance"), 2)
    assert "similar" in ended(run("serv"), 2).stderr
    ended(run("status", "--admin", "9001", "--data", nowhere), 2)
    assert "palm admin-token" in ended(run("status", "--admin", f"http://{HOST}:1"), 2).stderr
    assert "did you mean PALM_S3__ADDRESS" in ended(run("config", "--print", PALM_S3__ADRESS="x"), 2).stderr
    assert "--yes" in ended(run("leave", "--data", nowhere), 2).stderr, "there is nobody to ask back"

    for command in ["status", "list-members", "invite", "repair", "scrub", "gc --dry-run", "rebalance", "drain", "key list", "bench"]:
        said = ended(run(*command.split(), "--data", nowhere), 1).stderr
        assert "no peer is running in" in said and f"palm serve --data {nowhere}" in said, said
        told = json.loads(ended(run(*command.split(), "--data", nowhere, "--json"), 1).stderr)
        assert "no peer is running in" in told["error"]
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        address = f"{HOST}:{taken.getsockname()[1]}"
        assert f"{address}: Address already in use" in (said := ended(run("serve", "--data", tmp_path / "other", "--s3", address), 1).stderr)
        assert "choose another with --s3" in said
    assert "no peer answers" in ended(run("status", "--admin", f"http://{HOST}:1", "--admin-token", "x"), 1).stderr
    assert "makes it when it starts" in ended(run("admin-token", "--data", nowhere), 1).stderr


def test_everything_speaks_json(lone, tmp_path):
    """A script runs every command that a lone peer obeys. Expected: one JSON object on stdout, 0, and nothing on
    stderr; without --json words, and no colours, as this is no terminal."""
    lone.client().create_bucket(Bucket="kept")
    commands = [
        "status", "status --durability", "list-members", "invite", "approve --all", "key list", "key create --user ann --policy readonly",
        "key policy get --user ann", "role create auditor --policy readonly", "role list", "role delete auditor",
        "bucket quota kept --bytes 1GiB", "bucket quota kept", "repair --dry-run", "repair", "scrub --dry-run", "scrub",
        "rebalance --dry-run", "rebalance", "gc --dry-run", "gc", "drain --undo", "backend list", "doctor", "config --print", "admin-token",
        "discover-pools --timeout 1", "bench --count 40 --objects 8 --size 1KiB --clients 2", f"man {tmp_path}",
    ]
    for command in commands:
        done = ended(run(*command.split(), "--data", lone.data, "--json"), 0)
        assert isinstance(json.loads(done.stdout), dict) and not done.stderr, (command, done.stdout, done.stderr)
    for command in commands:
        plain = ended(run(*command.split(), "--data", lone.data), 0).stdout
        assert plain.strip() and "\x1b" not in plain and not plain.startswith("{"), (command, plain)
    assert (tmp_path / "palm.1").exists() and (tmp_path / "palm-key-create.1").exists()
    keys = lone.ask("key list")["keys"]
    assert not any(key["description"] == "palm bench" for key in keys), "the key made for a benchmark is gone"


def test_work_says_what_it_will_do_first(lone):
    """Expected: the plan, then what came of it; with --dry-run the plan alone."""
    said = ended(run("scrub", "--data", lone.data), 0).stdout
    assert said.startswith("Plan: ") and said.index("to be read and hashed") < said.index("read and hashed,"), said
    assert "read and hashed," not in ended(run("scrub", "--dry-run", "--data", lone.data), 0).stdout


def test_status_is_watched(lone):
    """Expected: a line of JSON, and after a while another, until it is ended."""
    command = [palm_binary(), "status", "--watch", "--json", "--data", lone.data]
    with subprocess.Popen(command, env=peer_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as watching:
        try:
            assert [json.loads(watching.stdout.readline())["members"] for _ in range(2)] == [1, 1]
        finally:
            watching.terminate()


def test_colours_are_for_terminals(lone):
    """Expected: none in a pipe (above), some where they are forced, as on a terminal."""
    assert "\x1b[" in run("list-members", "--data", lone.data, CLICOLOR_FORCE="1").stdout


def test_a_peer_is_commanded_from_elsewhere(lone):
    """The admin endpoint with and without the token. Danger: whoever reaches the port commands the peer. Expected: with the token all that
    the socket does; without, with a wrong one, or for a browser that is led there: 401, and where the token is found."""
    token = ended(run("admin-token", "--data", lone.data), 0).stdout.strip()
    assert (lone.data / "admin.token").stat().st_mode & 0o077 == 0
    url = f"http://{HOST}:{lone.admin_port}"
    there = ["--admin", url, "--admin-token", token]
    assert json.loads(ended(run("status", "--json", *there), 0).stdout)["pool_id"] == lone.pool.id
    assert "read and hashed," in ended(run("scrub", *there), 0).stdout
    assert json.loads(ended(run("invite", "--json", "--admin", url, PALM_ADMIN_TOKEN=token), 0).stdout)["join_token"]
    refused = ended(run("status", "--admin", url, "--admin-token", token[:-1]), 1)
    assert "palm admin-token" in refused.stderr
    for headers in [{}, {"Authorization": token}, {"Authorization": "Bearer "}, {"Cookie": f"token={token}"}]:
        for method, path in [("GET", "/v1/status"), ("POST", "/v1/leave"), ("POST", "/v1/keys")]:
            connection = http.client.HTTPConnection(HOST, lone.admin_port, timeout=COMMAND_TIMEOUT_S)
            with contextlib.closing(connection):
                connection.request(method, path, body="{}", headers=headers | {"Content-Type": "application/json"})
                assert connection.getresponse().status == 401, (method, path, headers)
    assert token not in lone.log.read_text()


def test_doctor_without_a_peer(tmp_path):
    """A machine before its first peer: nothing amiss; then another program at the S3 port, then a wrong setting. Expected: 0, then 1 with
    the flag that mends it, then 1 with the setting."""
    ports = {"PALM_S3__ADDRESS": f"{HOST}:0", "PALM_ADMIN__ADDRESS": f"{HOST}:0"}
    checks = json.loads(ended(run("doctor", "--json", "--data", tmp_path / "new", **ports), 0).stdout)["checks"]
    by_name = {check["name"]: check for check in checks}
    assert by_name.keys() >= {"settings", "directory", "secrets", "open files", "disk sync", "disk room", "peer", "s3 port", "quic port", "multicast"}
    assert all(check["verdict"] in ("ok", "warn") and bool(check["mend"]) == (check["verdict"] != "ok") for check in checks), checks
    assert by_name["multicast"]["found"].startswith("lo "), "only where the settings allow it"
    assert not (tmp_path / "new").exists(), "looking changes nothing"
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        done = ended(run("doctor", "--data", tmp_path / "new", **ports | {"PALM_S3__ADDRESS": f"{HOST}:{taken.getsockname()[1]}"}), 1)
    assert "FAIL" in done.stdout and "--s3" in done.stdout and "1 check failed" in done.stderr
    assert "pool.policy" in ended(run("doctor", "--data", tmp_path, PALM_POOL__POLICY="5-of-3"), 1).stdout


def test_settings_say_where_they_come_from(tmp_path):
    """Expected: the file with its line, the variable, the flag, or that it is the default."""
    file = tmp_path / "palm.toml"
    file.write_text("name = 'attic'\n\n[log]\nlevel = 'debug'\n")
    done = ended(run("config", "--print", "--json", "--config", file, "--data", tmp_path, PALM_S3__REGION="there"), 0)
    origins = {name: setting["origin"] for name, setting in json.loads(done.stdout).items()}
    wanted = {"name": f"{file}:1", "log.level": f"{file}:4", "s3.region": "PALM_S3__REGION", "data": "--data", "scrub.period": "default"}
    assert wanted.items() <= origins.items()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell, tmp_path):
    """Expected: a script that names the commands, and that bash at least can read."""
    script = ended(run("completions", shell), 0).stdout
    assert "create-pool" in script and "discover-pools" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_systemd_hears_how_a_peer_is(tmp_path):
    """A peer under systemd (Type=notify, WatchdogSec=), played by a socket. Expected: READY only when it serves, WATCHDOG again and again,
    STOPPING at SIGTERM, and 0."""
    with Pool(tmp_path) as pool, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        path = tmp_path / "notify"
        systemd.bind(str(path))
        systemd.settimeout(COMMAND_TIMEOUT_S)
        peer = pool.new_peer()
        peer.environment |= {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"}
        peer.create_pool("watched")
        heard = [systemd.recv(1000).decode() for _ in range(3)]
        assert "READY=1" in heard[0] and "Serving pool watched" in heard[0], heard
        assert all("WATCHDOG=1" in beat for beat in heard[1:]), heard
        peer.process.send_signal(signal.SIGTERM)
        eventually(lambda: "STOPPING=1" in systemd.recv(1000).decode(), COMMAND_TIMEOUT_S, "the peer says that it stops", every_s=0)
        assert peer.wait_ended() == 0


def test_a_stopped_peer_finishes_what_it_began(tmp_path):
    """SIGTERM in the middle of an upload. Danger: a client's upload cut off by every restart. Expected: no new connections, the upload goes on
    to its 200, the peer ends with 0, and the object is there when it is started again."""
    data = os.urandom(512 * KIB)
    with Pool(tmp_path) as pool:
        peer = pool.create()
        peer.client().create_bucket(Bucket="slow")
        url = peer.client().generate_presigned_url("put_object", Params={"Bucket": "slow", "Key": "upload"})
        upload = http.client.HTTPConnection(HOST, peer.s3_port, timeout=COMMAND_TIMEOUT_S)
        with contextlib.closing(upload):
            parts = urllib.parse.urlsplit(url)
            upload.putrequest("PUT", f"{parts.path}?{parts.query}")
            upload.putheader("Content-Length", str(len(data)))
            # The peer says when it begins to read the body.
            upload.putheader("Expect", "100-continue")
            upload.endheaders()
            assert upload.sock.recv(1000).startswith(b"HTTP/1.1 100 ")
            upload.send(data[: len(data) // 2])
            peer.process.send_signal(signal.SIGTERM)

            def refuses() -> bool:
                with socket.socket() as probe:
                    return probe.connect_ex((HOST, peer.s3_port)) != 0

            eventually(refuses, COMMAND_TIMEOUT_S, "the stopping peer takes no new connections")
            assert peer.up, "it waits for the upload"
            upload.send(data[len(data) // 2 :])
            assert upload.getresponse().status == 200
        assert peer.wait_ended() == 0
        peer.start()
        assert peer.client().get_object(Bucket="slow", Key="upload")["Body"].read() == data


def test_status_tells_the_whole_truth(new_pool, rng):
    """Five peers, 3-of-5: one is killed, all fragments on the disk of another are overwritten, a sixth asks to be let in; repair is slow. Expected:
    what may still be lost, the repair and how long it takes, where the damage is, who is away, who waits and how to let it in, and how many
    objects are how safe: in under ten lines, in words and in figures."""
    pool = new_pool(5, "3-of-5", settings=QUICK | {"repair.bandwidth": "10KiB"})
    contents = Contents(pool, rng)
    contents.fill(0, (256 * KIB,) * 40)
    pool.make_whole(300)
    asked, spoilt, killed = pool.peers[0], pool.peers[1], pool.peers[4]
    killed.kill()
    for path in (path for disk in spoilt.disks for path in (disk / "files").rglob("*") if path.is_file()):
        with path.open("r+b") as fragment:
            fragment.write(os.urandom(KIB))
    applicant = pool.new_peer()
    applicant.spawn_join(pool.id, asked.quic_address, None)
    applicant.wait_event("waiting")
    spoilt.ask("scrub")

    wanted = [
        r"^You can lose (no|1) more peer",
        r"^Repairing \d+ segments? \([\d.]+ \w+\) at [\d.]+ \w+/s, \d+ (s|min|h|days) left\.$",
        rf"^\d+ fragments? found damaged or missing at {spoilt.name}, to be replaced\.$",
        rf"^(Voter|Member) {killed.name} has been absent for ",
        rf"^{applicant.name} waits to be let in: `palm approve [0-9a-z]+`",
        r"^(AT RISK: )?40 objects|^\d+ objects? \([\d.]+ \w+\) at reduced redundancy",
        r"^Pool  test \(.+\): 4 of 5 members live",
    ]
    seen: dict[str, object] = {}

    def told() -> bool:
        text = ended(run("status", "--data", asked.data), 0).stdout
        lacking = [line for line in wanted if not re.search(line, text, re.MULTILINE)]
        seen.update(text=text, lacking=lacking)
        return not lacking and "Not counted" not in text

    try:
        eventually(told, 90, "status tells everything", every_s=0.5)
    except AssertionError:
        pytest.fail(f"{seen['lacking']} is not in\n{seen['text']}")
    print(seen["text"])
    assert len(seen["text"].splitlines()) < STATUS_LINES, seen["text"]

    status = asked.status()
    assert [one["name"] for one in status["absent"]] == [killed.name]
    assert [one["peer_id"] for one in status["waiting"]] == [json.loads(applicant.events.read_text().splitlines()[0])["peer_id"]]
    assert [one["name"] for one in status["damaged"]] == [spoilt.name] and status["health"]["damaged_here"] > 0
    checks = {check["name"]: check for check in json.loads(ended(run("doctor", "--json", "--data", asked.data), 0).stdout)["checks"]}
    assert checks["pool"]["verdict"] == "warn" and killed.name in checks["pool"]["found"]
    assert checks["clock"]["verdict"] in ("ok", "warn") and checks["versions"]["verdict"] == "ok"
    # The beginning of the id that status shows is enough to let the applicant in.
    approve = re.search(r"palm approve (\w+)", seen["text"])[1]
    ended(run("approve", approve, "--data", asked.data), 0)
    applicant.wait_ready()
