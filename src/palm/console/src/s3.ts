// S3 itself, spoken through the peer, which signs for the session's key.

import { Failure, LOGGED_OUT, OWN } from "./api";

const ROOT = "/console/s3/";
/** Files from this size on go up in parts: one that fails is sent again by itself. */
const PART_BYTES = 32 << 20;
const MAX_PARTS = 10_000;
const PARTS_AT_ONCE = 3;
const TRIES = 3;
/** Keys that one DeleteObjects takes. */
const DELETED_AT_ONCE = 1000;

export interface Listed {
  key: string;
  size: number;
  modified: string;
  /** Of a listing of versions. */
  version?: string;
  latest?: boolean;
  marker?: boolean;
}

export interface Page {
  folders: string[];
  objects: Listed[];
  /** Asks for the next page. */
  next: Record<string, string> | null;
}

/** Whether a URL can name the key: browsers take `.` and `..` out of paths, and would mean another object. */
export const isReachable = (key: string): boolean => !key.split("/").some((part) => part === "." || part === "..");

/** Where a bucket or an object is. */
function place(bucket: string, key = "", query: Record<string, string> = {}): string {
  if (!isReachable(key)) throw new Failure(400, "a browser cannot reach keys with “.” or “..” as a part; use an S3 client");
  const path = key.split("/").map(encodeURIComponent).join("/");
  const search = new URLSearchParams(query).toString();
  return `${ROOT}${encodeURIComponent(bucket)}${key ? `/${path}` : ""}${search ? `?${search}` : ""}`;
}

/** Where the browser fetches an object to save it. */
export const downloadUrl = (bucket: string, { key, version }: Listed): string =>
  place(bucket, key, version ? { versionId: version } : {});

const parse = (xml: string) => new DOMParser().parseFromString(xml, "application/xml");
const text = (node: ParentNode, name: string): string => node.querySelector(name)?.textContent ?? "";

/** What an error's XML says to people. */
function failure(status: number, xml: string): Failure {
  if (status === 401) window.dispatchEvent(new Event(LOGGED_OUT));
  const told = text(parse(xml), "Message");
  return new Failure(status, told || (status === 0 ? "this peer does not answer" : `the peer answered ${status}`));
}

async function call(method: string, url: string, body?: string, headers: Record<string, string> = {}): Promise<Document> {
  const answer = await fetch(url, { method, body, headers: { ...OWN, ...headers } }).catch(() => {
    throw failure(0, "");
  });
  const xml = await answer.text();
  if (!answer.ok) throw failure(answer.status, xml);
  const document = parse(xml || "<nothing/>");
  // Some operations say 200 before they know, and tell of failure in the body.
  if (document.documentElement.tagName === "Error") throw failure(500, xml);
  return document;
}

export async function listBuckets(): Promise<{ name: string; created: string }[]> {
  const document = await call("GET", ROOT);
  return [...document.querySelectorAll("Buckets > Bucket")].map((bucket) => ({
    name: text(bucket, "Name"),
    created: text(bucket, "CreationDate"),
  }));
}

export const createBucket = (name: string) => call("PUT", place(name));
export const deleteBucket = (name: string) => call("DELETE", place(name));

export async function isVersioned(bucket: string): Promise<boolean> {
  return text(await call("GET", place(bucket, "", { versioning: "" })), "Status") === "Enabled";
}

export const setVersioned = (bucket: string, on: boolean) =>
  call(
    "PUT",
    place(bucket, "", { versioning: "" }),
    `<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>${on ? "Enabled" : "Suspended"}</Status></VersioningConfiguration>`,
  );

/** Names come percent-encoded, as XML cannot hold every character of a key. */
const decode = (name: string) => decodeURIComponent(name.replaceAll("+", " "));

/** A page of what lies directly in a folder. */
export async function list(bucket: string, prefix: string, versions: boolean, from: Page["next"]): Promise<Page> {
  const kind: Record<string, string> = versions ? { versions: "" } : { "list-type": "2" };
  const query = { ...kind, prefix, delimiter: "/", "encoding-type": "url", "max-keys": "200", ...from };
  const document = await call("GET", place(bucket, "", query));
  const folders = [...document.querySelectorAll("CommonPrefixes > Prefix")].map((node) => decode(node.textContent ?? ""));
  const objects = [...document.querySelectorAll(versions ? "Version, DeleteMarker" : "Contents")].map((node) => ({
    key: decode(text(node, "Key")),
    size: Number(text(node, "Size")),
    modified: text(node, "LastModified"),
    ...(versions && {
      version: text(node, "VersionId"),
      latest: text(node, "IsLatest") === "true",
      marker: node.tagName === "DeleteMarker",
    }),
  }));
  const more = text(document, "IsTruncated") === "true";
  const next: Record<string, string> = versions
    ? { "key-marker": decode(text(document, "NextKeyMarker")), "version-id-marker": text(document, "NextVersionIdMarker") }
    : { "continuation-token": text(document, "NextContinuationToken") };
  return { folders, objects, next: more ? next : null };
}

const escape = (name: string) =>
  name.replace(/[&<>\p{Cc}]/gu, (letter) => `&#${letter.codePointAt(0)};`);

/** Deletes by a list in the body, where a key needs not be part of a URL. */
export async function remove(bucket: string, objects: Listed[]): Promise<void> {
  for (let at = 0; at < objects.length; at += DELETED_AT_ONCE) {
    const entries = objects.slice(at, at + DELETED_AT_ONCE).map(({ key, version }) => {
      const id = version ? `<VersionId>${escape(version)}</VersionId>` : "";
      return `<Object><Key>${escape(key)}</Key>${id}</Object>`;
    });
    const body = `<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>${entries.join("")}</Delete>`;
    const sum = { "x-amz-checksum-crc32": crc32(new TextEncoder().encode(body)) };
    const document = await call("POST", place(bucket, "", { delete: "" }), body, sum);
    const refused = document.querySelectorAll("Error");
    if (refused[0]) throw new Failure(403, `${text(refused[0], "Key")}: ${text(refused[0], "Message")}`);
  }
}

/** All that lies below a folder. */
export async function listAll(bucket: string, prefix: string): Promise<Listed[]> {
  const found: Listed[] = [];
  let from: Record<string, string> = {};
  for (;;) {
    const query = { "list-type": "2", prefix, "encoding-type": "url", ...from };
    const document = await call("GET", place(bucket, "", query));
    for (const node of document.querySelectorAll("Contents")) {
      found.push({ key: decode(text(node, "Key")), size: Number(text(node, "Size")), modified: "" });
    }
    if (text(document, "IsTruncated") !== "true") return found;
    from = { "continuation-token": text(document, "NextContinuationToken") };
  }
}

/** CRC-32 as S3 wants it: four bytes, the first the highest, in base64. The browser's own hashes need TLS. */
function crc32(data: Uint8Array): string {
  let crc = ~0;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  crc = ~crc >>> 0;
  return btoa(String.fromCharCode(crc >>> 24, (crc >>> 16) & 255, (crc >>> 8) & 255, crc & 255));
}

/** Sends a body and tells how much of it is out; fetch cannot tell. */
function send(url: string, body: Blob, type: string, signal: AbortSignal, sent: (bytes: number) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open("PUT", url);
    for (const [name, value] of Object.entries(OWN)) request.setRequestHeader(name, value);
    request.setRequestHeader("content-type", type || "application/octet-stream");
    request.upload.onprogress = (event) => sent(event.loaded);
    request.onload = () =>
      request.status < 300
        ? resolve(request.getResponseHeader("etag") ?? "")
        : reject(failure(request.status, request.responseText));
    request.onerror = () => reject(failure(0, ""));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    request.onloadend = () => signal.removeEventListener("abort", abort);
    signal.addEventListener("abort", abort);
    signal.throwIfAborted();
    request.send(body);
  });
}

/** Puts a file; `progress` hears how many bytes of it are sent. Nothing of it is held in memory. */
export async function upload(
  bucket: string,
  key: string,
  file: File,
  signal: AbortSignal,
  progress: (bytes: number) => void,
): Promise<void> {
  if (file.size < 2 * PART_BYTES) {
    await send(place(bucket, key), file, file.type, signal, progress);
    return;
  }
  const size = PART_BYTES * Math.ceil(file.size / (PART_BYTES * MAX_PARTS));
  const count = Math.ceil(file.size / size);
  const type = { "content-type": file.type || "application/octet-stream" };
  const id = text(await call("POST", place(bucket, key, { uploads: "" }), undefined, type), "UploadId");
  const tags: string[] = [];
  const sent: number[] = [];
  const tell = (part: number, bytes: number) => {
    sent[part] = bytes;
    progress(Math.min(file.size, sent.reduce((sum, each) => sum + (each ?? 0), 0)));
  };
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const part = next++;
      const url = place(bucket, key, { partNumber: `${part + 1}`, uploadId: id });
      const body = file.slice(part * size, (part + 1) * size);
      for (let left = TRIES; ; ) {
        try {
          tags[part] = await send(url, body, "", signal, (bytes) => tell(part, bytes));
          break;
        } catch (error) {
          left -= 1;
          if (signal.aborted || left === 0) throw error;
        }
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: PARTS_AT_ONCE }, worker));
    const parts = tags.map((tag, at) => `<Part><PartNumber>${at + 1}</PartNumber><ETag>${escape(tag)}</ETag></Part>`);
    const body = `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${parts.join("")}</CompleteMultipartUpload>`;
    await call("POST", place(bucket, key, { uploadId: id }), body);
  } catch (error) {
    next = count;
    await call("DELETE", place(bucket, key, { uploadId: id })).catch(() => undefined);
    throw error;
  }
}
