//! Golden bytes of every stored record. Disks hold them: a changed line is a broken upgrade. A new version gets a
//! new line; the old one stays for ever and must still decode.

use std::fmt::Debug;

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::hlc::{Ballot, Stamp};
use crate::id::{BodyId, FragmentId, KeyId, PeerId, SegmentId};
use crate::register::Current;
use crate::s3::account::Account;
use crate::s3::acl::{Acl, Grant, Grantee, Ownership, Permission, PublicAccessBlock};
use crate::s3::lock::{DefaultRetention, Lock, Mode, Retention};
use crate::s3::quota::{Quota, Usage};
use crate::s3::version::{Kind, Move, Null, PageRef, VersionId, Versioning};
use crate::s3::website::{Protocol, Website};
use crate::s3::{cors, lifecycle, notification};

fn golden<T: Stored + PartialEq + Debug>(value: &T, hex: &str) {
    assert_eq!(HEXLOWER.encode(&value.encode()), hex, "{} is written differently", T::KIND);
    let bytes = HEXLOWER.decode(hex.as_bytes()).expect("hex");
    assert_eq!(T::decode(&bytes).as_ref(), Ok(value), "{} is read differently", T::KIND);
    // Truncated or extended bytes are refused, never guessed at.
    assert!(T::decode(&bytes[..bytes.len() - 1]).is_err());
    assert!(T::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    assert!(matches!(
        T::decode(&[&[250], &bytes[1..]].concat()),
        Err(DecodeError::UnknownVersion { version: 250, .. })
    ));
}

fn segment() -> Segment {
    Segment {
        id: SegmentId::from_bytes([1; 16]),
        len: 70_000,
        k: 1,
        n: 2,
        fragments: vec![Placed { index: 1, home: PeerId::from_bytes([2; 32]), id: FragmentId::from_bytes([3; 32]) }],
    }
}

fn checksum() -> Checksum {
    Checksum { algorithm: ChecksumAlgorithm::Crc32c, kind: ChecksumKind::Composite, value: vec![1, 2, 3, 4] }
}

fn attributes() -> Attributes {
    Attributes {
        content_type: Some("a/b".to_owned()),
        expires: Some("0".to_owned()),
        user: vec![("k".to_owned(), "v".to_owned())],
        ..Attributes::default()
    }
}

/// Bytes of an older version: still read, no longer written.
fn golden_older<T: Stored + PartialEq + Debug>(value: &T, hex: &str) {
    let bytes = HEXLOWER.decode(hex.as_bytes()).expect("hex");
    assert_eq!(T::decode(&bytes).as_ref(), Ok(value), "{} is read differently", T::KIND);
    assert!(T::decode(&bytes[..bytes.len() - 1]).is_err());
    assert!(T::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn pool_and_members() {
    let pool = PoolRecord {
        name: "lab".to_owned(),
        max_members: 10,
        policy: Some((3, 5)),
        open: false,
        created_ms: 1_700_000_000_000,
        consistency: Consistency::Strong,
        when_minority: WhenMinority::Refuse,
        classes: Vec::new(),
    };
    golden_older(&pool, "01036c61620a0103050080d095ffbc31");
    let local = PoolRecord { consistency: Consistency::Local, when_minority: WhenMinority::ReadStale, ..pool };
    golden_older(&local, "02036c61620a0103050080d095ffbc310101");
    let classes = vec!["ONEZONE_IA=2-of-4".parse().expect("a policy")];
    golden(&PoolRecord { classes, ..local }, "03036c61620a0103050080d095ffbc310101010a4f4e455a4f4e455f49410204");
    let member = |state, reason: &str| MemberRecord {
        name: "h".to_owned(),
        state,
        joined_ms: 5,
        addresses: vec!["1:2".to_owned()],
        reason: reason.to_owned(),
    };
    golden(&member(MemberState::Left, "moved"), "02016802050103313a32056d6f766564");
    // Version 1 had no reason, and nobody left.
    let old = HEXLOWER.decode(b"01016801050103313a32").expect("hex");
    assert_eq!(MemberRecord::decode(&old), Ok(member(MemberState::Evicted, "")));
    golden(
        &TokenRecord { expires_ms: 300, used_by: Some(PeerId::from_bytes([9; 32])) },
        "01ac02010909090909090909090909090909090909090909090909090909090909090909",
    );
    golden(
        &JoinRequestRecord { name: "h".to_owned(), address: "a".to_owned(), requested_ms: 1, approved: true },
        "01016801610101",
    );
}

#[test]
fn keys_and_buckets() {
    let root = AccessKeyRecord {
        sealed_secret: vec![1, 2],
        description: "d".to_owned(),
        root: true,
        created_ms: 128,
        account: "palm".to_owned(),
        user: None,
        enabled: true,
        expires_ms: None,
    };
    golden_older(&root, "010201020164018001");
    golden(
        &AccessKeyRecord { user: Some("u".to_owned()), enabled: false, expires_ms: Some(1), ..root },
        "0202010201640180010470616c6d010175000101",
    );
    let mut role = IdentityRecord { created_ms: 1, trust: Some("t".to_owned()), ..IdentityRecord::default() };
    role.attach("n", "{}").expect("small");
    golden(&role, "010101016e027b7d010174");
    let session = Session {
        access_key: "k".to_owned(),
        account: "a".to_owned(),
        holder: Some((IdentityKind::Role, "r".to_owned())),
        name: "s".to_owned(),
        issued_ms: 1,
        expires_ms: 2,
        policy: None,
    };
    golden(&session, "01016b0161010101720173010200");
    golden(&DataKeyRecord { sealed: vec![7; 3] }, "0103070707");
    let bucket = BucketRecord {
        owner: Account::main().canonical_id(),
        created_ms: 1,
        state: BucketState::Deleting,
        data_key: KeyId::from_bytes([4; 16]),
        config: BucketConfig::default(),
    };
    golden_older(&bucket, "01016f010104040404040404040404040404040404");
    golden(
        &BucketRecord { owner: "o".to_owned(), config: config(), ..bucket },
        "02016f010104040404040404040404040404040404020101010901016f0101000101010001000001027b7d01016b017601010001012a0103474554000001ac0201000168010101010172010101700000000001000301010102010700000000010162026c2f0101000101010101ac020001026575",
    );
}

/// A bucket with everything configured.
fn config() -> BucketConfig {
    let grant = Grant { grantee: Grantee::AllUsers, permission: Permission::Read };
    let cors = cors::Rule {
        allowed_origins: vec!["*".to_owned()],
        allowed_methods: vec!["GET".to_owned()],
        max_age_seconds: Some(300),
        ..cors::Rule::default()
    };
    let rule = lifecycle::Rule {
        id: "r".to_owned(),
        enabled: true,
        filter: lifecycle::Filter { prefix: Some("p".to_owned()), ..lifecycle::Filter::default() },
        expiration: Some(lifecycle::Expiration::Days(3)),
        noncurrent: Some(lifecycle::Noncurrent { days: 1, keep_newer: Some(2) }),
        abort_days: Some(7),
        ..lifecycle::Rule::default()
    };
    BucketConfig {
        versioning: Versioning::Suspended,
        object_lock: Some(ObjectLock { default: Some(DefaultRetention { mode: Mode::Compliance, days: 9 }) }),
        acl: Some(Acl { owner: "o".to_owned(), grants: vec![grant.clone()] }),
        ownership: Some(Ownership::BucketOwnerPreferred),
        public_access_block: Some(PublicAccessBlock { ignore_public_acls: true, ..PublicAccessBlock::default() }),
        policy: Some("{}".to_owned()),
        tags: vec![("k".to_owned(), "v".to_owned())],
        cors: Some(cors::Configuration::new(vec![cors]).expect("valid")),
        website: Some(Website::RedirectAll { host: "h".to_owned(), protocol: Some(Protocol::Https) }),
        lifecycle: Some(lifecycle::Configuration::new(vec![rule]).expect("valid")),
        notification: notification::Configuration::default(),
        logging: Some(Logging {
            bucket: "b".to_owned(),
            prefix: "l/".to_owned(),
            grants: vec![grant],
            partitioned_by_event_time: Some(true),
        }),
        encryption: Some(DefaultEncryption { bucket_key: true }),
        quota: Quota { bytes: Some(300), objects: None },
        location: Some("eu".to_owned()),
    }
}

#[test]
fn usage() {
    let usage = UsageRecord { usage: Usage { bytes: 300, objects: 2 }, turnover: Usage { bytes: 301, objects: 3 } };
    golden(&usage, "01ac0202ad0203");
}

#[test]
fn events() {
    let event = EventRecord {
        event: notification::Event::CreatedPut,
        bucket: "b".to_owned(),
        bucket_owner: "o".to_owned(),
        key: "k".to_owned(),
        principal: "p".to_owned(),
        source_ip: "i".to_owned(),
        request_id: "r".to_owned(),
        by: PeerId::from_bytes([2; 32]),
        begun_ms: 300,
        targets: vec![EventTarget { arn: "a".to_owned(), configuration: "c".to_owned() }],
        outcome: Some(Outcome { time_ms: 301, sequencer: 7, size: 5, etag: "e".to_owned(), version_id: None }),
    };
    golden(
        &event,
        "01000162016f016b0170016901720202020202020202020202020202020202020202020202020202020202020202ac02010161016301ad020705016500",
    );
}

fn subresources() -> Subresources {
    Subresources {
        acl: Some(Acl { owner: "o".to_owned(), grants: Vec::new() }),
        tags: vec![("k".to_owned(), "v".to_owned())],
        lock: Lock { retention: Some(Retention { mode: Mode::Governance, until_ms: 300 }), legal_hold: Some(true) },
    }
}

#[test]
fn objects() {
    let object = ObjectRecord {
        size: 70_000,
        etag: Etag { md5: [5; 16], parts: 0 },
        attributes: attributes(),
        checksum: Some(checksum()),
        data_key: KeyId::from_bytes([4; 16]),
        body: BodyId::from_bytes([6; 16]),
        content: Content::Segments(vec![segment()]),
        subresources: Subresources::default(),
        customer_key: None,
    };
    golden_older(
        &object,
        "01f0a20405050505050505050505050505050505000103612f6200000000010130000001016b017601010104010203040404040404040404040404040404040406060606060606060606060606060606000101010101010101010101010101010101f0a2040102010102020202020202020202020202020202020202020202020202020202020202020303030303030303030303030303030303030303030303030303030303030303",
    );
    let part = PartRef { number: 300, attempt: 1, size: 2, md5: [5; 16], checksum: None };
    let multipart = ObjectRecord {
        etag: Etag { md5: [5; 16], parts: 300 },
        checksum: None,
        attributes: Attributes::default(),
        content: Content::Parts(vec![part]),
        ..object
    };
    golden_older(
        &multipart,
        "01f0a20405050505050505050505050505050505ac020000000000000000000004040404040404040404040404040404060606060606060606060606060606060101ac0201020505050505050505050505050505050500",
    );
    let customer_key = Some(CustomerKey { salt: [7; 16], check: [8; 32] });
    golden(
        &ObjectRecord { subresources: subresources(), customer_key, ..multipart },
        "02f0a20405050505050505050505050505050505ac020000000000000000000004040404040404040404040404040404060606060606060606060606060606060101ac020102050505050505050505050505050505050001016f0001016b01760100ac02010101070707070707070707070707070707070808080808080808080808080808080808080808080808080808080808080808",
    );
}

/// The register of a key, in each of its states; and how one is read that was written before there were versions.
#[test]
fn heads_and_pages() {
    let object = ObjectRecord {
        size: 70_000,
        etag: Etag { md5: [5; 16], parts: 0 },
        attributes: Attributes { storage_class: Some("GLACIER".to_owned()), ..Attributes::default() },
        checksum: Some(checksum()),
        data_key: KeyId::from_bytes([4; 16]),
        body: BodyId::from_bytes([6; 16]),
        content: Content::Segments(Vec::new()),
        subresources: subresources(),
        customer_key: None,
    };
    let summary = Summary::from(&object);
    assert_eq!((summary.owner.as_deref(), summary.storage_class.as_deref()), (Some("o"), Some("GLACIER")));
    let id = |stamp| VersionId { stamp: Stamp(stamp), nonce: 300 };
    let line = LineRecord { id: id(2), kind: Kind::Object(summary) };
    let marker = LineRecord { id: id(300), kind: Kind::DeleteMarker };
    let null = Some(Null { stamp: Stamp(3), kind: Kind::Object(object.clone()) });
    let plain = HeadRecord { null, ..HeadRecord::default() };
    golden(
        &plain,
        "0301010300f0a2040505050505050505050505050505050500000000000000000107474c41434945520001010104010203040404040404040404040404040404040406060606060606060606060606060606000001016f0001016b01760100ac02010100000000",
    );
    let full = HeadRecord {
        null: Some(Null { stamp: Stamp(3), kind: Kind::DeleteMarker }),
        recent: vec![marker, line.clone()],
        pages: vec![PageRef { id: 300, newest: id(2), oldest: id(1) }],
        moving: Some(Move::Return(300)),
    };
    golden(
        &full,
        "030001030102ac02ac020102ac0200f0a204050505050505050505050505050505050001016f0107474c4143494552010101040102030401ac0202ac0201ac020101ac02",
    );
    golden(
        &PageRecord { lines: vec![line], frozen: true },
        "010102ac0200f0a204050505050505050505050505050505050001016f0107474c4143494552010101040102030401",
    );

    assert!(!HeadRecord::is_hidden(&plain.encode()) && HeadRecord::is_hidden(&full.encode()));
    assert!(HeadRecord::has_null(&plain.encode()) && HeadRecord::has_null(&full.encode()));
    assert!(!HeadRecord::has_null(&HeadRecord { null: None, ..full.clone() }.encode()));
    let belied = [&[3, 1][..], &full.encode()[2..]].concat();
    assert!(HeadRecord::decode(&belied).is_err(), "a listing would show what is deleted");
    assert!(HeadRecord::decode(&HeadRecord::default().encode()).is_err(), "no register without a version");

    let version = Ballot { stamp: Stamp(9), ..Ballot::ZERO };
    let old = Current { version, value: object.encode() };
    let read = HeadRecord::of(&old).expect("an object record of old");
    assert_eq!(read.null_object(), Some((Stamp(9), &object)), "it was last modified when it was written");
    assert!(!HeadRecord::is_hidden(&old.value));
}

#[test]
fn uploads_and_fragments() {
    let upload = UploadRecord {
        owner: Account::main().canonical_id(),
        created_ms: 1,
        state: UploadState::Completing,
        attributes: attributes(),
        checksum: Some((ChecksumAlgorithm::Sha256, ChecksumKind::FullObject)),
        data_key: KeyId::from_bytes([4; 16]),
        subresources: Subresources::default(),
        customer_key: None,
    };
    golden_older(&upload, "01016f01010103612f6200000000010130000001016b017601040004040404040404040404040404040404");
    golden(
        &UploadRecord { owner: "o".to_owned(), subresources: subresources(), ..upload },
        "02016f01010103612f6200000000010130000001016b01760104000404040404040404040404040404040401016f0001016b01760100ac02010100",
    );
    golden(
        &PartRecord { size: 9, md5: [5; 16], checksum: Some(checksum()), segments: vec![segment()] },
        "01090505050505050505050505050505050501010104010203040101010101010101010101010101010101f0a2040102010102020202020202020202020202020202020202020202020202020202020202020303030303030303030303030303030303030303030303030303030303030303",
    );
    golden(&SharersRecord { objects: vec![b"ob\0k".to_vec()] }, "0101046f62006b");
    let fragment = FragmentRecord {
        segment: SegmentId::from_bytes([1; 16]),
        index: 2,
        body: BodyId::from_bytes([6; 16]),
        object: b"ob\0k".to_vec(),
        writer: PeerId::from_bytes([2; 32]),
        stored_ms: 300,
        len: 70_000,
        backend: 0,
        corrupt: false,
        trashed_ms: None,
    };
    golden_older(
        &fragment,
        "01010101010101010101010101010101010206060606060606060606060606060606046f62006b0202020202020202020202020202020202020202020202020202020202020202ac02f0a204",
    );
    golden(
        &FragmentRecord { backend: 300, corrupt: true, trashed_ms: Some(300), ..fragment },
        "02010101010101010101010101010101010206060606060606060606060606060606046f62006b0202020202020202020202020202020202020202020202020202020202020202ac02f0a204ac020101ac02",
    );
    golden(
        &MovedRecord { body: BodyId::from_bytes([6; 16]), object: b"ob\0k".to_vec(), segment: segment() },
        "0106060606060606060606060606060606046f62006b01010101010101010101010101010101f0a2040102010102020202020202020202020202020202020202020202020202020202020202020303030303030303030303030303030303030303030303030303030303030303",
    );
}

#[test]
fn an_etag_reads_as_s3_prints_it() {
    assert_eq!(Etag { md5: [0xab; 16], parts: 0 }.to_string(), "ab".repeat(16));
    assert_eq!(Etag { md5: [0xab; 16], parts: 17 }.to_string(), format!("{}-17", "ab".repeat(16)));
}

proptest! {
    /// Disks and peers can hold anything: decoding answers an error, it never panics or allocates what the bytes
    /// cannot hold.
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = PoolRecord::decode(&bytes);
        let _ = ObjectRecord::decode(&bytes);
        let _ = HeadRecord::decode(&bytes);
        let _ = PageRecord::decode(&bytes);
        let _ = PartRecord::decode(&bytes);
        let _ = SharersRecord::decode(&bytes);
        let _ = crate::register::Accepted::decode(&bytes);
        let _ = crate::register::Accepted::head(&bytes);
        let _ = crate::register::Config::decode(&bytes);
    }
}
