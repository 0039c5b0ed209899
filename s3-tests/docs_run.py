"""Runs the command blocks of a page, in order, as its reader would: in shells whose variables last, on machines that are directories.

What stands behind ```sh at the start of a block says how:

    sh                  run here, to its end
    sh serve            goes on; waited for until its S3 endpoint answers
    sh serve-later      goes on; what comes next may be what lets it in
    sh on-2             the same on another machine of the reader's
    sh needs PROGRAM    left out where that is not installed
    sh no-run REASON    not run

TOKEN, POOL_ID, KEY and SECRET stand for what the page's pool says; every port of 127.0.0.1 becomes a free one, the same on all the page.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

from palm_cluster import HOST, READY_TIMEOUT_S, STOP_TIMEOUT_S, CommandFailed, eventually, free_port, palm, palm_binary
from samples import KIB, write_file

ROOT = pathlib.Path(__file__).parent.parent
BLOCK = re.compile(r"^```(sh|bash|console|shell)\b(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK_TIMEOUT_S = 120
# Ports of a reader's first machine, which has the default ones.
S3, ADMIN, QUIC = "9000", "9001", "5000"
# Of what the examples are, what pages name.
EXAMPLES = ["aws", "duckdb", "palm.toml", "rclone.conf", "s3cmd.conf", "terraform"]


@dataclasses.dataclass
class Block:
    """Commands, and the words that say how they are run."""

    words: list[str]
    text: str

    @property
    def how(self) -> str:
        return next((word for word in self.words if word in ("serve", "serve-later", "needs", "no-run")), "")

    @property
    def machine(self) -> str:
        return next((word for word in self.words if word.startswith("on-")), "on-1")

    @property
    def reason(self) -> str:
        """What follows `needs` or `no-run`."""
        return " ".join(self.words[self.words.index(self.how) + 1 :])


def blocks(page: pathlib.Path) -> list[Block]:
    return [Block(words.split(), text) for _, words, text in BLOCK.findall(page.read_text())]


class Machine:
    """A directory that is a reader's home, and what runs there."""

    def __init__(self, root: pathlib.Path, ports: dict[str, str]):
        self.root, self.ports = root, ports
        root.mkdir()
        self.data = root / ".local" / "share" / "palm"
        self.process: subprocess.Popen | None = None
        self.s3 = ports[S3]
        (root / "variables").touch()
        (root / "bin").mkdir()
        (root / "bin" / "palm").symlink_to(palm_binary())
        write_file(root / "holiday.jpg", 300 * KIB, "holiday")

    def environment(self) -> dict[str, str]:
        path = f"{self.root / 'bin'}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PALM_", "AWS_", "XDG_", "RCLONE_", "TF_"))}
        listen = {f"PALM_{name}__ADDRESS": f"{HOST}:{self.ports[port]}" for name, port in (("S3", S3), ("ADMIN", ADMIN), ("QUIC", QUIC))}
        return kept | listen | {"PALM_DISCOVERY__INTERFACES": "lo", "PALM_NAME": self.root.name, "HOME": str(self.root), "PATH": path, "AWS_EC2_METADATA_DISABLED": "true"}

    def shell(self, text: str) -> list[str]:
        """What runs the text with the variables that earlier ones left, and leaves its own."""
        return ["bash", "-c", f"set -euo pipefail\nsource ~/variables\n{text}\nexport -p > ~/variables"]

    def run(self, text: str) -> str:
        self.wait_serving()
        done = subprocess.run(
            self.shell(text), cwd=self.root, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BLOCK_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"ended with {done.returncode}:\n{text}\n--- it said\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}{self.said()}"
        return done.stdout

    def serve(self, text: str) -> None:
        """Starts what goes on. Only its last command does: those before it are variables."""
        *before, last = text.strip().splitlines()
        if named := re.search(r"--data (\S+)", last):
            self.data = pathlib.Path(named[1])
        if named := re.search(r"--s3 \S+:(\d+)", last):
            self.s3 = named[1]
        with (self.root / "output").open("wb") as output, (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                self.shell("\n".join([*before, "export -p > ~/variables", f"exec {last}"])),
                cwd=self.root, env=self.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=log,
            )

    def wait_serving(self) -> None:
        """Until the peer that was started here answers, if one was."""
        if self.process is not None and self.process.poll() is None:
            eventually(self.answers, READY_TIMEOUT_S, f"{self.root.name} serves")

    def answers(self) -> bool:
        assert self.process.poll() is None, f"ended with {self.process.returncode}{self.said()}"
        try:
            socket.create_connection((HOST, int(self.s3)), timeout=1).close()
            palm("status", "--data", self.data)
        except (OSError, CommandFailed):
            return False
        return True


    def said(self) -> str:
        texts = [(self.root / name).read_text(errors="replace")[-2000:] for name in ("output", "log") if (self.root / name).exists()]
        return "\n--- the peer said\n" + "\n".join(texts)

    def output(self) -> str:
        return (self.root / "output").read_text()

    def end(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Page:
    """The machines of one page. A context manager: on leaving, all that it started has ended."""

    def __init__(self, path: pathlib.Path, root: pathlib.Path):
        self.path, self.root = path, root
        self.machines: dict[str, Machine] = {}
        self.ports: dict[str, str] = {}
        # Who made the page's pool, and what it said then.
        self.founder: Machine | None = None
        self.left_out: list[str] = []

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_exception) -> None:
        for machine in self.machines.values():
            machine.end()

    def run(self) -> None:
        todo = [block for block in blocks(self.path) if block.how != "no-run"]
        if todo and not any(block.how == "serve" for block in todo):
            self.perform(Block(["serve"], "palm create-pool --name home\n"))
        for block in todo:
            self.perform(block)

    def perform(self, block: Block) -> None:
        if block.how == "needs" and not shutil.which(block.reason):
            self.left_out.append(f"{block.reason} is not installed")
            return
        machine, text = self.machine(block.machine), self.filled_in(block.text)
        if not block.how.startswith("serve"):
            machine.run(text)
            return
        machine.serve(text)
        if block.how == "serve":
            machine.wait_serving()
        else:
            eventually(lambda: palm("list-members", "--data", self.founder.data)["waiting"], READY_TIMEOUT_S, "somebody waits for approval")
        if "create-pool" in text:
            self.founder = machine

    def machine(self, name: str) -> Machine:
        """The first has the ports that pages name; the others have ports of their own."""
        if name not in self.machines:
            of_page = name == "on-1"
            ports = {port: self.port(port) if of_page else str(free_port()) for port in (S3, ADMIN, QUIC)}
            made = self.machines[name] = Machine(self.root / f"machine-{name}", ports)
            for example in EXAMPLES:
                self.copy(ROOT / "examples" / example, made.root / "examples" / example)
        return self.machines[name]

    def copy(self, source: pathlib.Path, to: pathlib.Path) -> None:
        """An example, with the page's ports in it."""
        if source.is_dir():
            for inside in source.iterdir():
                self.copy(inside, to / inside.name)
        else:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(self.with_ports(source.read_text()))

    def port(self, named: str) -> str:
        return self.ports.setdefault(named, str(free_port()))

    def with_ports(self, text: str) -> str:
        return re.sub(r"127\.0\.0\.1:(\d{4})\b", lambda found: f"{HOST}:{self.port(found[1])}", text)

    def filled_in(self, text: str) -> str:
        text = self.with_ports(text).replace("/tmp/", f"{self.root}/")
        return re.sub(r"(?<![A-Z_$])(TOKEN|POOL_ID|KEY|SECRET)(?![A-Z_=])", lambda found: self.value(found[1]), text)

    def value(self, name: str) -> str:
        """What a placeholder stands for, read where a reader would."""
        if name == "TOKEN":
            return palm("invite", "--data", self.founder.data)["join_token"]
        if name == "POOL_ID":
            return palm("status", "--data", self.founder.data)["pool_id"]
        variable = {"KEY": "AWS_ACCESS_KEY_ID", "SECRET": "AWS_SECRET_ACCESS_KEY"}[name]
        return re.search(rf"{variable}='?([^'\s]+)", self.founder.output())[1]
