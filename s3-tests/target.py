"""What the S3 families talk to: one peer, a pool of which every request takes another peer, or some other server."""

from __future__ import annotations

import dataclasses
import random
import urllib.parse

from palm_cluster import Pool, s3_client
from sigv4 import Credentials, Server


@dataclasses.dataclass
class Target:
    endpoints: list[str]
    access_key: str
    secret_key: str
    pool: Pool | None
    rng: random.Random

    def any_endpoint(self) -> str:
        return self.rng.choice(self.endpoints)

    def client(self, index: int | None = None, access_key: str | None = None, secret_key: str | None = None, **config):
        """A boto3 client of one endpoint; when `index` is None, of all: every request goes to one picked at random."""
        endpoint = self.any_endpoint() if index is None else self.endpoints[index % len(self.endpoints)]
        client = s3_client(endpoint, access_key or self.access_key, secret_key or self.secret_key, **config)
        if index is None:
            client.meta.events.register("before-call.s3", self._elsewhere)
        return client

    def clients(self, **config) -> list:
        """A client for each endpoint, in their order."""
        return [self.client(index, **config) for index in range(len(self.endpoints))]

    @property
    def server(self) -> Server:
        """For hand-written requests; each goes to another endpoint."""
        return Server(self.any_endpoint(), Credentials(self.access_key, self.secret_key), draw=self.any_endpoint)

    def _elsewhere(self, params: dict, **_) -> None:
        """Turns a request of boto3, not signed yet, to another endpoint: those of paginators, waiters and transfers too."""
        url = urllib.parse.urlsplit(params["url"])
        if any(url.netloc == urllib.parse.urlsplit(endpoint).netloc for endpoint in self.endpoints):
            other = urllib.parse.urlsplit(self.any_endpoint())
            params["url"] = url._replace(scheme=other.scheme, netloc=other.netloc).geturl()
