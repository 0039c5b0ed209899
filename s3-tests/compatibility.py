"""Makes docs/s3-compatibility.md from what tests observed: `python compatibility.py RESULTS.json ... > ../docs/s3-compatibility.md`.

Each file is written by `pytest --results=FILE`, one for each mode. What PALM serves is read from the table of its front end, what there is
from AWS's own service model; the rest of the page is the two tables below.
"""

from __future__ import annotations

import collections
import json
import pathlib
import re
import sys

from observed import POST_OBJECT, service_model

FRONT_END = pathlib.Path(__file__).parent.parent / "src/palm/src/s3/mod.rs"

# Why an operation is answered 501 NotImplemented. A group's word stands for every operation whose name has it.
REFUSED = {
    "Abac": "access by attributes needs IAM's tags of principals",
    "Accelerate": "there is no edge network to speed up through",
    "Analytics": "an AWS report",
    "Annotation": "indexes of metadata are an AWS service",
    "IntelligentTiering": "storage classes are k-of-n policies here, chosen by the client or by lifecycle rules",
    "Inventory": "an AWS report; LIST is fast enough to be asked",
    "BucketMetadata": "metadata tables are an AWS service",
    "Metrics": "CloudWatch's; PALM's own are at `/metrics`",
    "Replication": "every object is spread over the pool's peers as it is; between pools use rclone or `aws s3 sync`",
    "CreateSession": "of directory buckets",
    "ListDirectoryBuckets": "of directory buckets, which have endpoints of their own",
    "GetObjectTorrent": "no longer of AWS either",
    "RestoreObject": "there is no archive to restore from: every object can be read at once",
    "SelectObjectContent": "closed to new customers by AWS; use DuckDB or the like on ranges",
    "UpdateObjectEncryption": "changes keys of a key service, which PALM has none of",
    "WriteGetObjectResponse": "for Lambda functions",
}

# Names of older versions of an operation that are the same request.
SAME_AS = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration", "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration", "PutBucketNotification": "PutBucketNotificationConfiguration",
}

# How answers differ from AWS's, and why.
DIFFERENCES = {
    "CompleteMultipartUpload": "the same request a second time is answered as the first was, however late",
    "CreateBucket": "any LocationConstraint is taken: a pool is one region; made again by its owner without settings: 200 and nothing changes "
                    "(in `us-east-1`; elsewhere 409)",
    "CreateMultipartUpload": "`aws:kms` is 501: there is no key service",
    "CopyObject": "`aws:kms` is 501: there is no key service",
    "GetBucketPolicyStatus": "without a policy: not public, instead of 404",
    "GetBucketPolicy": "the bytes that were put",
    "ListObjects": "a key that XML cannot hold makes the answer `encoding-type=url`, asked for or not; Prefix is never encoded",
    "ListObjectsV2": "a key that XML cannot hold makes the answer `encoding-type=url`, asked for or not; an empty token is none",
    "PutBucketEncryption": "`AES256` only",
    "PutBucketPolicy": "resource `arn:aws:s3:::*` is taken",
    "PutObject": "`aws:kms` is 501: there is no key service",
}


def snake_to_camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def served() -> set[str]:
    """The operations of the front end's table, by AWS's names."""
    found = re.findall(r"^    (\w+)\(\s*\w+Input,?\s*\)\s*->\s*\w+Output\s*=", FRONT_END.read_text(), re.MULTILINE)
    names = {name.lower(): name for name in [*service_model().operation_names, POST_OBJECT]}
    return {names.get(snake_to_camel(name).lower(), snake_to_camel(name)) for name in found}


def operations() -> list[str]:
    """All there are, AWS's and the front end's."""
    return sorted({*service_model().operation_names, POST_OBJECT} | served())


def refusal(operation: str) -> str | None:
    """Why it is refused on purpose."""
    return next((why for word, why in REFUSED.items() if word in operation), None)


def standing(operation: str, served: set[str]) -> str:
    """What PALM makes of it, in a word or a few."""
    if operation in served:
        return "yes"
    if operation in SAME_AS:
        return f"as {SAME_AS[operation]}"
    return "501 on purpose" if refusal(operation) else "no"


def tally(results: list[dict]) -> dict[str, dict[str, tuple[int, int]]]:
    """operation -> mode -> (tests that call it and pass, all that call it)."""
    counts: dict = collections.defaultdict(dict)
    for result in results:
        for test in result["tests"].values():
            for operation in test["operations"]:
                passed, total = counts[operation].get(result["mode"], (0, 0))
                counts[operation][result["mode"]] = (passed + (test["outcome"] == "passed"), total + (test["outcome"] != "skipped"))
    return counts


def codes_of(results: list[dict]) -> dict[str, set[str]]:
    """operation -> error codes that passing tests saw. A HEAD has no code but its status."""
    seen: dict[str, set[str]] = collections.defaultdict(set)
    for result in results:
        for test in result["tests"].values():
            for operation, codes in test["operations"].items():
                if test["outcome"] == "passed":
                    seen[operation] |= {code for code in codes if code}
    return seen


def page(results: list[dict]) -> str:
    modes = list(dict.fromkeys(result["mode"] for result in results))
    counts, codes, here = tally(results), codes_of(results), served()
    lines = [
        "# S3 compatibility",
        "",
        "Generated by `make compatibility` from a run of `s3-tests/`, against " + " and against ".join(modes) + ". Do not edit.",
        "",
        "Each number is how many tests call the operation and pass. Tests by clients in processes of their own (aws-cli, rclone, s5cmd, s3cmd)",
        "come on top of these. Codes are those that some test expects and gets; an error of a HEAD is its status alone.",
        "",
        "| operation | served | " + " | ".join(f"tests, {mode}" for mode in modes) + " | errors seen |",
        "| --- | --- |" + " ---: |" * len(modes) + " --- |",
    ]
    for operation in operations():
        if refusal(operation) and operation not in here:
            continue
        numbers = []
        for mode in modes:
            passed, total = counts[operation].get(mode, (0, 0))
            numbers.append(str(passed) if passed == total else f"{passed} of {total}")
        errors = ", ".join(f"`{code}`" for code in sorted(codes[operation]))
        lines.append(f"| {operation} | {standing(operation, here)} | {' | '.join(numbers)} | {errors} |")
    lines += ["", "## Differences from AWS", "", "| operation | difference |", "| --- | --- |"]
    lines += [f"| {operation} | {what} |" for operation, what in sorted(DIFFERENCES.items())]
    lines += ["", "## 501 on purpose", "", "| operation | why |", "| --- | --- |"]
    lines += [f"| {operation} | {refusal(operation)} |" for operation in operations() if refusal(operation) and operation not in here]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.stdout.write(page([json.loads(pathlib.Path(path).read_text()) for path in sys.argv[1:]]))
