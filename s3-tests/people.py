"""Who else may ask: keys of other accounts and of users with and without policies, made as an operator makes them."""

from __future__ import annotations

import dataclasses
import json
import uuid

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

import palm_cluster

REGION = "us-east-1"


@dataclasses.dataclass
class Person:
    """An access key, whose it is, and a client that uses it."""

    access_key: str
    secret_key: str
    account: str
    number: str
    canonical_id: str
    user: str | None
    client: object

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.number}:user/{self.user}" if self.user else f"arn:aws:iam::{self.number}:root"


def allow(actions, resources="*", **more) -> dict:
    return {"Effect": "Allow", "Action": actions, "Resource": resources} | more


def deny(actions, resources="*", **more) -> dict:
    return allow(actions, resources, **more) | {"Effect": "Deny"}


def document(*statements: dict) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def on(bucket: str) -> list[str]:
    """A bucket and all in it."""
    return [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]


class People:
    """Makes keys in the pool under test. Another server has none to give: such tests are skipped there."""

    def __init__(self, target):
        self._target = target

    def ask(self, *args: str) -> dict:
        if self._target.pool is None:
            pytest.skip("needs keys of its own")
        return self._target.pool.up[0].ask(*args)

    def owner(self) -> Person:
        """Who owns what the tests make: the root key of the pool."""
        listed = self.ask("key", "list")["keys"]
        key = next(key for key in listed if key["access_key"] == self._target.access_key)
        return self._person(key | {"secret_key": self._target.secret_key}, None)

    def other(self, account: str | None = None) -> Person:
        """The root key of another account."""
        account = account or f"alt-{uuid.uuid4().hex[:8]}"
        return self._person(self.ask("key", "create", "--account", account), None)

    def user(self, *statements: dict, account: str | None = None, name: str | None = None) -> Person:
        """A user's key, with a policy of these statements or none."""
        name = name or f"user-{uuid.uuid4().hex[:8]}"
        args = ["--account", account] if account else []
        if statements:
            args += ["--policy", self.file(document(*statements))]
        return self._person(self.ask("key", "create", "--user", name, *args), name)

    def file(self, text: str) -> str:
        """A file beside the pool's own, called `given`, as the policy in it will be."""
        if self._target.pool is None:
            pytest.skip("needs keys of its own")
        place = self._target.pool.root / f"policy-{uuid.uuid4().hex[:12]}"
        place.mkdir()
        path = place / "given.json"
        path.write_text(text)
        return str(path)

    def client(self, service: str = "s3", keys: tuple | None = None, **config):
        """A client whose every request goes to a random endpoint; without `keys` it does not sign."""
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        given = dict(zip(names, keys)) if keys else {}
        settings = {"retries": {"total_max_attempts": 1}} | config
        if service == "s3":
            settings |= {"s3": {"addressing_style": "path"}, "signature_version": "s3v4" if keys else UNSIGNED}
        client = boto3.session.Session().client(
            service, endpoint_url=self._target.endpoints[0], region_name=REGION, config=Config(**settings), **given,
        )
        client.meta.events.register(f"before-call.{service}", self._elsewhere)
        palm_cluster.on_client(client)
        return client

    def as_session(self, credentials: dict):
        """A client with what STS gave."""
        return self.client(keys=(credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"]))

    def _elsewhere(self, params: dict, **_) -> None:
        here, there = self._target.endpoints[0], self._target.rng.choice(self._target.endpoints)
        params["url"] = params["url"].replace(here, there, 1)

    def _person(self, key: dict, user: str | None) -> Person:
        client = self.client(keys=(key["access_key"], key["secret_key"]))
        return Person(
            key["access_key"], key["secret_key"], key["account"], key["account_number"], key["canonical_id"], user, client,
        )
