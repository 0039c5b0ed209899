"""boto3 at a PALM pool: put, get, list, upload in parts, a presigned link, a conditional put.

    export AWS_ENDPOINT_URL_S3=http://127.0.0.1:9000 AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
    python palm_example.py
"""

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

# Every part but the last has at least 5 MiB.
PART_BYTES = 5 * 1024 * 1024

# Path style: the bucket is in the path, as no name server knows BUCKET.127.0.0.1. Presigned links need version 4 of the signature.
s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"))

bucket = "sdk-python"
s3.create_bucket(Bucket=bucket)

text = b"kept by the peers of this network\n"
s3.put_object(Bucket=bucket, Key="greeting.txt", Body=text, ContentType="text/plain")
assert s3.get_object(Bucket=bucket, Key="greeting.txt")["Body"].read() == text

# Only if there is nothing by that name yet: decided once for the whole pool, whichever peers are asked.
try:
    s3.put_object(Bucket=bucket, Key="greeting.txt", Body=b"", IfNoneMatch="*")
    raise SystemExit("a conditional put replaced an object")
except ClientError as error:
    assert error.response["Error"]["Code"] == "PreconditionFailed"

upload = s3.create_multipart_upload(Bucket=bucket, Key="large.bin")["UploadId"]
parts = []
for number, size in [(1, PART_BYTES), (2, 1000)]:
    part = s3.upload_part(Bucket=bucket, Key="large.bin", UploadId=upload, PartNumber=number, Body=bytes(size))
    parts.append({"PartNumber": number, "ETag": part["ETag"]})
s3.complete_multipart_upload(Bucket=bucket, Key="large.bin", UploadId=upload, MultipartUpload={"Parts": parts})

listed = {entry["Key"]: entry["Size"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]}
assert listed == {"greeting.txt": len(text), "large.bin": PART_BYTES + 1000}

# Whoever has this link reads the object for an hour, without a key.
link = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "greeting.txt"}, ExpiresIn=3600)
print("ok", link)
