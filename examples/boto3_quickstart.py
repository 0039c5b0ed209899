"""Stores and reads one object through any peer of a pool.

    pip install boto3
    AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… python examples/boto3_quickstart.py http://127.0.0.1:9000
"""

import sys

import boto3
from botocore.config import Config

endpoint = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9000"
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))

s3.create_bucket(Bucket="hello")
s3.put_object(Bucket="hello", Key="greeting.txt", Body=b"kept by the peers of this network\n", ContentType="text/plain")
print(s3.get_object(Bucket="hello", Key="greeting.txt")["Body"].read().decode(), end="")
for entry in s3.list_objects_v2(Bucket="hello")["Contents"]:
    print(entry["Key"], entry["Size"])
