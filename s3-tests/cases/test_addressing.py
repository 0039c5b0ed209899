"""Buckets in host names. AWS: userguide/VirtualHosting. A pool of its own, since host names are settings."""

import dataclasses

import pytest

import sigv4

DOMAIN = "s3.palm.test"
pytestmark = pytest.mark.own_pool


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    """`hosted(custom)`: a server whose domains are `DOMAIN` and `other.test`."""
    from palm_cluster import Pool

    settings = {"s3.domains": f"{DOMAIN},other.test", "s3.website_domains": "web.palm.test", "s3.custom_domains": "s3"}
    with Pool.form(tmp_path_factory.mktemp("hosted"), 1, settings=settings) as pool:
        server = sigv4.Server(pool.peers[0].endpoint, sigv4.Credentials(pool.access_key, pool.secret_key))
        for bucket in ["photos", "www.photos.test", "a.b"]:
            assert server.signed("PUT", f"/{bucket}").status == 200
            assert server.signed("PUT", f"/{bucket}/dir/me.jpg", bucket.encode()).status == 200
        yield server


def at(server, host):
    """The same server under another name."""
    named = sigv4.Server(f"http://{server.host}", server.credentials)
    named.host = host
    return named


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        (f"photos.{DOMAIN}", "photos"), (f"photos.{DOMAIN}:9000", "photos"), (f"PHOTOS.{DOMAIN.upper()}", "photos"), ("photos.other.test", "photos"),
        (f"a.b.{DOMAIN}", "a.b"), ("www.photos.test", "www.photos.test"),
    ],
)
def test_the_host_names_the_bucket(hosted, host, bucket):
    """Virtual-hosted style, several domains, a bucket with a dot, a custom domain. Expected: the path is the key; signed in headers or in the URL."""
    server = at(hosted, host)
    for path in ["/dir/me.jpg", "/dir%2Fme.jpg"]:
        answer = server.signed("GET", path.replace("%2F", "/"))
        assert (answer.status, answer.body) == (200, bucket.encode()), answer
    presigned = server.credentials.presign(server.request("GET", "/dir/me.jpg"))
    answer = server.send(presigned)
    assert (answer.status, answer.body) == (200, bucket.encode()), answer
    listing = server.signed("GET", "/", query=[("list-type", "2")])
    assert b"<Key>dir/me.jpg</Key>" in listing.body and f"<Name>{bucket}</Name>".encode() in listing.body


@pytest.mark.parametrize("host", [DOMAIN, "other.test", "localhost", "127.0.0.1", "peer"])
def test_other_hosts_are_path_style(hosted, host):
    """The domains themselves, addresses and short names. Expected: the bucket is in the path, and `/` is the service."""
    server = at(hosted, host)
    assert server.signed("GET", "/photos/dir/me.jpg").body == b"photos"
    assert b"<ListAllMyBucketsResult" in server.signed("GET", "/").body


def test_a_signature_is_for_its_host(hosted):
    """A request signed for one bucket's host is sent to another's. Danger: it reads there. Expected: SignatureDoesNotMatch."""
    server = at(hosted, f"photos.{DOMAIN}")
    request = server.credentials.authorize(server.request("GET", "/dir/me.jpg"), sigv4.EMPTY_SHA256)
    moved = dataclasses.replace(request, headers=request.headers | {"host": f"a.b.{DOMAIN}"})
    answer = server.send(moved)
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch"), answer


def test_what_is_not_there(hosted):
    """Hosts of buckets that are not there or cannot be. Expected: NoSuchBucket or InvalidBucketName, never another bucket."""
    assert at(hosted, f"nobody.{DOMAIN}").signed("GET", "/k").code == "NoSuchBucket"
    assert at(hosted, f"Bad_Name.{DOMAIN}").signed("GET", "/k").code == "InvalidBucketName"
    assert at(hosted, f".{DOMAIN}").signed("GET", "/k").status in (400, 404)


def test_forms_and_preflights_follow_the_host(hosted):
    """A preflight to a bucket's host. Expected: that bucket's rules; a form to a path there is no form for the bucket."""
    server = at(hosted, f"photos.{DOMAIN}")
    rule = b"<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>"
    assert server.signed("PUT", "/", rule, [("cors", "")]).status == 200
    headers = {"origin": "http://page", "access_control_request_method": "GET"}
    assert server.send(server.request("OPTIONS", "/dir/me.jpg", **headers)).status == 200
    assert at(hosted, f"a.b.{DOMAIN}").send(at(hosted, f"a.b.{DOMAIN}").request("OPTIONS", "/dir/me.jpg", **headers)).status == 403
    form = server.request("POST", "/dir", content_type="multipart/form-data; boundary=x")
    assert server.send(form, b"--x--\r\n").code == "MethodNotAllowed"


def test_websites_have_hosts_of_their_own(hosted):
    """The website domain's host of a bucket that is no website. Expected: a page that says so, not the bucket."""
    server = at(hosted, "photos.web.palm.test")
    answer = server.send(server.request("GET", "/dir/me.jpg"))
    assert answer.status == 404 and b"NoSuchWebsiteConfiguration" in answer.body and answer.headers["content-type"].startswith("text/html")
