"""The console's pictures for docs/images: a pool at work, by day and by night, on a desk and on a telephone (`make pictures`)."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import random
import sys
import tempfile
import time

from console import chromium
from palm_cluster import QUICK, Pool

NAMES = ["kitchen", "attic", "laptop-anna", "pi-garage", "office", "bedroom"]
SHAPES = {"desktop": (1280, 1060), "phone": (360, 780)}
# Enough samples for the charts.
WORK_SECONDS = 90


def work(pool: Pool, seconds: float) -> None:
    """Clients come and go for a while."""
    client = pool.peers[0].client()
    client.create_bucket(Bucket="photos")
    bodies = {f"2026/summer/beach-{at:02}.jpg": os.urandom(random.randint(200_000, 3_000_000)) for at in range(24)}
    bodies |= {f"2026/winter/snow-{at:02}.jpg": os.urandom(random.randint(200_000, 1_000_000)) for at in range(9)}
    bodies |= {"2026/list of what to take.txt": b"a towel", "2026/film of the island.mkv": os.urandom(20 << 20)}
    for key, body in bodies.items():
        client.put_object(Bucket="photos", Key=key, Body=body)
    ends = time.monotonic() + seconds
    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        while time.monotonic() < ends:
            keys = random.choices(list(bodies)[:33], k=random.randint(2, 30))
            list(clients.map(lambda key: client.get_object(Bucket="photos", Key=key)["Body"].read(), keys))
            client.put_object(Bucket="photos", Key=(key := random.choice(keys)), Body=bodies[key])
            time.sleep(random.random())


def main(into: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as place, Pool(pathlib.Path(place), "home", QUICK) as pool:
        for name in NAMES:
            pool.new_peer().environment["PALM_NAME"] = name
        founder, *others, last = pool.peers
        founder.create_pool("home")
        pool.id, pool.access_key, pool.secret_key = (founder.ready[key] for key in ("pool_id", "access_key", "secret_key"))
        for peer in others:
            peer.spawn_join(pool.id, founder.quic_address, founder.invite())
            peer.wait_ready()
        pool.wait_live(5)
        founder.ask("key", "create", "--description", "nightly backup of the office")
        work(pool, WORK_SECONDS)
        pool.wait_full(120)
        last.spawn_join(pool.id, founder.quic_address, None)
        last.wait_event("waiting")
        with chromium() as browser:
            for scheme in ["light", "dark"]:
                for shape, (width, height) in SHAPES.items():
                    context = browser.new_context(
                        base_url=f"http://127.0.0.1:{founder.admin_port}", viewport={"width": width, "height": height}, color_scheme=scheme,
                    )
                    page = context.new_page()
                    page.goto("/")
                    page.get_by_label("Access key").fill(pool.access_key)
                    page.get_by_label("Secret key").fill(pool.secret_key)
                    page.get_by_role("button", name="Log in").click()
                    page.get_by_role("heading", name="Objects").wait_for()
                    for name, at in {"overview": "", "peers": "peers", "buckets": "buckets/photos/2026/", "keys": "keys"}.items():
                        page.goto(f"/console/#/{at}")
                        page.get_by_role("heading").first.wait_for()
                        page.wait_for_timeout(1500)
                        page.screenshot(path=into / f"console-{name}-{shape}-{scheme}.png")
                    context.close()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
