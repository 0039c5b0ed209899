//! Register keys: one byte for the family, then parts in an order that makes LIST one seek.
//!
//! | family | key | holds |
//! | --- | --- | --- |
//! | `b` | bucket name | [`BucketRecord`](super::BucketRecord) |
//! | `o` | bucket, NUL, object key | [`HeadRecord`](super::HeadRecord) |
//! | `w` | bucket, NUL, object key, NUL, version id (stamp u64 BE, nonce u64 BE) | [`ObjectRecord`](super::ObjectRecord) |
//! | `x` | bucket, NUL, object key, NUL, page id (u64 BE) | [`PageRecord`](super::PageRecord) |
//! | `u` | bucket, NUL, object key, NUL, upload id in hex | [`UploadRecord`](super::UploadRecord) |
//! | `p` | upload id (16 bytes), part number (u16 BE), attempt (u64 BE) | [`PartRecord`](super::PartRecord) |
//! | `s` | body id (16 bytes) | [`SharersRecord`](super::SharersRecord) |
//! | `v` | segment id (16 bytes) | [`MovedRecord`](super::MovedRecord) |
//! | `e` | when it was begun (milliseconds, u64 BE), random (8 bytes) | [`EventRecord`](super::EventRecord) |
//! | `q` | bucket name | [`UsageRecord`](super::UsageRecord) |
//! | `m` | peer id (32 bytes) | [`MemberRecord`](super::MemberRecord) |
//! | `k` | access key id | [`AccessKeyRecord`](super::AccessKeyRecord) |
//! | `i` | account, NUL, `u` or `r`, name of the user or role | [`IdentityRecord`](super::IdentityRecord) |
//! | `d` | key id (16 bytes) | [`DataKeyRecord`](super::DataKeyRecord) |
//! | `t` | BLAKE3 of the token's secret (32 bytes) | [`TokenRecord`](super::TokenRecord) |
//! | `j` | peer id (32 bytes) | [`JoinRequestRecord`](super::JoinRequestRecord) |
//! | `P` | | [`PoolRecord`](super::PoolRecord) |
//! | `C` | | the voters: [`Config`](crate::register::Config) |
//!
//! Neither bucket names nor object keys hold NUL (the S3 front end refuses it), so the parts stay apart and
//! the order of keys is the UTF-8 binary order S3 lists in.

use bytes::Bytes;

use super::IdentityKind;
use crate::hlc::Stamp;
use crate::id::{BodyId, KeyId, PeerId, SegmentId};
use crate::s3::version::VersionId;

fn join(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

/// The pool's settings.
pub fn pool() -> Bytes {
    Bytes::from_static(b"P")
}

/// The voters.
pub fn config() -> Bytes {
    Bytes::from_static(b"C")
}

/// A bucket.
pub fn bucket(name: &str) -> Bytes {
    join(&[b"b", name.as_bytes()])
}

/// Prefix of all buckets.
pub fn buckets() -> Bytes {
    Bytes::from_static(b"b")
}

/// An object.
pub fn object(bucket: &str, key: &str) -> Bytes {
    join(&[b"o", bucket.as_bytes(), b"\0", key.as_bytes()])
}

/// Prefix of all objects of a bucket.
pub fn objects(bucket: &str) -> Bytes {
    join(&[b"o", bucket.as_bytes(), b"\0"])
}

/// Bucket and object key of an object's register key.
pub fn parse_object(key: &[u8]) -> Option<(&str, &str)> {
    let rest = key.strip_prefix(b"o")?;
    let nul = rest.iter().position(|&byte| byte == 0)?;
    Some((std::str::from_utf8(&rest[..nul]).ok()?, std::str::from_utf8(&rest[nul + 1..]).ok()?))
}

/// A version of the object with this register key.
pub fn version(object: &[u8], id: VersionId) -> Bytes {
    let names = object.get(1..).unwrap_or_default();
    join(&[b"w", names, b"\0", &id.stamp.0.to_be_bytes(), &id.nonce.to_be_bytes()])
}

/// A page of versions of the object with this register key.
pub fn page(object: &[u8], id: u64) -> Bytes {
    join(&[b"x", object.get(1..).unwrap_or_default(), b"\0", &id.to_be_bytes()])
}

/// Prefix of all versions of all objects.
pub fn all_versions() -> Bytes {
    Bytes::from_static(b"w")
}

/// The object's register key and the id of a version's register key. The id is cut off from the right: it may hold NUL.
pub fn parse_version(key: &[u8]) -> Option<(Bytes, VersionId)> {
    let (names, id) = key.strip_prefix(b"w")?.split_last_chunk::<16>()?;
    let (stamp, nonce) = id.split_at(8);
    let id = VersionId {
        stamp: Stamp(u64::from_be_bytes(stamp.try_into().ok()?)),
        nonce: u64::from_be_bytes(nonce.try_into().ok()?),
    };
    Some((join(&[b"o", names.strip_suffix(b"\0")?]), id))
}

/// The register key of the object that a holder of a body belongs to: an object's own, or that of the object of which this
/// is a version.
pub fn object_of(holder: &[u8]) -> Bytes {
    parse_version(holder).map_or_else(|| Bytes::copy_from_slice(holder), |(object, _)| object)
}

/// A multipart upload.
pub fn upload(bucket: &str, key: &str, upload: BodyId) -> Bytes {
    join(&[b"u", bucket.as_bytes(), b"\0", key.as_bytes(), b"\0", upload.to_string().as_bytes()])
}

/// Prefix of all uploads of all buckets.
pub fn all_uploads() -> Bytes {
    Bytes::from_static(b"u")
}

/// Prefix of all uploads of a bucket.
pub fn uploads(bucket: &str) -> Bytes {
    join(&[b"u", bucket.as_bytes(), b"\0"])
}

/// Object key and upload id of an upload's register key, given its bucket's [`uploads`] prefix cut off.
pub fn parse_upload(rest: &[u8]) -> Option<(&str, BodyId)> {
    let nul = rest.iter().rposition(|&byte| byte == 0)?;
    let id = std::str::from_utf8(&rest[nul + 1..]).ok()?.parse().ok()?;
    Some((std::str::from_utf8(&rest[..nul]).ok()?, id))
}

/// One attempt at one part.
pub fn part(upload: BodyId, number: u16, attempt: u64) -> Bytes {
    join(&[b"p", upload.as_bytes(), &number.to_be_bytes(), &attempt.to_be_bytes()])
}

/// Prefix of all attempts at a part.
pub fn attempts(upload: BodyId, number: u16) -> Bytes {
    join(&[b"p", upload.as_bytes(), &number.to_be_bytes()])
}

/// Prefix of all parts of an upload.
pub fn parts(upload: BodyId) -> Bytes {
    join(&[b"p", upload.as_bytes()])
}

/// Part number and attempt of a part's register key.
pub fn parse_part(key: &[u8]) -> Option<(u16, u64)> {
    let rest = key.get(17..27)?;
    let number = u16::from_be_bytes(rest[..2].try_into().ok()?);
    let attempt = u64::from_be_bytes(rest[2..].try_into().ok()?);
    Some((number, attempt))
}

/// Who shares a body.
pub fn sharers(body: BodyId) -> Bytes {
    join(&[b"s", body.as_bytes()])
}

/// Where a segment is since repair changed it.
pub fn moved(segment: SegmentId) -> Bytes {
    join(&[b"v", segment.as_bytes()])
}

/// Prefix of all moved segments.
pub fn all_moved() -> Bytes {
    Bytes::from_static(b"v")
}

/// Prefix of all objects of all buckets.
pub fn all_objects() -> Bytes {
    Bytes::from_static(b"o")
}

/// Prefix of all parts of all uploads.
pub fn all_parts() -> Bytes {
    Bytes::from_static(b"p")
}

/// Whether a register belongs to the data (buckets, objects and their versions, uploads, parts, sharers, moved segments, data
/// keys, events, usage) and not to the pool itself (members, access keys, tokens, settings, voters). In a pool of local consistency the data is local.
pub fn is_data(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'b' | b'o' | b'w' | b'x' | b'u' | b'p' | b's' | b'v' | b'd' | b'e' | b'q'))
}

/// What a bucket with a quota holds.
pub fn usage(bucket: &str) -> Bytes {
    join(&[b"q", bucket.as_bytes()])
}

/// An event that is to be told.
pub fn event(begun_ms: u64, nonce: u64) -> Bytes {
    join(&[b"e", &begun_ms.to_be_bytes(), &nonce.to_be_bytes()])
}

/// Prefix of all events, the oldest first.
pub fn events() -> Bytes {
    Bytes::from_static(b"e")
}

/// A member.
pub fn member(peer: PeerId) -> Bytes {
    join(&[b"m", peer.as_bytes()])
}

/// Prefix of all members.
pub fn members() -> Bytes {
    Bytes::from_static(b"m")
}

/// The peer of a member's or join request's register key.
pub fn parse_peer(key: &[u8]) -> Option<PeerId> {
    Some(PeerId::from_bytes(key.get(1..)?.try_into().ok()?))
}

/// An access key.
pub fn access_key(id: &str) -> Bytes {
    join(&[b"k", id.as_bytes()])
}

/// Prefix of all access keys.
pub fn access_keys() -> Bytes {
    Bytes::from_static(b"k")
}

/// A user or role of an account.
pub fn identity(account: &str, kind: IdentityKind, name: &str) -> Bytes {
    join(&[&identities(account, kind), name.as_bytes()])
}

/// Prefix of all users, or all roles, of an account.
pub fn identities(account: &str, kind: IdentityKind) -> Bytes {
    let kind: &[u8] = match kind {
        IdentityKind::User => b"u",
        IdentityKind::Role => b"r",
    };
    join(&[b"i", account.as_bytes(), b"\0", kind])
}

/// A data key.
pub fn data_key(id: KeyId) -> Bytes {
    join(&[b"d", id.as_bytes()])
}

/// An invitation, by the hash of its secret.
pub fn token(secret_hash: &[u8; 32]) -> Bytes {
    join(&[b"t", secret_hash])
}

/// Prefix of all invitations.
pub fn tokens() -> Bytes {
    Bytes::from_static(b"t")
}

/// A request to be admitted.
pub fn join_request(peer: PeerId) -> Bytes {
    join(&[b"j", peer.as_bytes()])
}

/// Prefix of all requests to be admitted.
pub fn join_requests() -> Bytes {
    Bytes::from_static(b"j")
}

/// The first key after all keys that start with `prefix`: the exclusive end of its range. `None` when
/// there is none (a prefix of 0xff bytes only).
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse_back() {
        let id = BodyId::from_bytes([3; 16]);
        assert_eq!(parse_object(&object("b", "a/ü")), Some(("b", "a/ü")));
        assert_eq!(parse_part(&part(id, 10_000, 7)), Some((10_000, 7)));
        let key = upload("b", "a/b", id);
        assert_eq!(parse_upload(&key[uploads("b").len()..]), Some(("a/b", id)));
        let peer = PeerId::from_bytes([9; 32]);
        assert_eq!(parse_peer(&member(peer)), Some(peer));
    }

    /// An id is any 16 bytes, NUL among them; a cut in the wrong place would make it a version of another key.
    #[test]
    fn versions_parse_back_whatever_their_ids() {
        let of = object("b", "a/ü");
        for (stamp, nonce) in [(0, 0), (1 << 40, 7), (u64::MAX, u64::MAX)] {
            let id = VersionId { stamp: Stamp(stamp), nonce };
            assert_eq!(parse_version(&version(&of, id)), Some((of.clone(), id)));
            assert_eq!(object_of(&version(&of, id)), of);
        }
        assert_eq!(object_of(&of), of);
        assert_eq!(parse_version(b"w"), None);
        assert_eq!(parse_version(&of), None);
    }

    /// A family on the wrong side would be decided by one peer alone (a member, say), or refused on an island.
    #[test]
    fn data_is_told_from_what_the_pool_is() {
        let (id, peer) = (BodyId::from_bytes([3; 16]), PeerId::from_bytes([9; 32]));
        let data = [
            bucket("b"),
            buckets(),
            object("b", "k"),
            version(&object("b", "k"), VersionId { stamp: Stamp(1), nonce: 2 }),
            page(&object("b", "k"), 3),
            upload("b", "k", id),
            part(id, 1, 1),
            sharers(id),
            moved(SegmentId::from_bytes([4; 16])),
            event(1, 2),
            usage("b"),
            data_key(KeyId::from_bytes([1; 16])),
        ];
        assert!(data.iter().all(|key| is_data(key)));
        let pool = [
            pool(),
            config(),
            member(peer),
            access_key("k"),
            identity("a", IdentityKind::User, "u"),
            token(&[0; 32]),
            join_request(peer),
            Bytes::new(),
        ];
        assert!(!pool.iter().any(|key| is_data(key)));
    }

    #[test]
    fn a_prefix_ends_just_after_its_last_key() {
        assert_eq!(prefix_end(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(prefix_end(b"a\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xff\xff"), None);
    }
}
