// The AWS SDK for JavaScript at a PALM pool: put, get, list, upload in parts, a presigned link, a conditional put.
//
//     export AWS_ENDPOINT_URL_S3=http://127.0.0.1:9000 AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
//     npm ci && node palm-example.mjs

import assert from "node:assert/strict";
import {
  CompleteMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

// Every part but the last has at least 5 MiB.
const PART_BYTES = 5 * 1024 * 1024;

// Path style: the bucket is in the path, as no name server knows BUCKET.127.0.0.1.
const s3 = new S3Client({ forcePathStyle: true });

const Bucket = "sdk-javascript";
await s3.send(new CreateBucketCommand({ Bucket }));

const text = "kept by the peers of this network\n";
const greeting = { Bucket, Key: "greeting.txt" };
await s3.send(new PutObjectCommand({ ...greeting, Body: text, ContentType: "text/plain" }));
const got = await s3.send(new GetObjectCommand(greeting));
assert.equal(await got.Body.transformToString(), text);

// Only if there is nothing by that name yet: decided once for the whole pool, whichever peers are asked.
await assert.rejects(s3.send(new PutObjectCommand({ ...greeting, Body: "", IfNoneMatch: "*" })), { name: "PreconditionFailed" });

const large = { Bucket, Key: "large.bin" };
const { UploadId } = await s3.send(new CreateMultipartUploadCommand(large));
const Parts = [];
for (const [PartNumber, size] of [[1, PART_BYTES], [2, 1000]]) {
  const { ETag } = await s3.send(new UploadPartCommand({ ...large, UploadId, PartNumber, Body: Buffer.alloc(size) }));
  Parts.push({ PartNumber, ETag });
}
await s3.send(new CompleteMultipartUploadCommand({ ...large, UploadId, MultipartUpload: { Parts } }));

const listed = await s3.send(new ListObjectsV2Command({ Bucket }));
assert.deepEqual(
  listed.Contents.map(({ Key, Size }) => [Key, Size]),
  [["greeting.txt", text.length], ["large.bin", PART_BYTES + 1000]],
);

// Whoever has this link reads the object for an hour, without a key.
const link = await getSignedUrl(s3, new GetObjectCommand(greeting), { expiresIn: 3600 });
console.log("ok", link);
