"""Bytes to store: reproducible from a seed, so that a failing test can be run again."""

from __future__ import annotations

import base64
import hashlib
import pathlib
import random
import zlib

from awscrt import checksums as crt

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
CHUNK_BYTES = 8 * MIB

_WORDS = "palm reef tide coral lagoon drift harbour anchor beacon current island mangrove shoal atoll breeze compass".split()


def blob(size: int, seed: object = 0) -> bytes:
    """`size` incompressible bytes."""
    return random.Random(f"{seed}/{size}").randbytes(size)


def text(size: int, seed: object = 0) -> bytes:
    """`size` bytes of lines of prose-like text in which no 64-byte run comes twice."""
    rng = random.Random(f"text/{seed}/{size}")
    lines, length = [], 0
    while length < size:
        line = f"{rng.getrandbits(48):012x} {' '.join(rng.choices(_WORDS, k=6))}\n".encode()
        lines.append(line)
        length += len(line)
    return b"".join(lines)[:size]


def write_file(path: pathlib.Path, size: int, seed: object = 0) -> str:
    """Writes `size` incompressible bytes to a file in bounded memory; their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as out:
        for offset in range(0, size, CHUNK_BYTES):
            chunk = blob(min(CHUNK_BYTES, size - offset), f"{seed}/{offset}")
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def sha256_of(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256_slowly(file)


def _sha256_slowly(file) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def base64_md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def _crc(function, width: int):
    return lambda data: function(data).to_bytes(width, "big")


def _xxhash(new):
    def digest(data):
        state = new(0)
        state.update(data)
        return bytes(state.finalize())

    return digest


# Algorithm name as S3 spells it -> raw digest.
DIGESTS = {
    "CRC32": _crc(zlib.crc32, 4),
    "CRC32C": _crc(crt.crc32c, 4),
    "CRC64NVME": _crc(crt.crc64nvme, 8),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
    "SHA512": lambda data: hashlib.sha512(data).digest(),
    "MD5": lambda data: hashlib.md5(data).digest(),
    "XXHASH64": _xxhash(crt.XXHash.new_xxhash64),
    "XXHASH3": _xxhash(crt.XXHash.new_xxhash3_64),
    "XXHASH128": _xxhash(crt.XXHash.new_xxhash3_128),
}


def checksum(algorithm: str, data: bytes) -> str:
    """The value of x-amz-checksum-*: base64 of the raw digest."""
    return base64.b64encode(DIGESTS[algorithm](data)).decode()


def composite_checksum(algorithm: str, parts: list[bytes]) -> str:
    """The checksum of checksums that S3 gives a COMPOSITE multipart object."""
    joined = b"".join(DIGESTS[algorithm](part) for part in parts)
    return f"{checksum(algorithm, joined)}-{len(parts)}"


def multipart_etag(parts: list[bytes]) -> str:
    """`md5-of-md5s-N`, quoted as in the header."""
    joined = b"".join(hashlib.md5(part).digest() for part in parts)
    return f'"{hashlib.md5(joined).hexdigest()}-{len(parts)}"'
