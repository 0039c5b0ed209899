"""Which operations each test called and how they were answered, seen on the wire: what docs/s3-compatibility.md is made of.

boto3's clients tell their operation. A hand-written request is the operation whose method, path and query AWS's own service model
(botocore's) has for it. Real clients in processes of their own are not seen.
"""

from __future__ import annotations

import collections
import functools
import json
import pathlib
import urllib.parse

import botocore.session

# Those that differ from another one by a header, or that AWS's model does not know.
COPIES = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}
POST_OBJECT = "PostObject"

# Operation -> code ("" for success) -> how often.
Calls = dict[str, "collections.Counter[str]"]


@functools.cache
def service_model():
    return botocore.session.get_session().get_service_model("s3")


@functools.cache
def _shapes() -> list[tuple[str, str, int, dict[str, str], set[str]]]:
    """(operation, method, parts of its path, parameters its query has, parameters it needs) of each; the most particular first."""
    shapes = []
    for name in service_model().operation_names:
        if name == "ListDirectoryBuckets":
            continue  # ListBuckets of another kind of endpoint
        model = service_model().operation_model(name)
        path, _, query = model.http["requestUri"].partition("?")
        members = model.input_shape.members.items() if model.input_shape else []
        needed = {
            shape.serialization["name"] for member, shape in members
            if shape.serialization.get("location") == "querystring" and member in model.input_shape.required_members
        }
        literal = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        shapes.append((name, model.http["method"], len([part for part in path.split("/") if part]), literal, needed))
    # Of operations that look the same the model's newer one has the longer name (PutBucketLifecycleConfiguration).
    return sorted(shapes, key=lambda shape: (-len(shape[3]) - len(shape[4]), shape[0] in COPIES.values(), -len(shape[0])))


def operation_of(method: str, target: str, headers: dict[str, str]) -> str | None:
    """The operation of a path-style request, `target` being its path and query."""
    path, _, query = target.partition("?")
    given = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    parts = len([part for part in path.split("/", 2) if part])
    if method == "POST" and parts == 1 and not given:
        return POST_OBJECT
    for name, its_method, its_parts, literal, needed in _shapes():
        if (method, parts) == (its_method, its_parts) and literal.items() <= given.items() and needed <= given.keys():
            return COPIES.get(name, name) if any(header.lower() == "x-amz-copy-source" for header in headers) else name
    return None


class Observer:
    """Notes calls while a test's own code runs; what fixtures do is no test of it."""

    def __init__(self):
        self.tests: dict[str, dict] = {}
        self.calls: Calls | None = None

    def begin(self) -> None:
        self.calls = {}

    def end(self, test: str, outcome: str) -> None:
        self.tests[test] = {"outcome": outcome, "operations": self.calls or {}}
        self.calls = None

    def note(self, operation: str | None, code: str) -> None:
        if self.calls is not None and operation:
            self.calls.setdefault(operation, collections.Counter())[code] += 1

    def watch(self, client) -> None:
        """Notes what a boto3 client calls."""
        def answered(parsed, model, **_):
            status = parsed.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            # A HEAD's code is its status alone, and 304 is no error.
            self.note(model.name, parsed.get("Error", {}).get("Code", "") if status >= 400 else "")

        client.meta.events.register("after-call.s3", answered)

    def request(self, method: str, target: str, headers: dict[str, str], status: int, code: str) -> None:
        """Notes a hand-written request."""
        self.note(operation_of(method, target, headers), code or str(status) if status >= 400 else "")

    def write(self, path: pathlib.Path, mode: str) -> None:
        path.write_text(json.dumps({"mode": mode, "tests": self.tests}, indent=1, sort_keys=True))


OBSERVER = Observer()
