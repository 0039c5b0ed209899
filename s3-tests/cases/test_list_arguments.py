"""The parameters of a listing, one by one, and what the answer repeats of them. AWS: API_ListObjects, API_ListObjectsV2."""

import concurrent.futures
import xml.etree.ElementTree as ElementTree

import pytest

KEYS = ["bar", "baz", "foo", "quxx"]


@pytest.fixture
def listed(s3, bucket):
    """`listed(keys)`: the bucket with these keys."""
    def put(keys=KEYS):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=key.encode()), keys))
        return bucket
    return put


def both(s3, bucket, **arguments):
    """The answers of both versions."""
    return s3.list_objects(Bucket=bucket, **arguments), s3.list_objects_v2(Bucket=bucket, **arguments)


def names(answer):
    return [entry["Key"] for entry in answer.get("Contents", [])], [entry["Prefix"] for entry in answer.get("CommonPrefixes", [])]


def test_nothing_given(s3, listed):
    """No parameter. Expected: the defaults are told (Prefix empty, MaxKeys 1000), the delimiter is not."""
    first, second = both(s3, listed())
    for answer in (first, second):
        assert (answer["Prefix"], answer["MaxKeys"], answer["IsTruncated"]) == ("", 1000, False)
        assert "Delimiter" not in answer and "CommonPrefixes" not in answer
        assert names(answer) == (KEYS, [])
    assert first["Marker"] == "" and "NextMarker" not in first
    assert second["KeyCount"] == len(KEYS) and "ContinuationToken" not in second and "StartAfter" not in second


@pytest.mark.parametrize("delimiter, keys, prefixes", [
    ("", ["bar", "baz", "foo"], []), ("\n", ["bar", "baz", "foo"], []), ("/", ["bar", "baz", "foo"], []), ("a", ["foo"], ["ba"]),
    ("z", ["bar", "foo"], ["baz"]), ("%", ["bar", "baz", "foo"], []), (" ", ["bar", "baz", "foo"], []), (".", ["bar", "baz", "foo"], []), ("oo", ["bar", "baz"], ["foo"]),
], ids=repr)
def test_delimiters(s3, listed, delimiter, keys, prefixes):
    """Empty, unprintable, absent from all keys, the last letter, longer than one. Expected: an empty one is none; any other is told."""
    for answer in both(s3, listed(["bar", "baz", "foo"]), Delimiter=delimiter):
        assert names(answer) == (keys, prefixes)
        assert answer.get("Delimiter", "") == delimiter and ("Delimiter" in answer) == bool(delimiter)


@pytest.mark.parametrize("delimiter, given, keys, prefixes", [
    ("%", ["b%ar", "b%az", "c%ab", "foo"], ["foo"], ["b%", "c%"]),
    (" ", ["b ar", "b az", "c ab", "foo"], ["foo"], ["b ", "c "]),
    (".", ["b.ar", "b.az", "c.ab", "foo"], ["foo"], ["b.", "c."]),
    ("/", ["0/", *(f"0/{number}" for number in range(1000, 1012)), "1999", "2000"], ["1999", "2000"], ["0/"]),
], ids=["percent", "space", "dot", "slash"])
def test_delimiters_that_group(s3, listed, delimiter, given, keys, prefixes):
    """Characters that encodings touch, and a marker object of a folder. Expected: groups as with any other."""
    for answer in both(s3, listed(given), Delimiter=delimiter):
        assert names(answer) == (keys, prefixes)


@pytest.mark.parametrize("prefix, keys", [("", ["foo/bar", "foo/baz", "quux"]), ("foo/", ["foo/bar", "foo/baz"]), ("d", []), ("\n", []), ("quux", ["quux"])], ids=repr)
def test_prefixes(s3, listed, prefix, keys):
    """Empty, a folder, nothing's, unprintable. Expected: told as given, and it filters."""
    for answer in both(s3, listed(["foo/bar", "foo/baz", "quux"]), Prefix=prefix):
        assert names(answer) == (keys, []) and answer["Prefix"] == prefix


def test_prefix_and_delimiter_page_by_page(s3, listed):
    """Two pages of one line each, as a file browser asks. Expected: a line is a key or a group; NextMarker is the line that came last."""
    bucket = listed(["asdf", "boo/bar", "boo/baz/xyzzy", "cquux/thud", "cquux/bla"])
    marker, seen = "", []
    while True:
        answer = s3.list_objects(Bucket=bucket, Delimiter="/", MaxKeys=1, Marker=marker)
        keys, prefixes = names(answer)
        (line,) = keys + prefixes
        seen.append(line)
        if not answer["IsTruncated"]:
            break
        assert answer["NextMarker"] == line
        marker = line
    assert seen == ["asdf", "boo/", "cquux/"]
    answer = s3.list_objects(Bucket=bucket, Delimiter="/", Prefix="boo/", MaxKeys=1)
    assert names(answer) == (["boo/bar"], []) and answer["NextMarker"] == "boo/bar"
    answer = s3.list_objects(Bucket=bucket, Delimiter="/", Prefix="boo/", Marker="boo/bar")
    assert names(answer) == ([], ["boo/baz/"]) and not answer["IsTruncated"]


@pytest.mark.parametrize("marker, keys", [("", KEYS), ("\n", KEYS), ("blah", ["foo", "quxx"]), ("zzz", []), ("aaa", KEYS), ("foo", ["quxx"])], ids=repr)
def test_markers(s3, listed, marker, keys):
    """Empty, unprintable, no key, after all, before all. Expected: what follows it; told as given."""
    bucket = listed()
    first = s3.list_objects(Bucket=bucket, Marker=marker)
    assert names(first) == (keys, []) and first["Marker"] == marker and not first["IsTruncated"]
    second = s3.list_objects_v2(Bucket=bucket, StartAfter=marker)
    assert names(second) == (keys, []) and second.get("StartAfter", "") == marker


def test_continuation_tokens(s3, listed):
    """One page after the other with start-after still given, as SDKs do; an empty token. Expected: the token wins; both are told; an empty
    one is none."""
    bucket = listed()
    first = s3.list_objects_v2(Bucket=bucket, StartAfter="bar", MaxKeys=1)
    assert names(first) == (["baz"], []) and first["IsTruncated"]
    second = s3.list_objects_v2(Bucket=bucket, StartAfter="bar", ContinuationToken=first["NextContinuationToken"])
    assert names(second) == (["foo", "quxx"], []) and not second["IsTruncated"]
    assert (second["ContinuationToken"], second["StartAfter"]) == (first["NextContinuationToken"], "bar")
    answer = s3.list_objects_v2(Bucket=bucket, ContinuationToken="")
    assert names(answer) == (KEYS, []) and answer["ContinuationToken"] == ""


@pytest.mark.parametrize("value", ["blah", "-1", "1.5", "99999999999999999999", "0x10", " "])
def test_page_sizes_that_are_none(target, bucket, value):
    """Expected: InvalidArgument from both versions."""
    for query in ([], [("list-type", "2")]):
        answer = target.server.signed("GET", f"/{bucket}", query=[*query, ("max-keys", value)])
        assert (answer.status, answer.code) == (400, "InvalidArgument"), str(answer)


@pytest.mark.parametrize("query", [[], [("list-type", "2")], [("versions", "")]])
def test_an_empty_page_size_is_none(target, listed, query):
    """Expected: the page that is answered to who names no size; a wrong key is told so as ever, and gets nothing."""
    bucket = listed()
    answer = target.server.signed("GET", f"/{bucket}", query=[*query, ("max-keys", "")])
    assert answer.status == 200 and b"<MaxKeys>1000</MaxKeys>" in answer.body, str(answer)
    assert answer.body.count(b"<Key>") == len(KEYS)
    unsigned = target.server.send(target.server.request("GET", f"/{bucket}", [*query, ("max-keys", "")]))
    assert (unsigned.status, unsigned.code) == (403, "AccessDenied"), str(unsigned)


def test_an_unknown_encoding(target, bucket):
    """Expected: InvalidArgument."""
    answer = target.server.signed("GET", f"/{bucket}", query=[("encoding-type", "base64")])
    assert (answer.status, answer.code) == (400, "InvalidArgument"), str(answer)


def test_encoding_url(s3, listed):
    """Keys that XML or a URL would change. Expected: percent-encoded, the slash left as it is, in keys, prefixes and what is repeated."""
    bucket = listed(["foo+1/bar", "foo/bar/xyz", "quux ab/thud", "asdf+b", "ü/k"])
    for answer in both(s3, bucket, Delimiter="/", EncodingType="url"):
        assert answer["EncodingType"] == "url"
        assert names(answer) == (["asdf%2Bb"], ["foo%2B1/", "foo/", "quux%20ab/", "%C3%BC/"])


def test_keys_that_xml_cannot_hold(target, s3, listed):
    """A key with a control character, asked for without an encoding. Danger: an answer that no parser reads. Expected: well-formed XML, with
    the key in it one way or another."""
    bucket = listed(["bell\x07", "plain"])
    answer = target.server.signed("GET", f"/{bucket}", query=[("list-type", "2")])
    found = [entry.text for entry in ElementTree.fromstring(answer.body).iterfind(".//{*}Key")]
    assert found[1] == "plain" and found[0].startswith("bell")
    assert names(s3.list_objects_v2(Bucket=bucket)) == (["bell\x07", "plain"], [])


def test_fetch_owner(s3, listed):
    """V2 tells owners when asked, V1 always. Expected: an id, and the name that GetObjectAcl gives, if it gives one."""
    bucket = listed(["k"])
    owner = s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"]
    assert owner["ID"]
    assert s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"] == owner
    for arguments in ({}, {"FetchOwner": False}):
        assert "Owner" not in s3.list_objects_v2(Bucket=bucket, **arguments)["Contents"][0]


@pytest.mark.parametrize("prefix", ["_bla/", "_underscore", "-", "~", "..", "%2e", "?", "#", "+", "&", "\\", "'\"<>"])
def test_special_prefixes(s3, listed, prefix):
    """Prefixes that paths, URLs and XML treat specially. Expected: a key under each is listed under it."""
    bucket = listed([f"{prefix}1", "other"])
    for answer in both(s3, bucket, Prefix=prefix):
        assert names(answer) == ([f"{prefix}1"], [])


def test_what_is_listed_needs_a_bucket(s3, refused):
    """Expected: NoSuchBucket, also when no entries are asked for."""
    for arguments in ({}, {"MaxKeys": 0}, {"Prefix": "x", "Delimiter": "/"}):
        with refused("NoSuchBucket", 404):
            s3.list_objects(Bucket="no-such-bucket-here", **arguments)
        with refused("NoSuchBucket", 404):
            s3.list_objects_v2(Bucket="no-such-bucket-here", **arguments)
