"""Websites of buckets. AWS: userguide/WebsiteHosting, userguide/how-to-page-redirect, userguide/CustomErrorDocSupport, API_PutBucketWebsite,
userguide/WebsiteEndpoints. A pool of its own where pages are visited, since their domain is a setting."""

import json

import pytest

import sigv4
from palm_cluster import Pool

DOMAIN = "web.palm.test"


def test_a_website_is_kept(s3, bucket, refused):
    """A configuration is put, read and deleted, and replaced by a redirection of everything. Expected: every field comes back."""
    rule = {"Condition": {"KeyPrefixEquals": "docs/", "HttpErrorCodeReturnedEquals": "404"},
            "Redirect": {"Protocol": "https", "HostName": "example.org", "ReplaceKeyPrefixWith": "documents/", "HttpRedirectCode": "302"}}
    website = {"IndexDocument": {"Suffix": "index.html"}, "ErrorDocument": {"Key": "error.html"}, "RoutingRules": [rule]}
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=website)
    got = s3.get_bucket_website(Bucket=bucket)
    assert {name: got[name] for name in website} == website
    everything = {"RedirectAllRequestsTo": {"HostName": "example.org", "Protocol": "https"}}
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=everything)
    got = s3.get_bucket_website(Bucket=bucket)
    assert got["RedirectAllRequestsTo"] == everything["RedirectAllRequestsTo"] and "IndexDocument" not in got
    assert s3.delete_bucket_website(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchWebsiteConfiguration", 404):
        s3.get_bucket_website(Bucket=bucket)


INDEX = {"IndexDocument": {"Suffix": "index.html"}}


@pytest.mark.parametrize(
    "website",
    [
        {}, {"IndexDocument": {"Suffix": "a/b"}}, {"ErrorDocument": {"Key": "error.html"}}, INDEX | {"RedirectAllRequestsTo": {"HostName": "a"}},
        INDEX | {"RoutingRules": [{"Redirect": {"HttpRedirectCode": "200"}}]},
        INDEX | {"RoutingRules": [{"Condition": {"HttpErrorCodeReturnedEquals": "200"}, "Redirect": {"HostName": "a"}}]},
        INDEX | {"RoutingRules": [{"Redirect": {"ReplaceKeyWith": "a", "ReplaceKeyPrefixWith": "b"}}]},
        INDEX | {"RoutingRules": [{"Redirect": {"Protocol": "gopher"}}]},
    ],
)
def test_wrong_websites_are_refused(s3, bucket, refused, website):
    """Configurations that cannot be served. Expected: 400, and the bucket is no website."""
    with refused(("InvalidArgument", "InvalidRequest", "MalformedXML"), 400):
        s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=website)
    with refused("NoSuchWebsiteConfiguration", 404):
        s3.get_bucket_website(Bucket=bucket)


class Site:
    def __init__(self, pool):
        self.s3 = pool.peers[0].client()
        self.server = sigv4.Server(pool.peers[0].endpoint, sigv4.Credentials(pool.access_key, pool.secret_key))

    def visit(self, path, method="GET", bucket="site", **headers):
        request = self.server.request(method, path, **headers)
        request.headers["host"] = f"{bucket}.{DOMAIN}:8080"
        return self.server.send(request)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Pool.form(tmp_path_factory.mktemp("site"), 1, settings={"s3.website_domains": DOMAIN}) as pool:
        site = Site(pool)
        site.s3.create_bucket(Bucket="site")
        public = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::site/*"}
        hidden = public | {"Effect": "Deny", "Resource": "arn:aws:s3:::site/hidden*"}
        site.s3.put_bucket_policy(Bucket="site", Policy=json.dumps({"Version": "2012-10-17", "Statement": [public, hidden]}))
        rules = [
            {"Condition": {"KeyPrefixEquals": "old/"}, "Redirect": {"ReplaceKeyPrefixWith": "new/"}},
            {"Condition": {"KeyPrefixEquals": "lost/", "HttpErrorCodeReturnedEquals": "403"}, "Redirect": {"HostName": "found.test", "HttpRedirectCode": "307"}},
        ]
        website = {"IndexDocument": {"Suffix": "index.html"}, "ErrorDocument": {"Key": "error.html"}, "RoutingRules": rules}
        site.s3.put_bucket_website(Bucket="site", WebsiteConfiguration=website)
        for key, body in {"index.html": "home", "dir/index.html": "dir", "a b&ü.html": "odd", "error.html": "oops", "lost/there": "there", "hidden": "h"}.items():
            site.s3.put_object(Bucket="site", Key=key, Body=body.encode(), ContentType="text/html")
        site.s3.put_object(Bucket="site", Key="moved", Body=b"", WebsiteRedirectLocation="/dir/")
        yield site


@pytest.mark.own_pool
@pytest.mark.parametrize(("path", "body"), [("/", b"home"), ("/dir/", b"dir"), ("/index.html", b"home"), ("/a b&ü.html", b"odd")])
def test_pages_are_served(site, path, body):
    """Index documents and pages. Expected: to anybody, with the object's type; HEAD says the same without the page."""
    answer = site.visit(path)
    assert (answer.status, answer.body) == (200, body), answer
    assert answer.headers["content-type"] == "text/html" and "x-amz-request-id" in answer.headers
    head = site.visit(path, "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(body)))


@pytest.mark.own_pool
def test_conditions_and_ranges(site):
    """A browser's cache and a player's range. Expected: as for GetObject."""
    tag = site.visit("/").headers["etag"]
    assert site.visit("/", if_none_match=tag).status == 304
    answer = site.visit("/", range="bytes=1-2")
    assert (answer.status, answer.body) == (206, b"om")
    # Passed over, as GetObject does.
    assert site.visit("/", range="bytes=0-0,2-2").status == site.visit("/", if_modified_since="yesterday").status == 200


@pytest.mark.own_pool
@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/dir", 302, "/dir/"), ("/moved", 301, "/dir/"), ("/old/a", 301, f"http://site.{DOMAIN}:8080/new/a"), ("/lost/x", 307, "http://found.test/lost/x"),
    ],
)
def test_redirections(site, path, status, location):
    """A folder without its slash, an object that moved, rules before and after. Expected: AWS's statuses and locations."""
    for method in ["GET", "HEAD"]:
        answer = site.visit(path, method)
        assert (answer.status, answer.headers.get("location")) == (status, location), answer
    assert site.visit("/lost/there").body == b"there"


@pytest.mark.own_pool
@pytest.mark.parametrize("path", ["/missing", "/hidden"])
def test_errors_have_the_error_document(site, path):
    """What is missing or forbidden. Expected: the error's status, the document's page, and the code in a header."""
    answer = site.visit(path)
    assert (answer.status, answer.body) == (403, b"oops"), answer
    assert answer.headers["x-amz-error-code"] == "AccessDenied"
    assert answer.headers["content-type"] == "text/html"


@pytest.mark.own_pool
def test_errors_without_a_document_are_pages(site):
    """A bucket that is private, none, no website; other methods; a signed request. Expected: HTML with the code; a website knows no one."""
    for bucket, status, code in [("nobody-here", 404, "NoSuchBucket"), ("plain", 404, "NoSuchWebsiteConfiguration"), ("private", 403, "AccessDenied")]:
        if code != "NoSuchBucket":
            site.s3.create_bucket(Bucket=bucket)
        if code == "AccessDenied":
            site.s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=INDEX)
            site.s3.put_object(Bucket=bucket, Key="index.html", Body=b"secret")
        answer = site.visit("/", bucket=bucket)
        assert answer.status == status and f"<li>Code: {code}</li>".encode() in answer.body, answer
        assert answer.headers["content-type"].startswith("text/html") and answer.headers["x-amz-error-code"] == code
        assert answer.headers["x-amz-request-id"].encode() in answer.body
    assert site.visit("/", "PUT").status == 405 and site.visit("/", "POST").status == 405
    request = site.server.request("GET", "/")
    request.headers["host"] = f"private.{DOMAIN}"
    assert site.server.send(site.server.credentials.authorize(request, sigv4.EMPTY_SHA256)).status == 403


@pytest.mark.own_pool
def test_everything_is_redirected(site):
    """RedirectAllRequestsTo. Expected: every path, to the same path there."""
    site.s3.create_bucket(Bucket="gone")
    site.s3.put_bucket_website(Bucket="gone", WebsiteConfiguration={"RedirectAllRequestsTo": {"HostName": "example.org", "Protocol": "https"}})
    answer = site.visit("/a/b c", bucket="gone")
    assert (answer.status, answer.headers["location"]) == (301, "https://example.org/a/b%20c")


@pytest.mark.own_pool
def test_locations_must_be_somewhere(site, refused):
    """x-amz-website-redirect-location that is no location. Expected: InvalidRedirectLocation."""
    with refused("InvalidRedirectLocation", 400):
        site.s3.put_object(Bucket="site", Key="bad", Body=b"", WebsiteRedirectLocation="nowhere")


@pytest.mark.own_pool
def test_odd_visits(site):
    """Paths longer than any key, that are no UTF-8 or no escapes, and hosts that are no names. Danger: 5xx, an empty page with 200, another
    object. Expected: 4xx pages."""
    for path in ["/" + "ü" * 4_500, "/a\0b", "/../hidden", "//index.html"]:
        answer = site.visit(path)
        assert 400 <= answer.status < 500 and b"<html>" in answer.body or answer.body == b"oops", answer
    for bucket in ["si te", "site?", "..", "x" * 300, "%00"]:
        assert 400 <= site.visit("/", bucket=bucket).status < 500, bucket
