"""Real message brokers on loopback, to be told of events: started, stopped, and asked what they were given.

Redis and NATS are the servers themselves, Kafka is librdkafka's mock cluster (which speaks the real protocol), MQTT is aMQTT.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading

from palm_cluster import HOST, eventually, free_port

START_TIMEOUT_S = 30


def program(name: str) -> str:
    """Beside this Python, where `make setup` puts it, or on the PATH."""
    beside = pathlib.Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def reachable(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


class Process:
    """A broker that is a process of its own. Stopped and started again it is the same one."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.port, self.process = folder, free_port(), None
        folder.mkdir(parents=True)
        self.start()

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        eventually(lambda: reachable(self.port), START_TIMEOUT_S, f"{self.command()[0]} listens")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(START_TIMEOUT_S)
            self.process = None


class Redis(Process):
    password = "sesame"

    def command(self):
        return [program("redis-server"), "--bind", HOST, "--port", str(self.port), "--requirepass", self.password, "--appendonly", "yes"]

    def url(self, where: str) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/3?{where}"

    def client(self):
        import redis

        return redis.Redis(HOST, self.port, db=3, password=self.password, socket_timeout=START_TIMEOUT_S)

    def messages(self) -> list[dict]:
        return [json.loads(message) for message in self.client().lrange("events", 0, -1)]


class Nats(Process):
    """With a stream that keeps what is published below `kept.`."""

    token = "sesame"

    def command(self):
        return [program("nats-server"), "-a", HOST, "-p", str(self.port), "-js", "-sd", str(self.folder / "js"), "--auth", self.token]

    def url(self, where: str) -> str:
        return f"nats://{self.token}@{HOST}:{self.port}/{where}"

    def ask(self, subject: str, message: dict | None = None) -> dict:
        """A request to the server's API, by its text protocol."""
        with socket.create_connection((HOST, self.port), START_TIMEOUT_S) as connection, connection.makefile("rwb") as stream:
            body = json.dumps(message or {}).encode()
            stream.readline()
            stream.write(b'CONNECT {"verbose":false,"auth_token":"%s"}\r\nSUB answer 1\r\n' % self.token.encode())
            stream.write(b"PUB %s answer %d\r\n%s\r\n" % (subject.encode(), len(body), body))
            stream.flush()
            while not (line := stream.readline()).startswith(b"MSG"):
                assert line and not line.startswith(b"-ERR"), line
            return json.loads(stream.read(int(line.split()[-1])))

    def keep(self) -> None:
        answer = self.ask("$JS.API.STREAM.CREATE.EVENTS", {"name": "EVENTS", "subjects": ["kept.>"], "storage": "file"})
        assert "error" not in answer, answer

    def messages(self) -> list[dict]:
        import base64

        last = self.ask("$JS.API.STREAM.INFO.EVENTS")["state"]["last_seq"]
        stored = (self.ask("$JS.API.STREAM.MSG.GET.EVENTS", {"seq": number + 1}) for number in range(last))
        return [json.loads(base64.b64decode(answer["message"]["data"])) for answer in stored]


class Kafka:
    """A cluster of three brokers in this process; it cannot be stopped, but told to fail."""

    topic = "events"

    def __init__(self):
        from confluent_kafka import Producer

        # The mock cluster lives as long as this producer.
        self.producer = Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "ignored", "log_level": 0})
        # Asked for a topic it makes it.
        cluster = self.producer.list_topics(self.topic, START_TIMEOUT_S)
        self.brokers = [f"{broker.host}:{broker.port}" for broker in cluster.brokers.values()]
        self.partitions = range(len(cluster.topics[self.topic].partitions))

    def url(self, topic: str) -> str:
        return f"kafka://{self.brokers[0]}/{topic}?broker={self.brokers[1]}"

    def messages(self) -> list[dict]:
        return [message for _, _, message in self.records()]

    def records(self) -> list[tuple[int, str, dict]]:
        """Partition, key and message of each record."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.brokers[0], "group.id": "test", "enable.partition.eof": True, "enable.auto.commit": False})
        consumer.assign([TopicPartition(self.topic, partition, 0) for partition in self.partitions])
        found, ended = [], 0
        while ended < len(self.partitions):
            record = consumer.poll(START_TIMEOUT_S)
            assert record is not None, "the mock cluster answers"
            if record.error():
                ended += 1
            else:
                found.append((record.partition(), record.key().decode(), json.loads(record.value())))
        consumer.close()
        return found

    def stop(self) -> None:
        self.producer = None


class Mqtt:
    """A broker in a thread of this process that writes down what it is given."""

    topic = "palm/events"

    def __init__(self):
        self.port, self.taken = free_port(), []
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.start()

    def url(self, topic: str) -> str:
        return f"mqtt://user:sesame@{HOST}:{self.port}/{topic}"

    def messages(self) -> list[dict]:
        return list(self.taken)

    def start(self) -> None:
        self._run(self._start())

    def stop(self) -> None:
        if self.broker:
            self._run(self._stop())

    def _run(self, what) -> None:
        asyncio.run_coroutine_threadsafe(what, self.loop).result(START_TIMEOUT_S)

    async def _start(self) -> None:
        from amqtt.broker import Broker

        taken = self.taken

        class Recorder(Broker):
            async def _broadcast_message(self, session, topic, data, *arguments, **options):
                if topic == Mqtt.topic:
                    taken.append(json.loads(data))
                await super()._broadcast_message(session, topic, data, *arguments, **options)

        anybody = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        self.broker = Recorder({"listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{self.port}"}}, "plugins": anybody})
        await self.broker.start()

    async def _stop(self) -> None:
        await self.broker.shutdown()
        self.broker = None
