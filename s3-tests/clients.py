"""Real S3 clients as processes: aws-cli, rclone, s5cmd, s3cmd, from the environment that runs the tests."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

BIN = pathlib.Path(sys.executable).parent
CLIENT_TIMEOUT_S = 900


class Clients:
    """Runs clients against one endpoint with one key. `home` holds their settings, so nobody's own are read or written."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str, home: pathlib.Path):
        self.endpoint = endpoint
        self.host = endpoint.removeprefix("http://")
        self.home = pathlib.Path(home)
        self.home.mkdir(parents=True, exist_ok=True)
        # aws-cli 1 presigns with version 2 of the signature unless told so, and that is not spoken any more.
        config = self.home / ".aws" / "config"
        config.parent.mkdir(exist_ok=True)
        config.write_text("[default]\ns3 =\n    signature_version = s3v4\n")
        self.keys = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
        rclone = {
            "TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": endpoint, "ACCESS_KEY_ID": access_key, "SECRET_ACCESS_KEY": secret_key,
            "REGION": "us-east-1", "FORCE_PATH_STYLE": "true",
        }
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_"))}
        self.environment |= self.keys | {f"RCLONE_CONFIG_PALM_{name}": value for name, value in rclone.items()}
        self.environment |= {
            "HOME": str(self.home), "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_PAGER": "",
            "RCLONE_CONFIG": str(self.home / "rclone.conf"), "S3_ENDPOINT_URL": endpoint, "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def run(self, *command: object, cwd: pathlib.Path | None = None, check: bool = True, **options) -> subprocess.CompletedProcess:
        """Runs to the end; a code other than 0 is an AssertionError with what the client said."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=CLIENT_TIMEOUT_S, check=False, **options
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done

    def aws(self, *args: object, **options):
        return self.run(BIN / "aws", "--endpoint-url", self.endpoint, *args, **options)

    def rclone(self, *args: object, **options):
        """The remote is called `palm:`."""
        return self.run(BIN / "rclone", *args, "--retries", "1", "--low-level-retries", "1", **options)

    def s5cmd(self, *args: object, **options):
        return self.run(BIN / "s5cmd", "--retry-count", "0", *args, **options)

    def s3cmd(self, *args: object, **options):
        settings = [
            f"--host={self.host}", f"--host-bucket={self.host}", "--no-ssl", "--region=us-east-1", f"--access_key={self.keys['AWS_ACCESS_KEY_ID']}",
            f"--secret_key={self.keys['AWS_SECRET_ACCESS_KEY']}", "--config=/dev/null",
        ]
        return self.run(BIN / "s3cmd", *settings, *args, **options)
