//! Golden bytes of every message between peers: pools run mixed versions during an upgrade.

use std::collections::BTreeSet;
use std::fmt::Debug;

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::hlc::Stamp;
use crate::id::RequestId;

fn golden<T: Serialize + for<'de> Deserialize<'de> + PartialEq + Debug>(message: &T, hex: &str) {
    assert_eq!(HEXLOWER.encode(&encode(message)), hex, "{message:?} is sent differently");
    let bytes = HEXLOWER.decode(hex.as_bytes()).expect("hex");
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(message));
    assert!(decode::<T>(&bytes[..bytes.len() - 1]).is_err(), "truncated {message:?}");
    assert!(decode::<T>(&[bytes.as_slice(), &[0]].concat()).is_err(), "extended {message:?}");
}

fn ballot() -> Ballot {
    Ballot { stamp: Stamp(300), peer: 1, nonce: 2 }
}

fn record() -> Record {
    Record::write(None, RequestId(7), ballot(), Some(Bytes::from_static(b"v")))
}

fn accepted() -> Accepted {
    Accepted { ballot: ballot(), record: record() }
}

fn config() -> Config {
    Config { epoch: 3, voters: BTreeSet::from([PeerId::from_bytes([1; 32])]), outgoing: Some(BTreeSet::new()) }
}

fn origin() -> FragmentOrigin {
    FragmentOrigin {
        segment: SegmentId::from_bytes([1; 16]),
        index: 2,
        body: BodyId::from_bytes([3; 16]),
        object: Bytes::from_static(b"k"),
    }
}

fn requests() -> Vec<(Request, &'static str)> {
    let key = Bytes::from_static(b"k");
    let id = FragmentId::from_bytes([4; 32]);
    let body = BodyId::from_bytes([3; 16]);
    let query = ScanQuery { prefix: key.clone(), start: key.clone(), delimiter: Some(key.clone()), limit: 9 };
    vec![
        (Request::Ping, "0100"),
        (Request::Prepare { epoch: 1, key: key.clone(), ballot: ballot() }, "010101016bac020102"),
        (
            Request::Accept { epoch: 1, key: key.clone(), ballot: ballot(), record: record() },
            "010201016bac020102ac0201020101760107ac020102000000",
        ),
        (Request::Read { epoch: 1, key: key.clone(), have: Some(ballot()) }, "010301016b01ac020102"),
        (
            Request::Scan { epoch: 1, query: query.clone(), expect: Some([5; 32]) },
            "010401016b016b01016b09010505050505050505050505050505050505050505050505050505050505050505",
        ),
        (Request::Learn { key: key.clone(), accepted: accepted() }, "0105016bac020102ac0201020101760107ac020102000000"),
        (Request::GetConfig, "0106"),
        (
            Request::AdoptConfig(config()),
            "0107030101010101010101010101010101010101010101010101010101010101010101010100",
        ),
        (
            Request::Compare { from: key.clone(), to: None, fingerprint: [5; 32] },
            "0108016b000505050505050505050505050505050505050505050505050505050505050505",
        ),
        (Request::Fetch { keys: vec![key] }, "010901016b"),
        (Request::PutFragment(origin()), "010a010101010101010101010101010101010203030303030303030303030303030303016b"),
        (
            Request::PutSmall { origin: origin(), bytes: Bytes::from_static(b"xy") },
            "010b010101010101010101010101010101010203030303030303030303030303030303016b027879",
        ),
        (
            Request::GetFragment { id, offset: 1, len: 300 },
            "010c040404040404040404040404040404040404040404040404040404040404040401ac02",
        ),
        (Request::GetSmall { id }, "010d0404040404040404040404040404040404040404040404040404040404040404"),
        (
            Request::DeleteFragments { ids: vec![id] },
            "010e010404040404040404040404040404040404040404040404040404040404040404",
        ),
        (Request::Release { body }, "010f03030303030303030303030303030303"),
        (Request::InFlight { body }, "011003030303030303030303030303030303"),
        (
            Request::HoldsTombstones { epoch: 1, tombstones: vec![(Bytes::from_static(b"k"), ballot())] },
            "01110101016bac020102",
        ),
        (Request::CollectTombstones { epoch: 1, tombstones: Vec::new() }, "01120100"),
        (Request::GetFloors { epoch: 300 }, "0113ac02"),
        (Request::RaiseFloors { epoch: 1, floors: vec![ballot()] }, "01140101ac020102"),
        (Request::HandOver { epoch: 300, from: Bytes::from_static(b"k") }, "0115ac02016b"),
        (
            Request::Supply { from: Bytes::new(), to: Some(Bytes::from_static(b"t")), have: vec![[6; 8]] },
            "011600010174010606060606060606",
        ),
        (
            Request::Confirm { epoch: 1, ranges: vec![(Bytes::from_static(b"k"), None, [5; 32])] },
            "01170101016b000505050505050505050505050505050505050505050505050505050505050505",
        ),
        (Request::Raise { epoch: 1, floor: Stamp(300) }, "011801ac02"),
        (Request::CatchUp, "0119"),
        (
            Request::CompareLocal { from: Bytes::from_static(b"k"), to: None, fingerprint: [5; 32] },
            "011a016b000505050505050505050505050505050505050505050505050505050505050505",
        ),
        (
            Request::SupplyLocal { from: Bytes::new(), to: Some(Bytes::from_static(b"t")), have: vec![[6; 8]] },
            "011b00010174010606060606060606",
        ),
        (
            Request::CheckFragments { ids: vec![id], verify: true },
            "011c01040404040404040404040404040404040404040404040404040404040404040401",
        ),
        (Request::GetHealth, "011d"),
        (Request::Audit, "011e"),
        (
            Request::ScanObjects { epoch: 1, query, expect: Some([5; 32]) },
            "011f01016b016b01016b09010505050505050505050505050505050505050505050505050505050505050505",
        ),
    ]
}

fn responses() -> Vec<(Response, &'static str)> {
    let key = Bytes::from_static(b"k");
    let id = FragmentId::from_bytes([4; 32]);
    let entry = ScanEntry { key: key.clone(), ballot: ballot(), live: true, group: Some(1) };
    vec![
        (Response::Done, "0100"),
        (Response::Pong { epoch: 300 }, "0101ac02"),
        (
            Response::Promised { accepted: Some(accepted()), floor: Ballot::ZERO },
            "010201ac020102ac0201020101760107ac020102000000000000",
        ),
        (Response::Accepted, "0103"),
        (Response::Nack { highest: ballot() }, "0104ac020102"),
        (Response::Digest { ballot: Some(ballot()), record: None }, "010501ac02010200"),
        (Response::SamePage, "0106"),
        (Response::Page(ScanPage { entries: vec![entry], next: Some(key.clone()) }), "010701016bac02010201010101016b"),
        (
            Response::WrongEpoch(config()),
            "0108030101010101010101010101010101010101010101010101010101010101010101010100",
        ),
        (Response::Config(config()), "0109030101010101010101010101010101010101010101010101010101010101010101010100"),
        (Response::SameRange, "010a"),
        (
            Response::Ranges(vec![(key.clone(), [5; 32])]),
            "010b01016b0505050505050505050505050505050505050505050505050505050505050505",
        ),
        (Response::Keys(vec![(key.clone(), ballot())]), "010c01016bac020102"),
        (Response::Registers(vec![(key, accepted())]), "010d01016bac020102ac0201020101760107ac020102000000"),
        (Response::Stored { id, len: 300 }, "010e0404040404040404040404040404040404040404040404040404040404040404ac02"),
        (Response::Fragment { total: 300 }, "010fac02"),
        (Response::Small(Bytes::from_static(b"xy")), "0110027879"),
        (Response::InFlight(true), "011101"),
        (Response::NotFound, "0112"),
        (Response::Failed { reason: Failure::Full, detail: "d".to_owned() }, "0113000164"),
        (Response::Holds(vec![true, false]), "0114020100"),
        (Response::Floors(vec![ballot()]), "011501ac020102"),
        (
            Response::Supplied {
                registers: vec![(Bytes::from_static(b"k"), accepted())],
                next: None,
                left: 300,
                surplus: vec![2],
            },
            "011601016bac020102ac0201020101760107ac02010200000000ac020102",
        ),
        (Response::Confirmed(vec![true, false]), "0117020100"),
        (Response::Raised { highest: Stamp(300) }, "0118ac02"),
        (Response::Checked(vec![FragmentState::Sound, FragmentState::Missing, FragmentState::Corrupt]), "011903000102"),
        (Response::Health(Box::default()), "011a00000000000000000000ff00000000000000000000"),
    ]
}

#[test]
fn requests_keep_their_bytes() {
    for (message, hex) in requests() {
        golden(&message, hex);
    }
}

#[test]
fn responses_keep_their_bytes() {
    for (message, hex) in responses() {
        golden(&message, hex);
    }
}

#[test]
fn frames_keep_their_bytes() {
    golden(&Frame::One(Request::Ping), "010000");
    golden(&Frame::Batch(vec![Request::Ping, Request::GetConfig]), "0101020006");
}

#[test]
fn joining_keeps_its_bytes() {
    golden(&JoinRequest::Describe, "0100");
    golden(
        &JoinRequest::Join {
            pool: PoolId::from_bytes([1; 16]),
            token: Some([2; 32]),
            name: "h".to_owned(),
            port: 5000,
        },
        "01010101010101010101010101010101010101020202020202020202020202020202020202020202020202020202020202020201688827",
    );
    golden(
        &JoinResponse::Pool {
            id: PoolId::from_bytes([1; 16]),
            name: "lab".to_owned(),
            members: 1,
            max_members: 10,
            public_key: [2; 32],
            proof: vec![3; 4],
        },
        "010001010101010101010101010101010101036c6162010a02020202020202020202020202020202020202020202020202020202020202020403030303",
    );
    golden(
        &JoinResponse::Welcome(Box::new(Welcome {
            pool_seed: [1; 32],
            pool_key: [2; 32],
            config: config(),
            members: vec![(PeerId::from_bytes([3; 32]), vec!["a".to_owned()])],
        })),
        "010101010101010101010101010101010101010101010101010101010101010101010202020202020202020202020202020202020202020202020202020202020202030101010101010101010101010101010101010101010101010101010101010101010100010303030303030303030303030303030303030303030303030303030303030303010161",
    );
    golden(&JoinResponse::Pending, "0102");
    golden(&JoinResponse::Refused { reason: "no".to_owned() }, "0103026e6f");
    golden(&JoinRequest::Standing { pool: PoolId::from_bytes([1; 16]) }, "010201010101010101010101010101010101");
    let standing = JoinResponse::Standing { state: Some(MemberState::Evicted), reason: "no".to_owned() };
    golden(&standing, "01040101026e6f");
}

/// A frame that claims a list of four billion elements must fail on its few bytes, not on the memory.
#[test]
fn a_claimed_length_allocates_nothing() {
    let claim = [&[WIRE_VERSION, 1][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    assert!(decode::<Frame<Request>>(&claim).is_err());
    assert!(decode::<Frame<Response>>(&claim).is_err());
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let framed = [&[WIRE_VERSION][..], &bytes].concat();
        let _ = decode::<Frame<Request>>(&framed);
        let _ = decode::<Frame<Response>>(&framed);
        let _ = decode::<JoinRequest>(&framed);
        let _ = decode::<JoinResponse>(&framed);
    }
}
