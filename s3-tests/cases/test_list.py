"""Listing. AWS: API_ListObjectsV2, API_ListObjects, userguide/list-obj-version-enabled-bucket (order: UTF-8 binary)."""

import concurrent.futures

import pytest

# UTF-8 order differs here from UTF-16 order (\ufffd before 🗝) and from locale order (A, a, é).
ORDER = ["A", "Z", "a", "a!", "a-b", "a/", "a/b", "a/b/c", "a0", "aa", "b", "é", "日本", "\ufffd", "🗝"]


def put_all(s3, bucket, keys):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=key.encode()[:9]), keys))


def listing_v2(s3, bucket, **arguments):
    """All pages: (keys, common prefixes), in the order they came."""
    keys, prefixes = [], []
    for _ in range(5000):
        page = s3.list_objects_v2(Bucket=bucket, **arguments)
        contents, common = page.get("Contents", []), page.get("CommonPrefixes", [])
        assert page["KeyCount"] == len(contents) + len(common) <= page["MaxKeys"]
        keys += [entry["Key"] for entry in contents]
        prefixes += [entry["Prefix"] for entry in common]
        if not page["IsTruncated"]:
            assert "NextContinuationToken" not in page
            return keys, prefixes
        arguments = arguments | {"ContinuationToken": page["NextContinuationToken"]}
    raise AssertionError("the listing does not end")


def listing_v1(s3, bucket, **arguments):
    keys, prefixes = [], []
    for _ in range(5000):
        page = s3.list_objects(Bucket=bucket, **arguments)
        contents, common = page.get("Contents", []), page.get("CommonPrefixes", [])
        keys += [entry["Key"] for entry in contents]
        prefixes += [entry["Prefix"] for entry in common]
        if not page["IsTruncated"]:
            return keys, prefixes
        # API_ListObjects: NextMarker comes only with a delimiter; else the last key is the marker.
        marker = page["NextMarker"] if arguments.get("Delimiter") else page.get("NextMarker", contents and contents[-1]["Key"])
        arguments = arguments | {"Marker": marker}
    raise AssertionError("the listing does not end")


def model(keys, prefix="", delimiter="", after=""):
    """What S3 must list: the specification in a few lines."""
    found, prefixes = [], []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix) or key.encode() <= after.encode():
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            found.append(key)
        elif (common := key[: cut + len(delimiter)]) not in prefixes:
            prefixes.append(common)
    return found, prefixes


def test_order_is_that_of_utf8_bytes(s3, bucket):
    """Keys whose order differs between bytes, UTF-16 and locales. Expected: byte order in both versions, each key once."""
    put_all(s3, bucket, reversed(ORDER))
    assert listing_v2(s3, bucket)[0] == ORDER
    assert listing_v1(s3, bucket)[0] == ORDER
    assert listing_v2(s3, bucket, MaxKeys=1)[0] == ORDER


def test_entries_tell_size_and_etag(s3, bucket):
    """What `aws s3 sync` and rclone decide by. Expected: the size, ETag, time and class of each entry agree with HEAD."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"12345")
    (entry,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (entry["Size"], entry["ETag"], entry["StorageClass"]) == (5, head["ETag"], "STANDARD")
    assert entry["LastModified"].replace(microsecond=0) == head["LastModified"]


def test_owner_only_on_request(s3, bucket):
    """V2 gives the owner with fetch-owner, V1 always."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]["ID"]
    assert s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"]["ID"]


def test_an_empty_listing(s3, bucket):
    """Nothing there, or nothing under the prefix. Expected: an empty, complete page, not an error."""
    for arguments in ({}, {"Prefix": "nothing/"}, {"Delimiter": "/"}, {"StartAfter": "zzz"}):
        page = s3.list_objects_v2(Bucket=bucket, **arguments)
        assert (page["KeyCount"], page["IsTruncated"], page.get("Contents")) == (0, False, None)


@pytest.mark.parametrize("max_keys", [1, 2, 3, 7, 1000])
def test_pages_meet_without_gap_or_overlap(s3, bucket, max_keys):
    """Folders and files between page borders, every page at another peer. Danger: a common prefix told twice, a key lost at the border.
    Expected: the pages together are the listing, for both versions."""
    keys = [f"{letter}/{number}" for letter in "abc" for number in range(4)] + ["a", "b", "ab", "c-", "d"]
    put_all(s3, bucket, keys)
    for arguments in ({}, {"Delimiter": "/"}, {"Delimiter": "/", "Prefix": "b"}, {"Prefix": "a/"}):
        expected = model(keys, arguments.get("Prefix", ""), arguments.get("Delimiter", ""))
        assert listing_v2(s3, bucket, MaxKeys=max_keys, **arguments) == expected
        assert listing_v1(s3, bucket, MaxKeys=max_keys, **arguments) == expected


def test_a_full_page_is_a_thousand(s3, bucket):
    """1,234 keys, default and too large MaxKeys. Expected: 1,000 on the first page, the rest on the second."""
    keys = [f"{number:05}" for number in range(1234)]
    put_all(s3, bucket, keys)
    for arguments in ({}, {"MaxKeys": 5000}):
        page = s3.list_objects_v2(Bucket=bucket, **arguments)
        assert (page["KeyCount"], page["IsTruncated"]) == (1000, True)
    assert listing_v2(s3, bucket)[0] == keys
    assert listing_v1(s3, bucket)[0] == keys


def test_max_keys_zero_and_nonsense(s3, bucket, refused):
    """MaxKeys=0 is an empty complete page; a negative one InvalidArgument; a made-up token InvalidArgument."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert (page["KeyCount"], page["IsTruncated"]) == (0, False)
    with refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket=bucket, MaxKeys=-1)
    with refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket=bucket, ContinuationToken="made up!")


def test_start_after_and_marker(s3, bucket):
    """start-after (V2) and marker (V1) need not name a key that exists, and are left out themselves."""
    keys = ["a", "b", "c", "d"]
    put_all(s3, bucket, keys)
    for after, rest in [("b", ["c", "d"]), ("bb", ["c", "d"]), ("d", []), ("", keys)]:
        assert listing_v2(s3, bucket, StartAfter=after)[0] == rest
        assert listing_v1(s3, bucket, Marker=after)[0] == rest


def test_a_delimiter_is_any_text(s3, bucket):
    """Delimiters of several characters, beyond ASCII, and ones that are part of the prefix."""
    keys = ["2026--01--x", "2026--02--y", "2026-plain", "日の丸", "日の出", "a.b.c", "a.b"]
    put_all(s3, bucket, keys)
    for prefix, delimiter in [("", "--"), ("2026--", "--"), ("日", "の"), ("a.", "."), ("", "zz"), ("2026--0", "--")]:
        assert listing_v2(s3, bucket, Prefix=prefix, Delimiter=delimiter) == model(keys, prefix, delimiter)


def test_a_deleted_key_is_gone_from_every_listing(s3, bucket, rounds):
    """PUT, LIST, DELETE, LIST, each call at another peer (list-after-write). Danger: a follower that lags. Expected: never stale."""
    for turn in range(rounds(30, 1000)):
        key = f"key-{turn % 5}"
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        assert key in listing_v2(s3, bucket)[0]
        s3.delete_object(Bucket=bucket, Key=key)
        assert key not in listing_v2(s3, bucket)[0]


def test_random_listings_agree_with_the_model(s3, bucket, rng, rounds):
    """Random keys over a small alphabet, random prefix, delimiter, start and page size. Danger: the combinations nobody wrote a test
    for. Expected: exactly what the model says."""
    keys = {"".join(rng.choices("ab/-é", k=rng.randint(1, 6))) for _ in range(120)}
    put_all(s3, bucket, keys)
    for _ in range(rounds(100, 2000)):
        prefix = "".join(rng.choices("ab/-", k=rng.choice([0, 0, 1, 2])))
        delimiter = rng.choice(["", "/", "/", "-", "ab", "é"])
        # With a delimiter, a start inside a common prefix is told differently by different servers; no client relies on it.
        after = "" if delimiter else "".join(rng.choices("ab/-é", k=rng.choice([0, 2])))
        max_keys = rng.choice([1, 2, 3, 5, 10, 1000])
        arguments = {"Prefix": prefix, "MaxKeys": max_keys} | ({"Delimiter": delimiter} if delimiter else {})
        expected = model(keys, prefix, delimiter, after)
        v2 = listing_v2(s3, bucket, **arguments, **({"StartAfter": after} if after else {}))
        assert v2 == expected, (arguments, after)
        v1 = listing_v1(s3, bucket, **arguments, **({"Marker": after} if after else {}))
        assert v1 == expected, (arguments, after)
