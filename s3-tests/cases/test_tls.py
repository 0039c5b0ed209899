"""The S3 endpoint over TLS. A pool of its own, since the certificate is a setting. Certificates by openssl."""

import signal
import socket
import ssl
import subprocess

import pytest

import sigv4
from palm_cluster import Pool, eventually, free_port

pytestmark = pytest.mark.own_pool


def certify(folder, name):
    """A self-signed certificate for 127.0.0.1, under the names that the peer's settings have."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "new.key"), "-out", str(folder / "new.crt")],
        check=True, capture_output=True,
    )
    (folder / "new.key").rename(folder / "tls.key")
    (folder / "new.crt").rename(folder / "tls.crt")
    return folder / "tls.crt"


def der(certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


class Secure(sigv4.Server):
    """A server reached over TLS, whose certificate must be the given one."""

    def __init__(self, address, credentials, certificate):
        super().__init__(f"https://{address[0]}:{address[1]}", credentials)
        self.peer, self.certificate = address, certificate

    def connect(self):
        context = ssl.create_default_context(cafile=str(self.certificate))
        return context.wrap_socket(socket.create_connection(self.peer, timeout=self.timeout_s), server_hostname=self.peer[0])

    def shown(self) -> bytes:
        """The certificate that the peer shows."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(socket.create_connection(self.peer, timeout=self.timeout_s)) as connection:
            return connection.getpeercert(binary_form=True)


@pytest.fixture
def secured(tmp_path):
    """A peer that listens for TLS too."""
    certificate = certify(tmp_path, "first")
    address = ("127.0.0.1", free_port())
    settings = {"s3.tls_address": "%s:%d" % address, "s3.tls_certificate": str(certificate), "s3.tls_key": str(tmp_path / "tls.key")}
    with Pool.form(tmp_path / "pool", 1, settings=settings) as pool:
        yield pool, Secure(address, sigv4.Credentials(pool.access_key, pool.secret_key), certificate)


def test_requests_over_tls(secured, tmp_path):
    """The same bucket over both endpoints. Expected: signatures are good on each, and a large object comes whole."""
    pool, server = secured
    data = bytes(range(256)) * 20_000
    assert server.signed("PUT", "/secure").status == 200
    assert server.signed("PUT", "/secure/k", data).status == 200
    assert server.signed("GET", "/secure/k").body == data
    plain = sigv4.Server(pool.peers[0].endpoint, server.credentials)
    assert plain.signed("GET", "/secure/k").body == data


def test_a_renewed_certificate_is_shown(secured, tmp_path):
    """The files are replaced and the peer gets SIGHUP; then by half a pair. Danger: it shows the old one until it expires, or none at all.
    Expected: the new one, without a restart; and what does not fit changes nothing."""
    pool, server = secured
    assert server.shown() == der(server.certificate)
    second = der(certify(tmp_path, "second"))
    pool.peers[0].process.send_signal(signal.SIGHUP)
    eventually(lambda: server.shown() == second, 20, "the second certificate")
    (tmp_path / "tls.key").write_text("no key")
    pool.peers[0].process.send_signal(signal.SIGHUP)
    eventually(lambda: "certificate not reloaded" in pool.peers[0].log_tail(), 20, "a word about it")
    assert server.shown() == second
    assert server.signed("PUT", "/still-up").status == 200


def test_who_does_not_shake_hands(secured):
    """Plain HTTP, noise, silence and old protocols at the TLS endpoint. Danger: one of them holds or ends the peer. Expected: cut off; others go on."""
    _, server = secured
    silent = [socket.create_connection(server.peer) for _ in range(20)]
    for noise in [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\x00" * 100, b"\x00"]:
        with socket.create_connection(server.peer, timeout=30) as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            assert not connection.recv(100).startswith(b"HTTP")
    assert server.signed("PUT", "/after-noise").status == 200
    for connection in silent:
        connection.settimeout(30)
        assert connection.recv(1) == b"", "a silent handshake is ended by the peer"
        connection.close()


@pytest.mark.parametrize("missing", ["s3.tls_address", "s3.tls_certificate", "s3.tls_key"])
def test_half_a_setting_stops_the_start(tmp_path, missing):
    """One of the three settings is forgotten. Danger: the peer seems to speak TLS and does not. Expected: it does not start and says why."""
    certificate = certify(tmp_path, "half")
    settings = {"s3.tls_address": f"127.0.0.1:{free_port()}", "s3.tls_certificate": str(certificate), "s3.tls_key": str(tmp_path / "tls.key")}
    del settings[missing]
    with pytest.raises(Exception, match="s3.tls_"), Pool.form(tmp_path / "pool", 1, settings=settings):
        pass
