//! MD5 and the additional checksums of S3 over a body, and of a multipart object from its parts.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};
use palm_core::record::{Checksum, ChecksumAlgorithm, ChecksumKind, Content, ObjectRecord, PartRef};
use xxhash_rust::xxh3::Xxh3Default;
use xxhash_rust::xxh64::Xxh64;

use super::body::Stripe;

/// What was computed over a body once it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digested {
    /// Bytes.
    pub size: u64,
    /// MD5.
    pub md5: [u8; 16],
    /// The checksums asked for, full-object.
    pub checksums: Vec<Checksum>,
}

impl Digested {
    /// The value of this algorithm, where it was asked for.
    pub fn value(&self, algorithm: ChecksumAlgorithm) -> Option<&[u8]> {
        let found = self.checksums.iter().find(|checksum| checksum.algorithm == algorithm)?;
        Some(&found.value)
    }
}

/// One pass over a body for its MD5 and every checksum asked for.
pub struct Digests {
    size: u64,
    md5: Md5,
    /// MD5 is a checksum as well as the `ETag`; it is computed once.
    tells_md5: bool,
    checksums: Vec<Checksummer>,
}

impl Digests {
    /// MD5 and these; each algorithm once.
    pub fn new(algorithms: &[ChecksumAlgorithm]) -> Self {
        let mut wanted: Vec<ChecksumAlgorithm> = Vec::new();
        for &algorithm in algorithms {
            if algorithm != ChecksumAlgorithm::Md5 && !wanted.contains(&algorithm) {
                wanted.push(algorithm);
            }
        }
        Self {
            size: 0,
            md5: Md5::new(),
            tells_md5: algorithms.contains(&ChecksumAlgorithm::Md5),
            checksums: wanted.into_iter().map(Checksummer::new).collect(),
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.md5.update(bytes);
        for checksum in &mut self.checksums {
            checksum.update(bytes);
        }
    }

    /// Takes in a stripe.
    pub(super) fn update_stripe(&mut self, stripe: &Stripe) {
        for chunk in stripe.chunks() {
            self.update(chunk);
        }
    }

    /// The results.
    pub fn finish(self) -> Digested {
        let md5 = self.md5.finalize().into();
        let mut checksums: Vec<Checksum> = self.checksums.into_iter().map(Checksummer::finish).collect();
        if self.tells_md5 {
            checksums.push(full_object(ChecksumAlgorithm::Md5, Vec::from(md5)));
        }
        Digested { size: self.size, md5, checksums }
    }
}

/// MD5 of a few bytes.
pub(super) fn md5_of(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

struct Checksummer {
    algorithm: ChecksumAlgorithm,
    state: State,
}

enum State {
    Crc(Box<crc_fast::Digest>),
    Sha(Context),
    Md5(Md5),
    XxHash64(Box<Xxh64>),
    XxHash3(Box<Xxh3Default>),
    XxHash128(Box<Xxh3Default>),
}

impl Checksummer {
    fn new(algorithm: ChecksumAlgorithm) -> Self {
        let crc = |algorithm| State::Crc(Box::new(crc_fast::Digest::new(algorithm)));
        let state = match algorithm {
            ChecksumAlgorithm::Crc32 => crc(CrcAlgorithm::Crc32IsoHdlc),
            ChecksumAlgorithm::Crc32c => crc(CrcAlgorithm::Crc32Iscsi),
            ChecksumAlgorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme),
            ChecksumAlgorithm::Sha1 => State::Sha(Context::new(&SHA1_FOR_LEGACY_USE_ONLY)),
            ChecksumAlgorithm::Sha256 => State::Sha(Context::new(&SHA256)),
            ChecksumAlgorithm::Sha512 => State::Sha(Context::new(&SHA512)),
            ChecksumAlgorithm::Md5 => State::Md5(Md5::new()),
            ChecksumAlgorithm::XxHash64 => State::XxHash64(Box::default()),
            ChecksumAlgorithm::XxHash3 => State::XxHash3(Box::default()),
            ChecksumAlgorithm::XxHash128 => State::XxHash128(Box::default()),
        };
        Self { algorithm, state }
    }

    fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Crc(crc) => crc.update(bytes),
            State::Sha(sha) => sha.update(bytes),
            State::Md5(md5) => md5.update(bytes),
            State::XxHash64(hash) => hash.update(bytes),
            State::XxHash3(hash) | State::XxHash128(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> Checksum {
        let value = match self.state {
            State::Crc(state) => big_endian(state.finalize(), self.algorithm.width()),
            State::Sha(state) => state.finish().as_ref().to_vec(),
            State::Md5(state) => state.finalize().to_vec(),
            State::XxHash64(state) => state.digest().to_be_bytes().to_vec(),
            State::XxHash3(state) => state.digest().to_be_bytes().to_vec(),
            State::XxHash128(state) => state.digest128().to_be_bytes().to_vec(),
        };
        full_object(self.algorithm, value)
    }
}

fn full_object(algorithm: ChecksumAlgorithm, value: Vec<u8>) -> Checksum {
    Checksum { algorithm, kind: ChecksumKind::FullObject, value }
}

/// The CRC behind an algorithm; `None` for a hash.
fn crc(algorithm: ChecksumAlgorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        ChecksumAlgorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        ChecksumAlgorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        _ => None,
    }
}

fn big_endian(value: u64, width: usize) -> Vec<u8> {
    value.to_be_bytes()[8 - width..].to_vec()
}

/// The checksum of a whole object from those of its parts and their lengths in bytes, without reading them:
/// CRCs combine (Adler's `crc32_combine`), hashes do not. `None` for a hash, or where a value has not its
/// algorithm's length.
pub(super) fn combine(algorithm: ChecksumAlgorithm, parts: &[(&[u8], u64)]) -> Option<Checksum> {
    let (crc, width) = (crc(algorithm)?, algorithm.width());
    let mut combined: Option<u64> = None;
    for &(value, len) in parts {
        if value.len() != width {
            return None;
        }
        let value = value.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        combined = Some(match combined {
            None => value,
            Some(before) => crc_fast::checksum_combine(crc, before, value, len),
        });
    }
    Some(full_object(algorithm, big_endian(combined?, width)))
}

/// The checksum over the bytes of an object, which a copy has whatever its source's is over, found without reading them.
///
/// # Errors
/// The algorithm under which they have to be read: a hash of parts says nothing of the whole.
pub fn whole_checksum(record: &ObjectRecord) -> Result<Option<Checksum>, ChecksumAlgorithm> {
    let Some(checksum) = record.checksum.as_ref().filter(|checksum| checksum.kind == ChecksumKind::Composite) else {
        return Ok(record.checksum.clone());
    };
    let Content::Parts(parts) = &record.content else { return Err(checksum.algorithm) };
    let combined = pieces(parts, checksum.algorithm).and_then(|pieces| combine(checksum.algorithm, &pieces));
    combined.map(Some).ok_or(checksum.algorithm)
}

/// What the parts were summed to by this algorithm, and their lengths in bytes; `None` where one was not.
pub(super) fn pieces(parts: &[PartRef], algorithm: ChecksumAlgorithm) -> Option<Vec<(&[u8], u64)>> {
    let held = parts.iter().map(|part| {
        let held = part.checksum.as_ref().filter(|held| held.algorithm == algorithm)?;
        Some((held.value.as_slice(), part.size))
    });
    held.collect()
}

/// S3's composite checksum: over the concatenated checksums of the parts, in order.
pub(super) fn composite<'a>(algorithm: ChecksumAlgorithm, parts: impl IntoIterator<Item = &'a [u8]>) -> Checksum {
    let mut state = Checksummer::new(algorithm);
    for value in parts {
        state.update(value);
    }
    Checksum { kind: ChecksumKind::Composite, ..state.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ChecksumAlgorithm::{Crc32, Crc32c, Crc64Nvme, Sha1, Sha256, Sha512, XxHash3, XxHash64, XxHash128};

    fn value(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Vec<u8> {
        let mut state = Checksummer::new(algorithm);
        state.update(bytes);
        state.finish().value
    }

    /// Clients compute these themselves and refuse ours when one bit differs: the published check values
    /// (of "123456789" for CRCs, of "abc" for hashes) must come out, big-endian.
    #[test]
    fn checksums_have_their_published_values() {
        let hex = |algorithm, text: &[u8]| data_encoding::HEXLOWER.encode(&value(algorithm, text));
        assert_eq!(hex(Crc32, b"123456789"), "cbf43926");
        assert_eq!(hex(Crc32c, b"123456789"), "e3069283");
        assert_eq!(hex(Crc64Nvme, b"123456789"), "ae8b14860a799888");
        assert_eq!(hex(Sha1, b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(Sha256, b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let sha512 = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                      2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        assert_eq!(hex(Sha512, b"abc"), sha512);
        assert_eq!(hex(ChecksumAlgorithm::Md5, b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(data_encoding::HEXLOWER.encode(&md5_of(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hex(XxHash64, b"abc"), "44bc2cf5ad770999");
        assert_eq!(hex(XxHash3, b"abc"), "78af5f94892f3950");
        assert_eq!(hex(XxHash128, b"abc"), "06b05ab6733a618578af5f94892f3950");
    }

    /// Scenario: every algorithm at once, MD5 among them, one of them twice. Danger: one is left out, or MD5, which is the `ETag` too, is told
    /// as another. Expectation: each once, with its width; and MD5 only where it was asked for.
    #[test]
    fn one_pass_computes_all_that_was_asked_for() {
        let mut digests = Digests::new(&[ChecksumAlgorithm::ALL.as_slice(), &[Sha1]].concat());
        digests.update(b"one ");
        digests.update(b"two");
        let digested = digests.finish();
        assert_eq!((digested.size, digested.checksums.len()), (7, ChecksumAlgorithm::ALL.len()));
        for algorithm in ChecksumAlgorithm::ALL {
            let computed = value(algorithm, b"one two");
            assert_eq!(computed.len(), algorithm.width(), "{algorithm:?}");
            assert_eq!(digested.value(algorithm), Some(computed.as_slice()), "{algorithm:?}");
        }
        assert_eq!(digested.value(ChecksumAlgorithm::Md5), Some(digested.md5.as_slice()));
        assert_eq!(Digests::new(&[Sha1]).finish().value(ChecksumAlgorithm::Md5), None);
    }

    /// `CompleteMultipartUpload` answers a full-object CRC without reading the object. A wrong combination
    /// would make every client refuse its own upload, so it must equal the CRC of the whole, for parts of any
    /// length, empty ones too.
    #[test]
    fn combined_crcs_equal_the_crc_of_the_whole() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for algorithm in [Crc32, Crc32c, Crc64Nvme] {
            for cuts in [vec![], vec![1], vec![0, 50_000], vec![7, 7, 99_999], vec![10_000, 20_000, 60_000]] {
                let mut parts = Vec::new();
                let mut from = 0;
                for to in cuts.into_iter().chain([bytes.len()]) {
                    parts.push((value(algorithm, &bytes[from..to]), (to - from) as u64));
                    from = to;
                }
                let parts: Vec<(&[u8], u64)> = parts.iter().map(|(value, len)| (value.as_slice(), *len)).collect();
                let combined = combine(algorithm, &parts).unwrap();
                assert_eq!(combined.value, value(algorithm, &bytes), "{algorithm:?} {}", parts.len());
            }
        }
        assert_eq!(combine(Sha256, &[(&[0; 32], 1)]), None);
        assert_eq!(combine(Crc32, &[(&[0; 8], 1)]), None, "a value of the wrong width");
    }

    /// A composite checksum covers the parts' checksums, not their bytes, and says so.
    #[test]
    fn a_composite_checksum_covers_the_parts_checksums() {
        let parts = [value(Sha256, b"one"), value(Sha256, b"two")];
        let checksum = composite(Sha256, parts.iter().map(Vec::as_slice));
        assert_eq!(checksum.value, value(Sha256, &parts.concat()));
        assert_eq!(checksum.kind, ChecksumKind::Composite);
    }
}
