"""Operations that PALM does not have, and the page that says so. AWS: API/API_Operations_Amazon_Simple_Storage_Service."""

import datetime
import json

import botocore
import pytest

import compatibility
from observed import service_model

pytestmark = pytest.mark.palm

# These two have endpoints of their own, and at this one no bucket or another meaning.
ELSEWHERE = ("ListDirectoryBuckets", "WriteGetObjectResponse")
REFUSED = [
    name for name in service_model().operation_names
    if compatibility.refusal(name) and name not in compatibility.served() and name not in ELSEWHERE
]


def least(shape):
    """The smallest value that boto3 takes for a parameter."""
    match shape.type_name:
        case "structure":
            members = list(shape.members)[:1] if getattr(shape, "is_tagged_union", False) else shape.required_members
            return {member: least(shape.members[member]) for member in members}
        case "list":
            return [least(shape.member)]
        case "map":
            return {}
        case "integer" | "long":
            return 1
        case "boolean":
            return True
        case "timestamp":
            return datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
        case "blob":
            return b"x"
        case _:
            return shape.enum[0] if shape.enum else "x" * shape.metadata.get("min", 1)


@pytest.mark.parametrize("operation", REFUSED)
def test_an_unwanted_operation(s3, bucket, refused, operation):
    """As an SDK sends it, for a bucket and key that exist. Danger: `PUT ?accelerate` taken for CreateBucket, `GET ?torrent` for GetObject.
    Expected: NotImplemented, 501, and everything as it was."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept")
    arguments = least(service_model().operation_model(operation).input_shape) | {"Bucket": bucket, "Key": "k"}
    arguments = {name: value for name, value in arguments.items() if name in service_model().operation_model(operation).input_shape.members}
    with refused("NotImplemented", 501):
        getattr(s3, botocore.xform_name(operation))(**arguments)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"kept"


def test_an_unwanted_operation_with_a_wrong_body(target, s3, bucket):
    """SelectObjectContent with what is no XML. Danger: a client mends its XML in vain. Expected: NotImplemented all the same; who may not read
    hears of that first."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept")
    query = [("select", ""), ("select-type", "2")]
    assert target.server.signed("POST", f"/{bucket}/k", b"<x", query).status == 501
    assert target.server.send(target.server.request("POST", f"/{bucket}/k", query), b"<x").status == 403


def test_every_operation_is_served_or_refused_on_purpose():
    """Danger: an operation that nobody thought of. Expected: each of AWS's is in the front end's table, an older name, or has its reason."""
    served = compatibility.served()
    assert [name for name in compatibility.operations() if compatibility.standing(name, served) == "no"] == []
    assert {name for name in served if name in compatibility.SAME_AS} == set()


def test_the_page_names_every_operation(tmp_path):
    """docs/s3-compatibility.md as kept, and as made of one result. Danger: an operation without a word. Expected: each is named, with the
    number of its tests."""
    result = {"mode": "one peer", "tests": {"a": {"outcome": "passed", "operations": {"PutObject": {"": 2, "NoSuchBucket": 1}}}}}
    made = compatibility.page([json.loads(json.dumps(result))])
    assert "| PutObject | yes | 1 | `NoSuchBucket` |" in made
    kept = (compatibility.FRONT_END.parents[4] / "docs/s3-compatibility.md").read_text()
    for page in (made, kept):
        assert [name for name in compatibility.operations() if f"| {name} |" not in page] == []
