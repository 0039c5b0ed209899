"""The programs of examples/sdk, each built from its lock file with the toolchain of its language and run at a peer, as a reader would.

Nothing is built in the source tree: what would be is copied to `sdk/` in the target directory, where it is found again next time.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import urllib.request

import pytest

from palm_cluster import palm_binary

SDKS = pathlib.Path(__file__).parents[2] / "examples" / "sdk"
TARGET = palm_binary().parent.parent
RUN_TIMEOUT_S = 300
# The first time everything is fetched and built; that of Rust takes minutes on two cores that have other work.
BUILD_TIMEOUT_S = 1500
# Language: how it is built and how it is run, in its own folder. The first word must be there.
PROGRAMS = {
    "python": ([], [sys.executable, "palm_example.py"]),
    "javascript": (["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--omit=optional"], ["node", "palm-example.mjs"]),
    "go": (["go", "build", "-o", "palm-example", "."], ["./palm-example"]),
    "java": (["mvn", "--quiet", "--batch-mode", "compile"], ["mvn", "--quiet", "--batch-mode", "exec:java"]),
    "rust": (["cargo", "build", "--quiet", "--locked"], [str(TARGET / "debug" / "palm-sdk-example")]),
}


@pytest.mark.timeout(BUILD_TIMEOUT_S + RUN_TIMEOUT_S)
@pytest.mark.parametrize("language", PROGRAMS)
def test_sdk(target, s3, make_bucket, language):
    """The program of a language puts, gets, lists, uploads in parts, signs a link and is refused a conditional put, each step checked by itself.
    Danger: an SDK's own habits (checksums in trailers, path style, regions) that boto3 does not have. Expected: it ends well; its link, asked
    of the same peer without a key, is the object."""
    build, run = PROGRAMS[language]
    for word in {(build or run)[0], run[0]}:
        if not word.startswith(("./", "/")) and not shutil.which(word):
            pytest.skip(f"{word} is not installed")
    # Made and removed by the program's user, here the fixture.
    bucket = make_bucket(f"sdk-{language}")
    s3.delete_bucket(Bucket=bucket)
    place = SDKS / language
    if language != "rust":
        place = shutil.copytree(SDKS / language, TARGET / "sdk" / language, dirs_exist_ok=True)
    if build and not up_to_date(place, language):
        call(build, place, {}, BUILD_TIMEOUT_S)
        mark(place, language)
    keys = {
        "AWS_ENDPOINT_URL_S3": target.any_endpoint(), "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": target.access_key, "AWS_SECRET_ACCESS_KEY": target.secret_key,
    }
    link = call(run, place, keys, RUN_TIMEOUT_S).split("ok ")[-1].split()[0]
    with urllib.request.urlopen(link, timeout=RUN_TIMEOUT_S) as answer:
        assert answer.read() == b"kept by the peers of this network\n"


def up_to_date(place: pathlib.Path, language: str) -> bool:
    """Packages of JavaScript are taken anew only when the lock file is another; the other tools see to that themselves."""
    return language == "javascript" and (place / "installed").exists() and (place / "installed").read_text() == lock(place)


def mark(place: pathlib.Path, language: str) -> None:
    if language == "javascript":
        (place / "installed").write_text(lock(place))


def lock(place: pathlib.Path) -> str:
    return (place / "package-lock.json").read_text()


def call(command: list[str], place: pathlib.Path, keys: dict[str, str], timeout_s: float) -> str:
    """What it prints; of the settings that its user may have for AWS it sees none but these."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | keys | {
        "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true", "CARGO_TARGET_DIR": str(TARGET),
    }
    done = subprocess.run(command, cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
