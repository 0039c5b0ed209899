#!/usr/bin/env python3
"""The example's backend program, with faults: `exec:///…/faulty_plugin.py?dir=…&fault=FILE` does what FILE says, looked at before each call.

`lie`: one bit of all that is read is flipped. `hang`: nothing is answered while it says so. `die`: the process ends in the middle of every tenth call.
`babble`: what is answered is no frame. Empty or missing: as the example does.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import time

EXAMPLE = pathlib.Path(__file__).resolve().parent.parent / "examples" / "backend-plugin" / "palm-backend-dir"


def load_example():
    loader = importlib.machinery.SourceFileLoader("palm_backend_dir", str(EXAMPLE))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def main() -> None:
    example = load_example()
    answer, fault_file, calls = example.answer, None, 0

    class Store(example.Store):
        def __init__(self, options: dict):
            nonlocal fault_file
            fault_file = pathlib.Path(options.pop("fault"))
            super().__init__(options)

    def said() -> str:
        return fault_file.read_text().strip() if fault_file and fault_file.exists() else ""

    def faulty(call: dict, body: bytes = b"", **fields) -> None:
        nonlocal calls
        calls += 1
        while (fault := said()) == "hang":
            time.sleep(0.2)
        if fault == "die" and calls % 10 == 0:
            os._exit(1)
        if fault == "babble":
            sys.stdout.buffer.write(os.urandom(4096))
            sys.stdout.buffer.flush()
        if fault == "lie" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        answer(call, body, **fields)

    example.Store, example.answer = Store, faulty
    example.main()


if __name__ == "__main__":
    main()
