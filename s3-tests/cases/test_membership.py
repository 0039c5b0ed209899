"""Members that come, go, are sent away and die for ever, and the voters that change with them (LEDGER.md R8), with real peers."""

import concurrent.futures
import contextlib
import random
import shutil
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError

import samples
from palm_cluster import CommandFailed, Peer, Pool, eventually
from samples import KIB

pytestmark = pytest.mark.own_pool

GRACE_S = 3
SETTINGS = {"members.grace": f"{GRACE_S}s"}
CHANGE_TIMEOUT_S = 60
OUTAGE_LIMIT_S = 10


def ids(peers: list[Peer]) -> set[str]:
    return {peer.id for peer in peers}


def wait_voters(pool: Pool, expected: set[str]) -> None:
    """Until every living peer knows exactly these voters."""
    for peer in pool.up:
        eventually(lambda peer=peer: peer.voters() == expected, CHANGE_TIMEOUT_S, f"{peer.name} sees the voters {expected}", every_s=0.3)


def fill(pool: Pool, count: int, bucket: str = "kept") -> dict[str, bytes]:
    clients = [peer.client() for peer in pool.up]
    clients[0].create_bucket(Bucket=bucket)
    objects = {f"{number:03}": samples.blob(number * 997 % (40 * KIB), number) for number in range(count)}
    for number, (key, data) in enumerate(objects.items()):
        clients[number % len(clients)].put_object(Bucket=bucket, Key=key, Body=data)
    pool.make_whole()
    return objects


def assert_kept(pool: Pool, objects: dict[str, bytes], bucket: str = "kept") -> None:
    for peer in pool.up:
        client = peer.client()
        for key, data in objects.items():
            assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == data, f"{key} at {peer.name}"
        assert [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", [])] == sorted(objects)


def wait_level(peer: Peer) -> None:
    """Until its copy of the metadata was compared with a voter's twice: the first comparison may have begun before."""
    level = lambda: peer.metrics()["palm_ledger_level_timestamp_seconds"]  # noqa: E731
    for _ in range(2):
        eventually(lambda before=level(): level() > before, CHANGE_TIMEOUT_S, f"{peer.name} is level", every_s=0.5)


def refused(peer: Peer, command: str, *args: str, code: int = 1) -> str:
    """The command must fail with that code; what it says."""
    with pytest.raises(CommandFailed) as caught:
        peer.ask(command, *args)
    assert caught.value.code == code, caught.value
    return caught.value.stderr


# -- voters


def test_a_dead_voter_is_replaced(new_pool):
    """Four members, three of them voters; a voter dies. Danger: a majority that can lose no more, for ever. Expected: status says who is
    absent and what becomes of it; after the grace the learner votes, so that another voter may die; the dead one comes back as a learner
    and tells the same as everyone."""
    # Each peer begins to count when it misses the dead one: time to be asked while all of them do.
    pool = new_pool(4, "2-of-4", settings={"members.grace": "10s"})
    objects = fill(pool, 12)
    voters = pool.peers[0].voters()
    learner = next(peer for peer in pool.peers if peer.id not in voters)
    first, second, last = [peer for peer in pool.peers if peer.id in voters]
    first.kill()
    status = eventually(lambda: (told := last.ask("status"))["voters_absent"] and told, 20, "status tells the absent voter")
    absent = status["voters_absent"][0]
    assert (absent["peer_id"], status["voters"], status["voters_live"]) == (first.id, 3, 2)
    assert absent["replaced_in_seconds"] is not None and any("has been absent for" in words for words in status["words"])
    wait_voters(pool, ids([learner, second, last]))
    assert last.ask("status")["voters_absent"] == []
    second.kill()
    client = learner.client(read_timeout=20)
    eventually(lambda: succeeds(lambda: client.create_bucket(Bucket="after")), 20, "two of the three new voters are a majority")
    assert_kept(pool, objects)
    first.start()
    eventually(lambda: first.voters() == last.voters() != set(), CHANGE_TIMEOUT_S, "the returned peer knows the voters")
    wait_voters(pool, ids([first, learner, last]))
    assert_kept(pool, objects)
    assert [entry["Name"] for entry in first.client().list_buckets()["Buckets"]] == ["after", "kept"]


def succeeds(attempt) -> bool:
    with contextlib.suppress(ClientError, BotoCoreError):
        attempt()
        return True
    return False


def test_votes_lapse_without_learners(new_pool):
    """Two of five voters die for ever and there is nobody to take their places. Danger: a third death stops the pool though two are left of
    three. Expected: three voters after the grace; then one more may die. Back again, all five vote."""
    pool = new_pool(5, settings=SETTINGS)
    for victim in pool.peers[3:]:
        victim.kill()
    wait_voters(pool, ids(pool.peers[:3]))
    pool.peers[0].kill()
    client = pool.peers[1].client(read_timeout=20)
    eventually(lambda: succeeds(lambda: client.create_bucket(Bucket="two-left")), 20, "two of three voters are a majority")
    for peer in [pool.peers[0], *pool.peers[3:]]:
        peer.start()
    wait_voters(pool, ids(pool.peers))
    assert [entry["Name"] for entry in pool.peers[4].client().list_buckets()["Buckets"]] == ["two-left"]


# -- members


def test_an_evicted_peer_stays_outside(new_pool):
    """A member is evicted while it serves, another while it is off. Expected: objects are read and written at the others, which count three
    members and three voters; each evicted peer ends with 1 and says why, at once or when it comes back, and cannot join again."""
    pool = new_pool(5, "2-of-5", settings=SETTINGS)
    objects = fill(pool, 12)
    founder, served, off = pool.peers[0], pool.peers[1], pool.peers[2]
    assert "never" not in refused(founder, "evict", served.id, code=2), "nobody to ask, and no --yes"
    assert "no member" in refused(founder, "evict", "nobody", "--yes")
    assert "leave" in refused(founder, "evict", founder.id, "--yes")
    assert founder.ask("evict", served.id[:12], "--yes", "--reason", "sold on the market") == {"evicted": served.id, "votes_still": False}
    assert served.wait_ended() == 1
    assert "sold on the market" in served.log.read_text()
    off.kill()
    pool.wait_live(3)
    assert founder.ask("evict", off.name, "--yes")["votes_still"] is False
    wait_voters(pool, ids(pool.up))
    status = founder.ask("status")
    assert (status["members"], status["members_live"], status["voters"]) == (3, 3, 3)
    for peer in (served, off):
        peer.spawn("serve", "--quic", peer.quic_address)
        assert peer.wait_ended() == 1 and "evicted" in peer.log_tail()
    assert_kept(pool, objects)
    founder.client().put_object(Bucket="kept", Key="new", Body=b"new")
    fresh = pool.join()
    pool.wait_live(4)
    assert_kept(pool, objects | {"new": b"new"})
    fresh.assert_up()


def test_no_eviction_without_a_majority_left(new_pool):
    """Three members, one of them off. Danger: evicting another leaves one of two voters, and a pool that stands still. Expected: refused
    in words; the one that is off can be evicted, and then the other."""
    pool = new_pool(3, "1-of-3")
    keeper, live, off = pool.peers
    off.kill()
    pool.wait_live(2)
    assert "majority" in refused(keeper, "evict", live.id, "--yes")
    keeper.ask("evict", off.id, "--yes")
    eventually(lambda: len(keeper.voters()) == 1, CHANGE_TIMEOUT_S, "two members have one voter")
    voter, other = sorted([keeper, live], key=lambda peer: peer.id not in keeper.voters())
    voter.ask("evict", other.id, "--yes")
    assert other.wait_ended() == 1
    assert "only member" in refused(voter, "leave", "--yes", "--force")


def test_a_member_leaves(new_pool):
    """A voter that keeps fragments leaves. Danger: its fragments go with it. Expected: they are moved to the others first; it ends with
    0, the others have four members, every object is there, and all of them at full redundancy."""
    pool = new_pool(5, "3-of-5", settings=SETTINGS)
    objects = fill(pool, 12)
    leaver = pool.peers[4]
    assert leaver.ask("leave", "--yes")["left"] == leaver.id
    assert leaver.wait_ended() == 0
    eventually(lambda: all(len(peer.members()) == 4 for peer in pool.up), 30, "four members are left")
    eventually(lambda: leaver.id not in pool.peers[0].voters(), CHANGE_TIMEOUT_S, "and it votes no more")
    assert_kept(pool, objects)
    pool.peers[1].client().put_object(Bucket="kept", Key="new", Body=b"new")
    assert_kept(pool, objects | {"new": b"new"})
    pool.make_whole(CHANGE_TIMEOUT_S, objects=len(objects) + 1)


# -- a majority lost


def test_a_lost_majority_is_recovered(new_pool):
    """Two of three voters are destroyed. Expected: 503 and words that say what can be done; nothing without consent; after `pool recover` all
    data whose fragments live is there and new members make the pool writable. The destroyed ones' directories turn up again (from a
    backup): danger of a split brain, the two of them being a majority of the old voters. Expected: they follow, and without the others
    they decide nothing."""
    pool = new_pool(3, "1-of-3", settings=SETTINGS)
    objects = fill(pool, 20)
    survivor, one, two = pool.peers[2], pool.peers[0], pool.peers[1]
    assert "nothing to recover" in refused(survivor, "pool recover", "--i-accept-data-loss")
    for lost in (one, two):
        lost.kill()
    eventually(lambda: "NO MAJORITY" in survivor.ask("status")["words"][0], 30, "status tells that the majority is lost")
    client = survivor.client(read_timeout=20)
    assert not succeeds(lambda: client.create_bucket(Bucket="no-majority"))
    assert "--i-accept-data-loss" in refused(survivor, "pool recover", code=2)
    assert not succeeds(lambda: client.list_buckets())
    assert survivor.ask("pool recover", "--i-accept-data-loss")["registers"] >= 20
    for key, data in objects.items():
        assert client.get_object(Bucket="kept", Key=key)["Body"].read() == data
    client.create_bucket(Bucket="recovered")
    fresh = [pool.join(via=survivor), pool.join(via=survivor)]
    wait_voters(pool, ids([survivor, *fresh]))
    pool.wait_live(3)
    for number, peer in enumerate(pool.up):
        peer.client().put_object(Bucket="kept", Key=f"new-{number}", Body=b"new")
        objects[f"new-{number}"] = b"new"
    assert_kept(pool, objects)

    one.start()
    eventually(lambda: one.voters() == survivor.voters(), 30, "the one that comes back knows the voters of today")
    assert_kept(pool, objects)
    one.client().put_object(Bucket="kept", Key="by-the-returned", Body=b"new")
    objects["by-the-returned"] = b"new"
    assert_kept(pool, objects)
    # With all that were there since gone, the two old voters are alone: a majority of an epoch that is over.
    for peer in (survivor, *fresh):
        peer.kill()
    two.start()
    split = two.client(read_timeout=20)
    for _ in range(3):
        assert not succeeds(lambda: split.create_bucket(Bucket="split")), "a quorum of an epoch that is over"
        assert not succeeds(lambda: one.client(read_timeout=20).create_bucket(Bucket="split"))
    for peer in (survivor, *fresh):
        peer.start()
    eventually(lambda: two.voters() == survivor.voters() != set(), 30, "the second one follows too")
    assert_kept(pool, objects)


def test_a_lost_majority_is_recovered_from_a_learner(new_pool):
    """Two of three voters are destroyed and a learner is left beside the third. Expected: the learner refuses to be the one, and what it
    heard of counts: nothing that reached either of the two is lost."""
    pool = new_pool(4, "1-of-4", settings={"members.grace": "1h"})
    voters = pool.peers[0].voters()
    learner = next(peer for peer in pool.peers if peer.id not in voters)
    survivor, *lost = [peer for peer in pool.peers if peer.id in voters]
    objects = fill(pool, 16)
    wait_level(learner)
    survivor.kill()
    late = {f"late-{number}": b"late" for number in range(5)}
    for key, data in late.items():
        lost[0].client(read_timeout=20).put_object(Bucket="kept", Key=key, Body=data)
    lost[0].ask("repair")  # of the homes that were slow
    wait_level(learner)
    for peer in lost:
        peer.kill()
    survivor.start()
    assert "run it at" in refused(learner, "pool recover", "--i-accept-data-loss")
    survivor.ask("pool recover", "--i-accept-data-loss")
    pool.wait_live(2)
    for peer in (survivor, learner):
        eventually(lambda peer=peer: succeeds(lambda: peer.client(read_timeout=20).list_buckets()), 30, f"{peer.name} reads again")
    # What the third voter missed while it was off, the learner knew.
    assert_kept(pool, objects | late)


# -- everything at once


class Writer(threading.Thread):
    """Writes small objects through one peer, without retries, until told to end; knows what was acknowledged and when it was not."""

    def __init__(self, peer: Peer, bucket: str, number: int):
        super().__init__(daemon=True)
        self.peer, self.bucket, self.number = peer, bucket, number
        self.acknowledged: dict[str, bytes] = {}
        self.failures: list[str] = []
        self.outages: list[float] = []
        self.slowest_s = 0.0
        self._ending = threading.Event()
        self._down_since: float | None = None

    def run(self) -> None:
        client = self.peer.client(read_timeout=15)
        turn = 0
        while not self._ending.is_set():
            key, data = f"{self.number:02}/{turn:05}", samples.blob(500 + turn * 131 % 5000, f"{self.number}/{turn}")
            turn += 1
            started = time.monotonic()
            try:
                client.put_object(Bucket=self.bucket, Key=key, Body=data)
            except (ClientError, BotoCoreError) as failure:
                if self._ending.is_set():
                    return  # its peer is on its way out
                self.failures.append(str(failure))
                self._down_since = self._down_since or started
                self._ending.wait(0.1)
                continue
            self.acknowledged[key] = data
            now = time.monotonic()
            self.slowest_s = max(self.slowest_s, now - started)
            self._end_outage(now)
            self._ending.wait(0.02)

    def _end_outage(self, now: float) -> None:
        if self._down_since is not None:
            self.outages.append(now - self._down_since)
            self._down_since = None

    def end(self) -> None:
        """Ends it. An outage that lasts until now counts as far as it went."""
        self._end_outage(time.monotonic())
        self._ending.set()
        self.join()


class Traffic:
    """A writer at every living peer of a pool."""

    def __init__(self, pool: Pool, bucket: str):
        self.pool, self.bucket = pool, bucket
        self.writers: list[Writer] = []
        pool.up[0].client().create_bucket(Bucket=bucket)

    def follow(self) -> None:
        """Begins to write at peers that are new."""
        for peer in self.pool.up:
            if all(writer.peer is not peer for writer in self.writers):
                writer = Writer(peer, self.bucket, len(self.writers))
                self.writers.append(writer)
                writer.start()

    def retire(self, peer: Peer) -> None:
        """No more through this one, which is about to go."""
        for writer in self.writers:
            if writer.peer is peer:
                writer.end()

    def end(self) -> None:
        for writer in self.writers:
            if writer.is_alive():
                writer.end()

    @property
    def acknowledged(self) -> dict[str, bytes]:
        return {key: data for writer in self.writers for key, data in writer.acknowledged.items()}

    def report(self) -> str:
        failures = [failure for writer in self.writers for failure in writer.failures]
        lines = [f"acknowledged {len(self.acknowledged)}, failed {len(failures)}, writers {len(self.writers)}"]
        for writer in self.writers:
            outages = ", ".join(f"{outage:.1f}" for outage in writer.outages) or "none"
            lines.append(
                f"  {writer.peer.name}: {len(writer.acknowledged)} acknowledged, outages (s): {outages}; slowest write {writer.slowest_s:.1f} s"
            )
        return "\n".join([*lines, *(f"  {failure}" for failure in sorted(set(failures)))])


@pytest.mark.timeout(1800)
def test_members_come_and_go_under_writes(new_pool, rounds, rng, capsys):
    """A pool of five under writes at every peer: a member joins, one is evicted, a voter dies for ever, another joins, one leaves, the
    dead one is evicted. Danger: an acknowledged write in no quorum of the new voters; writes that fail while votes move. Expected:
    nothing acknowledged is lost, no peer refuses writes for longer than ten seconds."""
    pool = new_pool(5, "1-of-5", settings=SETTINGS)
    for turn in range(rounds(1, 8)):
        traffic = Traffic(pool, f"churn-{turn}")
        started = time.monotonic()
        try:
            churn(pool, traffic, rng)
        finally:
            traffic.end()
        with capsys.disabled():
            print(f"\nturn {turn}, {time.monotonic() - started:.0f} s: {traffic.report()}")
        assert len(traffic.acknowledged) > 100
        longest = max((outage for writer in traffic.writers for outage in writer.outages), default=0)
        assert longest <= OUTAGE_LIMIT_S, f"writes failed for {longest:.1f} s\n{traffic.report()}"
        verify(pool, traffic)
        for peer in pool.peers:
            if not peer.up:
                shutil.rmtree(peer.data, ignore_errors=True)


def churn(pool: Pool, traffic: Traffic, rng: random.Random) -> None:
    """One of each. Ends with five members, all of them voters."""
    def settled() -> None:
        traffic.follow()
        expected = ids(pool.up)
        eventually(lambda: all(peer.voters() <= expected for peer in pool.up), CHANGE_TIMEOUT_S, "only living peers vote", every_s=0.3)
        time.sleep(1)

    def pick() -> Peer:
        return rng.choice([peer for peer in pool.up if peer is not keeper])

    keeper = pool.up[0]
    traffic.follow()
    time.sleep(2)
    pool.join(via=keeper)
    settled()

    evicted = pick()
    traffic.retire(evicted)
    keeper.ask("evict", evicted.id, "--yes", "--reason", "churn")
    assert evicted.wait_ended() == 1
    settled()

    dead = pick()
    traffic.retire(dead)
    dead.kill()
    time.sleep(2)
    pool.join(via=keeper)
    settled()

    leaver = pick()
    traffic.retire(leaver)
    leaver.ask("leave", "--yes", "--force")
    assert leaver.wait_ended() == 0
    keeper.ask("evict", dead.id, "--yes")
    settled()
    pool.join(via=keeper)
    wait_voters(pool, ids(pool.up))
    assert len(pool.up) == 5
    traffic.follow()
    time.sleep(2)


def verify(pool: Pool, traffic: Traffic) -> None:
    """Every acknowledged object is listed by every living peer and read whole from one of them."""
    acknowledged = traffic.acknowledged
    clients = [peer.client() for peer in pool.up]
    for client in clients:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=traffic.bucket)
        listed = {entry["Key"] for page in pages for entry in page.get("Contents", [])}
        assert acknowledged.keys() <= listed, f"lost: {sorted(acknowledged.keys() - listed)[:10]}"

    def read(numbered: tuple[int, str]) -> None:
        number, key = numbered
        assert clients[number % len(clients)].get_object(Bucket=traffic.bucket, Key=key)["Body"].read() == acknowledged[key], key

    with concurrent.futures.ThreadPoolExecutor(4) as readers:
        list(readers.map(read, enumerate(acknowledged)))
