"""The console: what its API lets whom do, and whether people get on with it, in a real browser."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest

from console import Console, chromium
from palm_cluster import QUICK, Pool, eventually, s3_client

pytestmark = [pytest.mark.own_pool, pytest.mark.palm]

PAGE_TIMEOUT_MS = 60_000
MIB = 1 << 20
# What Vite needs.
NODE = 20
# Set to a directory, tests leave pictures there: docs/images is made so.
PICTURES = os.environ.get("PALM_PICTURES")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with Pool.form(tmp_path_factory.mktemp("console"), 3, name="home", settings=QUICK) as pool:
        yield pool


@pytest.fixture
def console(pool) -> Console:
    """Logged in with the root key."""
    console = Console(pool.peers[0])
    assert console.login(pool.access_key, pool.secret_key)[0] == 200
    return console


def user_key(pool, tmp_path, *statements) -> tuple[str, str]:
    """The key of a user who may do what the statements say."""
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))
    key = pool.peers[0].ask("key", "create", "--user", f"u{tmp_path.name[-20:]}", "--policy", str(path))
    return key["access_key"], key["secret_key"]


# -- the API


def test_nothing_without_a_session(pool):
    """Somebody reaches the port. Danger: they see or change something. Expected: 401 everywhere but on the pages' own files."""
    stranger = Console(pool.peers[0])
    for method, path in [
        ("GET", "/console/api/session"), ("GET", "/console/api/history"), ("POST", "/console/api/share"),
        ("GET", "/console/api/v1/status"), ("GET", "/console/api/v1/keys"), ("POST", "/console/api/v1/keys"),
        ("POST", "/console/api/v1/invite"), ("GET", "/console/s3/"), ("PUT", "/console/s3/bucket"),
        ("GET", "/console/s3/bucket/key?X-Amz-Signature=00"),
    ]:
        assert stranger.ask(method, path, {} if method == "POST" else None)[0] == 401, path
    stranger.cookie = f"palm_{pool.peers[0].id[:12]}={'0' * 64}"
    assert stranger.ask("GET", "/console/api/session")[0] == 401
    assert stranger.ask("GET", "/")[1]["location"] == "/console/"
    for path in ["/console/", "/console/console.js", "/console/console.css", "/console/icon.svg"]:
        status, headers, body = stranger.ask("GET", path)
        assert (status, bool(body)) == (200, True), path
        again = stranger.ask("GET", path, headers={"if-none-match": headers["etag"]})
        assert (again[0], again[2]) == (304, b"")


def test_every_answer_is_guarded(console):
    """Pages, files, JSON, refusals and objects. Danger: one answer without its rules lets a page do what it should not. Expected: the
    rules on all of them, and on objects the strictest."""
    for method, path, status in [
        ("GET", "/console/", 200), ("GET", "/console/console.js", 200), ("GET", "/console/nothing", 404), ("GET", "/", 303),
        ("GET", "/console/api/session", 200), ("GET", "/console/api/v1/status", 200), ("POST", "/console/api/v1/leave", 404),
        ("POST", "/console/api/login", 422), ("GET", "/console/s3/", 200), ("GET", "/console/s3/no-such-bucket", 404),
    ]:
        got, headers, _ = console.ask(method, path, {} if method == "POST" else None)
        assert got == status, path
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert ("sandbox" in policy) == path.startswith("/console/s3/")
        assert headers["cache-control"] == ("no-cache" if status == 200 and path.startswith("/console/c") or path == "/console/" else "no-store")


def test_cookies_and_the_end_of_sessions(pool, console):
    """The cookie is all that a browser keeps. Danger: scripts read it, other sites send it, it outlives its session. Expected: HttpOnly,
    SameSite, Secure behind TLS, and void after logging out."""
    fresh = Console(pool.peers[0])
    status, headers, body = fresh.login(pool.access_key, pool.secret_key)
    flags = {flag.strip() for flag in headers["set-cookie"].split(";")[1:]}
    assert status == 200 and {"HttpOnly", "SameSite=Strict", "Path=/console/"} <= flags and "Secure" not in flags
    assert pool.secret_key not in body.decode() and json.loads(body)["administrator"] is True
    login = {"access_key": pool.access_key, "secret_key": pool.secret_key}
    tls = fresh.ask("POST", "/console/api/login", login, {"x-forwarded-proto": "https"})
    assert "Secure" in tls[1]["set-cookie"]
    assert fresh.ask("POST", "/console/api/logout", {})[0] == 204
    assert fresh.ask("GET", "/console/api/session")[0] == 401
    assert console.ask("GET", "/console/api/session")[0] == 200, "another session goes on"
    elsewhere = Console(pool.peers[1])
    elsewhere.cookie = console.cookie
    assert elsewhere.ask("GET", "/console/api/session")[0] == 401, "a session belongs to one peer"


def test_wrong_keys_and_guessing(pool):
    """Somebody guesses. Danger: the answer helps, or guessing is free. Expected: one answer for wrong id and wrong secret, then a limit,
    which does not end sessions that are open."""
    inside = Console(pool.peers[2])
    assert inside.login(pool.access_key, pool.secret_key)[0] == 200
    guesser = Console(pool.peers[2])
    answers = {guesser.login(*key)[::2] for key in [(pool.access_key, "wrong"), ("PALMNOSUCHKEY", "wrong"), (pool.access_key, "")]}
    assert len(answers) == 1 and answers.pop()[0] == 401
    assert any(guesser.login(pool.access_key, "wrong")[0] == 429 for _ in range(60))
    # An attempt is given back every few seconds, perhaps just now.
    assert 429 in [guesser.login(pool.access_key, pool.secret_key)[0] for _ in range(2)]
    assert inside.ask("GET", "/console/api/session")[0] == 200


def test_other_sites_change_nothing(pool, console):
    """A page elsewhere makes the browser send requests here. Danger: cross-site request forgery. Expected: no change without the
    pages' own mark and this origin."""
    here = f"http://127.0.0.1:{pool.peers[0].admin_port}"
    for path in ["/console/api/v1/invite", "/console/api/logout", "/console/api/login", "/console/s3/csrf-bucket"]:
        method = "PUT" if "s3" in path else "POST"
        assert console.ask(method, path, {}, own=False)[0] == 403, path
        for headers in [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}]:
            assert console.ask(method, path, {}, headers)[0] == 403, (path, headers)
    assert console.ask("POST", "/console/api/v1/invite", {"expires_seconds": 60}, {"origin": here, "sec-fetch-site": "same-origin"})[0] == 200
    assert console.ask("GET", "/console/s3/", headers={"sec-fetch-dest": "script"})[0] == 403


def test_keys_open_what_they_open_in_s3(pool, console, tmp_path):
    """A user who may read one bucket logs in. Danger: the console is a way around policies, or up to administration. Expected: exactly what
    S3 grants that key, no administration, and nothing once the key is revoked."""
    for bucket in ["theirs", "others"]:
        assert console.ask("PUT", f"/console/s3/{bucket}")[0] == 200
        assert console.ask("PUT", f"/console/s3/{bucket}/key", b"bytes")[0] == 200
    resources = ["arn:aws:s3:::theirs", "arn:aws:s3:::theirs/*"]
    key = user_key(pool, tmp_path, {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": resources})
    user = Console(pool.peers[1])
    status, _, body = user.login(*key)
    assert status == 200 and json.loads(body)["administrator"] is False
    assert user.ask("GET", "/console/s3/theirs/key")[::2] == (200, b"bytes")
    assert user.ask("GET", "/console/s3/others/key")[0] == 403
    assert user.ask("PUT", "/console/s3/theirs/new", b"")[0] == 403
    assert user.ask("DELETE", "/console/s3/theirs/key")[0] == 403
    assert user.ask("GET", "/console/api/v1/status")[0] == 200
    for path in ["keys", "invite", "approve", "refuse", "members/evict", "keys/revoke", "keys/enable", "tasks", "buckets/quota", "drain/undo"]:
        assert user.ask("POST", f"/console/api/v1/{path}", {})[0] == 403, path
    assert user.ask("GET", "/console/api/v1/keys")[0] == 403
    # A made-up signature and another's token change nothing about who asks.
    forged = {"authorization": f"AWS4-HMAC-SHA256 Credential={pool.access_key}/20260101/us-east-1/s3/aws4_request", "x-amz-security-token": "t"}
    assert user.ask("GET", "/console/s3/others/key", headers=forged)[0] == 403
    pool.peers[0].ask("key", "revoke", key[0])
    eventually(lambda: user.ask("GET", "/console/api/session")[0] == 401, 30, "the revoked key's session is void")


def test_commands_that_stay_at_the_command_line(console):
    """The root key at the console. Danger: one click loses data, or a path reaches what was not meant. Expected: no such command."""
    for path in ["leave", "recover", "identity", "../v1/leave", "%2e%2e/leave", "keys/../leave", "v1/leave", ""]:
        assert console.ask("POST", f"/console/api/v1/{path}", {})[0] in (400, 404, 405), path
    for path in ["/console/../admin.sock", "/console/%2e%2e/palm", "/console/assets/../../Cargo.toml", "/console/console.js/"]:
        assert console.ask("GET", path)[0] in (400, 404), path


def test_objects_come_as_files_and_never_as_pages(console):
    """An object is a web page with a script, its key full of signs. Danger: shown in the console's origin it acts for who looks. Expected:
    the bytes, as a download in a sandbox, whatever type the object claims; and a key is never another key."""
    assert console.ask("PUT", "/console/s3/pages")[0] == 200
    evil = b"<script>fetch('/console/api/v1/keys')</script>"
    kept = {"content-type": "text/html", "cache-control": "public"}
    for path in ["pages/evil.html", "pages/a/../b", "pages/%2e%2e/x", "pages/%F0%9F%8C%B4/a%22b%3B.html"]:
        assert console.ask("PUT", f"/console/s3/{path}", evil, kept)[0] == 200, path
        status, headers, body = console.ask("GET", f"/console/s3/{path}")
        assert (status, body) == (200, evil)
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
        assert headers["cache-control"] == "no-store", "another who uses this browser, or a proxy, gets it from no cache"
        assert re.fullmatch(r"attachment; filename\*=UTF-8''[A-Za-z0-9%._~!$&+-]+", headers["content-disposition"])
    assert console.ask("GET", "/console/s3/pages/b")[0] == 404
    part = console.ask("GET", "/console/s3/pages/evil.html", headers={"range": "bytes=1-6"})
    assert part[::2] == (206, b"script")


def test_shared_links_are_what_sdks_make(pool, console):
    """A link for somebody without a key. Danger: it opens more than one object, or for longer. Expected: it GETs that object and is void
    otherwise."""
    assert console.ask("PUT", "/console/s3/shares")[0] == 200
    key = "a folder/ü+&=?.txt"
    body = b"shared bytes"
    client = pool.peers[1].client()
    client.put_object(Bucket="shares", Key=key, Body=body)
    status, _, told = console.ask("POST", "/console/api/share", {"bucket": "shares", "key": key, "seconds": 60})
    assert status == 200
    url = json.loads(told)["url"]
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.read() == body
    for wrong in [url.replace("a%20folder", "b%20folder"), url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"), url[:-1] + ("0" if url[-1] != "0" else "1")]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(wrong, timeout=60)
        assert refused.value.code == 403
    for seconds in [0, 604_801]:
        assert console.ask("POST", "/console/api/share", {"bucket": "shares", "key": key, "seconds": seconds})[0] == 400


def test_links_of_a_peer_without_s3(tmp_path):
    """A member that only stores has a console, too. Danger: its links lead to a port where nobody listens. Expected: they lead to a member that
    serves S3; while there is none, no link, and words that say why."""
    with Pool(tmp_path / "pool", settings=QUICK | {"s3.enabled": "false"}) as pool:
        console = Console(pool.create())
        assert console.login(pool.access_key, pool.secret_key)[0] == 200
        assert console.ask("PUT", "/console/s3/shares")[0] == console.ask("PUT", "/console/s3/shares/key", b"bytes")[0] == 200
        endpoint = lambda: json.loads(console.ask("GET", "/console/api/session")[2])["s3"]  # noqa: E731
        wish = {"bucket": "shares", "key": "key", "seconds": 60}
        status, _, told = console.ask("POST", "/console/api/share", wish)
        assert (endpoint(), status) == (None, 503) and "serves S3" in json.loads(told)["error"]
        del pool.environment["PALM_S3__ENABLED"]
        server = pool.join()
        eventually(lambda: endpoint() == server.endpoint, 30, "the console knows who serves S3")
        url = json.loads(console.ask("POST", "/console/api/share", wish)[2])["url"]
        assert url.startswith(f"{server.endpoint}/shares/key?")
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.read() == b"bytes"


def test_large_bodies_pass_through(pool, console):
    """96 MiB up and down through the console. Danger: the peer holds them in memory. Expected: the same bytes, and memory that does not grow
    by them."""
    peer = pool.peers[0]
    assert console.ask("PUT", "/console/s3/large")[0] == 200
    before = peer.peak_memory_bytes()
    block = os.urandom(MIB)
    whole = block * 96
    assert console.ask("PUT", "/console/s3/large/object", whole)[0] == 200
    status, _, got = console.ask("GET", "/console/s3/large/object")
    assert status == 200 and hashlib.sha256(got).digest() == hashlib.sha256(whole).digest()
    # What a front end may buffer for one body is far less.
    assert peer.peak_memory_bytes() - before < 80 * MIB
    assert console.ask("DELETE", "/console/s3/large/object")[0] == 204


def test_the_pages_are_what_their_sources_give(tmp_path):
    """The built pages are in the repository, so that cargo needs no npm. Danger: they and their sources drift apart, or hold what nobody wrote.
    Expected: a fresh build gives the same bytes."""
    node = shutil.which("npm") and subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if not node or int(node.strip("v").split(".")[0]) < NODE:
        pytest.skip(f"npm with Node.js {NODE} or later is not installed")
    source = pathlib.Path(__file__).parents[2] / "src/palm/console"
    place = tmp_path / "console"
    shutil.copytree(source, place, ignore=shutil.ignore_patterns("node_modules", "dist"))
    for command in ["npm ci --no-fund --no-audit --prefer-offline --fetch-retries=5", "npm run build"]:
        done = subprocess.run(command.split(), cwd=place, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    files = {path.name: path.read_bytes() for path in (place / "dist").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (source / "dist").iterdir()}, "run `make console` and commit src/palm/console/dist"


# -- people


class Watched:
    """A page whose every complaint is kept: errors in the console, refused by the policy, thrown by scripts."""

    def __init__(self, browser, peer, **options):
        self.context = browser.new_context(base_url=f"http://127.0.0.1:{peer.admin_port}", accept_downloads=True, **options)
        self.context.set_default_timeout(PAGE_TIMEOUT_MS)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._heard)

    def _heard(self, message) -> None:
        # A refusal that the page expects (no session yet) is no complaint.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def login(self, pool) -> None:
        self.page.goto("/")
        self.page.get_by_label("Access key").fill(pool.access_key)
        self.page.get_by_label("Secret key").fill(pool.secret_key)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_role("heading", name="Objects").wait_for()

    def picture(self, name: str) -> None:
        if PICTURES:
            self.page.wait_for_timeout(400)
            self.page.screenshot(path=pathlib.Path(PICTURES) / f"{name}.png")

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def test_a_day_at_the_console(pool, browser, tmp_path):
    """Somebody logs in, refuses a peer and lets it in when it asks again, stores a file and a large one, gets one back, shares it, makes a key, and
    sees a peer die. Expected: all of it works, progress shows, and the browser has nothing to complain of."""
    founder = pool.peers[0]
    watched = Watched(browser, founder, viewport={"width": 1280, "height": 900})
    page = watched.page
    page.goto("/")
    page.get_by_label("Access key").fill(pool.access_key)
    page.get_by_label("Secret key").fill("not the secret")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").filter(has_text="no such access key").wait_for()
    watched.login(pool)
    page.get_by_text(re.compile("You can lose 1 more peer")).wait_for()

    joiner = pool.new_peer()
    joiner.spawn_join(pool.id, founder.quic_address, None)
    page.get_by_role("link", name="Look").click()
    page.get_by_role("button", name=f"Refuse {joiner.name}").click()
    page.get_by_role("dialog").get_by_role("button", name="Refuse").click()
    assert joiner.wait_ended() == 1
    page.get_by_role("button", name=f"Approve {joiner.name}").wait_for(state="detached")
    joiner.spawn_join(pool.id, founder.quic_address, None)
    page.get_by_role("button", name=f"Approve {joiner.name}").click()
    joiner.wait_ready()
    page.get_by_role("heading", name=joiner.name).wait_for()
    pool.wait_live(4)

    page.get_by_role("button", name="Invite a peer").click()
    page.get_by_role("button", name="Make an invitation").click()
    assert f"palm join-pool --pool-id {pool.id} --coordinator " in page.get_by_label("Command to join").input_value()
    assert page.get_by_alt_text("The command as a QR code").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.get_by_role("button", name="Close").click()

    # Asked before it begins, and undone by who looks again later.
    page.get_by_role("button", name="Drain", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Drain", exact=True).click()
    page.get_by_role("button", name="Take fragments again").wait_for()
    page.reload()
    page.get_by_role("button", name="Take fragments again").click()
    page.get_by_role("button", name="Drain", exact=True).wait_for()

    page.get_by_role("link", name="Buckets").click()
    page.get_by_role("button", name="Create a bucket").click()
    page.get_by_label("Name").fill("photos")
    page.get_by_role("button", name="Create", exact=True).click()
    page.get_by_role("link", name="photos").click()
    page.get_by_text("There is nothing here yet").wait_for()
    small, large = tmp_path / "palm & tree (1).jpg", tmp_path / "film.mkv"
    small.write_bytes(os.urandom(300_000))
    large.write_bytes(os.urandom(MIB) * 70)
    page.get_by_label("Upload files").set_input_files([small, large])
    page.get_by_role("progressbar", name="Sent of film.mkv").wait_for()
    page.get_by_text("Uploads ended").wait_for()
    stored = founder.client().get_object(Bucket="photos", Key=large.name)
    assert "-3" in stored["ETag"], "in parts"
    assert hashlib.sha256(stored["Body"].read()).digest() == hashlib.sha256(large.read_bytes()).digest()
    with page.expect_download() as download:
        page.get_by_role("link", name=small.name).click()
    assert download.value.suggested_filename == small.name
    assert pathlib.Path(download.value.path()).read_bytes() == small.read_bytes()

    page.get_by_role("button", name=f"Share {small.name}").click()
    page.get_by_role("button", name="Make a link").click()
    with urllib.request.urlopen(page.get_by_label("Link", exact=True).input_value(), timeout=60) as shared:
        assert shared.read() == small.read_bytes()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Delete film.mkv").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("link", name="film.mkv").wait_for(state="detached")

    page.get_by_role("link", name="Keys").click()
    page.get_by_role("button", name="Create a key").click()
    page.get_by_label("What it is for").fill("backup")
    page.get_by_label("It may").select_option("read")
    page.get_by_label("Bucket", exact=True).fill("photos")
    page.get_by_role("button", name="Create", exact=True).click()
    made = [page.get_by_label(label, exact=True).input_value() for label in ("Access key", "Secret key")]
    page.get_by_role("button", name="Close").click()
    page.get_by_text("backup").wait_for()
    reader = s3_client(founder.endpoint, *made)
    assert reader.get_object(Bucket="photos", Key=small.name)["Body"].read() == small.read_bytes()
    with pytest.raises(reader.exceptions.ClientError):
        reader.delete_object(Bucket="photos", Key=small.name)

    joiner.kill()
    page.get_by_role("link", name="Peers").click()
    page.locator("section", has=page.get_by_role("heading", name=joiner.name)).get_by_text("absent", exact=True).wait_for()
    page.get_by_role("link", name="Overview").click()
    page.get_by_label("3 of 4 peers live").wait_for()
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="Log in").wait_for()
    watched.close()


def test_everybody_can_use_it(pool, browser):
    """By keyboard, with a screen reader, on a telephone of 360 px, by day and by night. Expected: axe finds nothing on any page, nothing is wider
    than the screen, and the pages are as they should look (PALM_PICTURES keeps what they look like)."""
    axe = pathlib.Path(pytest.importorskip("axe_playwright_python", reason="axe-core is not installed (make setup does)").__file__)
    axe = (axe.parent / "axe.min.js").read_text()
    founder = pool.peers[0]
    client = founder.client()
    if "holiday" not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket="holiday")
        for at in range(12):
            client.put_object(Bucket="holiday", Key=f"2026/beach-{at:02}.jpg", Body=os.urandom(40_000 * (at + 1)))
        client.put_object(Bucket="holiday", Key="list of what to take.txt", Body=b"a towel")
    shapes = {"desktop": {"width": 1280, "height": 860}, "phone": {"width": 360, "height": 740}}
    seen = [("light", "desktop"), ("dark", "phone")] + ([("dark", "desktop"), ("light", "phone")] if PICTURES else [])
    for scheme, shape in seen:
        watched = Watched(browser, founder, viewport=shapes[shape], color_scheme=scheme)
        watched.login(pool)
        page = watched.page
        for name, place, landmark in [
            ("overview", "", "Pool"), ("peers", "peers", "Peers"), ("buckets", "buckets/holiday/2026/", "holiday"), ("keys", "keys", "Keys"),
        ]:
            page.goto(f"/console/#/{place}")
            page.get_by_role("main").get_by_text(landmark, exact=True).first.wait_for()
            page.wait_for_load_state("networkidle")
            page.evaluate(axe)
            found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
            assert not found, [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
            assert page.evaluate("document.documentElement.scrollWidth") <= shapes[shape]["width"], f"{name} is wider than the {shape}"
            watched.picture(f"console-{name}-{shape}-{scheme}")
        watched.close()
