use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::id::SegmentId;

/// What `Policy::auto` chooses, and shapes at the edges of the arithmetic.
const POLICIES: [(u8, u8); 14] =
    [(1, 1), (1, 2), (2, 3), (3, 4), (3, 5), (4, 6), (4, 7), (5, 8), (1, 3), (3, 3), (2, 5), (2, 6), (6, 7), (4, 8)];
/// Around the minimum shard, the engine's chunk of 64 bytes, and the stripe.
const LENGTHS: [usize; 16] =
    [1, 2, 31, 32, 47, 48, 49, 79, 80, 81, 1000, 4096, 65_537, STRIPE_BYTES / 2, STRIPE_BYTES - 1, STRIPE_BYTES];

const BUCKET_KEY: [u8; 32] = [0x42; 32];
const SEGMENT: SegmentId = SegmentId::from_bytes([7; 16]);

/// Bytes that look random and are the same for ever.
fn noise(seed: u64, len: usize) -> BytesMut {
    let mut bytes = BytesMut::zeroed(len);
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn key(seed: u64) -> StripeKey {
    let mut key = [0; 32];
    key.copy_from_slice(&noise(!seed, 32));
    StripeKey::from_random(key)
}

fn secret() -> SegmentSecret {
    SegmentSecret::derive(&BUCKET_KEY, SEGMENT)
}

fn coder(k: u8, n: u8) -> Coder {
    Coder::new(Policy::new(k, n).unwrap()).unwrap()
}

/// Stripe 0 of the test segment, shards with their indices.
fn seal(coder: &mut Coder, plaintext: &BytesMut) -> Vec<(u8, Bytes)> {
    let shards = coder.seal_encode(&secret(), 0, plaintext.clone(), key(1)).unwrap();
    (0..).zip(shards).collect()
}

/// All ways to take `count` of `items`.
fn subsets<T: Clone>(items: &[T], count: usize) -> Vec<Vec<T>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let Some((first, rest)) = items.split_first() else { return Vec::new() };
    let mut all = subsets(rest, count);
    for mut with in subsets(rest, count - 1) {
        with.insert(0, first.clone());
        all.push(with);
    }
    all
}

/// Any n - k homes vanish. The danger is one pattern of losses, at one length, that a shortcut forgot:
/// whichever k shards are left must give the plaintext, and repair must give the very shards that were lost.
#[test]
fn any_k_shards_open_and_rebuild() {
    for (k, n) in POLICIES {
        let mut coder = coder(k, n);
        let all: Vec<u8> = (0..n).collect();
        for len in LENGTHS {
            let plaintext = noise(u64::from(k), len);
            let shards = seal(&mut coder, &plaintext);
            assert_eq!(shards.len(), usize::from(n));
            for subset in subsets(&shards, k.into()) {
                let opened = coder.open(&secret(), 0, len, &subset).unwrap();
                assert!(opened == plaintext, "{k}-of-{n}, {len} bytes");
                let rebuilt = coder.rebuild(len, &subset, &all).unwrap();
                assert!(rebuilt.iter().zip(&shards).all(|(new, (_, old))| new == old), "{k}-of-{n}, {len} bytes");
            }
        }
    }
}

proptest! {
    /// The same for policies, lengths and subsets nobody thought of, in any order and with shards to spare.
    #[test]
    fn any_shards_open(
        (k, n) in (1..=64_u8).prop_flat_map(|n| (1..=n, Just(n))),
        len in 1..5000_usize,
        seed: u64,
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 64),
    ) {
        let mut coder = coder(k, n);
        let plaintext = noise(seed, len);
        let mut rest = seal(&mut coder, &plaintext);
        let count = usize::from(k) + picks[0].index(usize::from(n - k) + 1);
        let subset: Vec<_> = (0..count).map(|at| rest.swap_remove(picks[at].index(rest.len()))).collect();
        prop_assert!(coder.open(&secret(), 0, len, &subset).unwrap() == plaintext);
        let lost: Vec<u8> = rest.iter().map(|(index, _)| *index).collect();
        let rebuilt = coder.rebuild(len, &subset, &lost).unwrap();
        prop_assert!(rebuilt.iter().zip(&rest).all(|(new, (_, old))| new == old));
    }

    /// Range arithmetic against the definition, counted out stripe by stripe.
    #[test]
    fn shape_agrees_with_counting(
        (k, n) in (1..=64_u8).prop_flat_map(|n| (1..=n, Just(n))),
        len in prop_oneof![1..=SEGMENT_BYTES, (1..=64_u64).prop_map(|stripes| stripes << 20)],
        start in 0..=SEGMENT_BYTES + 2,
        count in prop_oneof![0..=SEGMENT_BYTES, 0..3_u64],
    ) {
        let shape = Shape::new(Policy::new(k, n).unwrap(), len).unwrap();
        let mut covered = Vec::new();
        let (mut at, mut offset, mut stripe) = (0, 0, 0);
        while at < len {
            let end = len.min(at + STRIPE_BYTES as u64);
            prop_assert_eq!(shape.stripe_range(stripe), at..end);
            prop_assert_eq!(shape.stripe_len(stripe) as u64, end - at);
            prop_assert_eq!(shape.shard_offset(stripe), offset);
            let shard = shape.shard_len(stripe);
            prop_assert!(shard >= MIN_SHARD_BYTES && shard.is_multiple_of(2));
            prop_assert_eq!(shape.sealed_len(stripe), shard * usize::from(k));
            // Room for plaintext, tag and tail, and not a symbol per shard too much.
            let needed = shape.stripe_len(stripe) + 48;
            prop_assert!(shape.sealed_len(stripe) >= needed);
            prop_assert!(shard == MIN_SHARD_BYTES || (shard - 2) * usize::from(k) < needed);
            if start.max(at) < (start + count).min(end) {
                covered.push(stripe);
            }
            offset += shard as u64;
            at = end;
            stripe += 1;
        }
        prop_assert_eq!(shape.stripes(), stripe);
        prop_assert_eq!(shape.fragment_len(), offset);
        prop_assert_eq!(shape.fragment_range(0..stripe), 0..offset);
        prop_assert_eq!(shape.stripe_len(stripe) + shape.shard_len(stripe + 1), 0);
        prop_assert_eq!(shape.stripes_of(start..start + count).collect::<Vec<_>>(), covered);
    }
}

/// The shape is computed by peers that never see the stripe. It must say what sealing produces.
#[test]
fn shards_are_as_long_as_the_shape_says() {
    for (k, n) in POLICIES {
        for len in LENGTHS {
            let shape = Shape::new(Policy::new(k, n).unwrap(), len as u64).unwrap();
            for (_, shard) in seal(&mut coder(k, n), &noise(0, len)) {
                assert_eq!(shard.len(), shape.shard_len(0));
            }
        }
    }
}

/// A disk or a peer changes a single bit. Opening is the only check on the read path, so it must see every
/// one, in data and in parity shards, in ciphertext, tag, tail and padding.
#[test]
fn every_flipped_bit_is_detected() {
    for (k, n, len) in [(1, 2, 5), (2, 3, 100), (3, 5, 60), (3, 3, 1)] {
        let mut coder = coder(k, n);
        let shards = seal(&mut coder, &noise(3, len));
        for subset in subsets(&shards, k.into()) {
            for victim in 0..subset.len() {
                for bit in 0..subset[victim].1.len() * 8 {
                    let mut damaged = subset.clone();
                    let mut bytes = BytesMut::from(&damaged[victim].1[..]);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    damaged[victim].1 = bytes.freeze();
                    assert_eq!(coder.open(&secret(), 0, len, &damaged), Err(CodeError::Corrupt));
                }
            }
        }
    }
}

/// Shards that are whole and come from elsewhere: another stripe, segment, bucket, length or index. A home
/// that mixes them up, or lies, must not get one opened in place of another.
#[test]
fn a_stripe_opens_only_where_it_belongs() {
    let mut coder = coder(2, 3);
    let len = 1000;
    let shards = seal(&mut coder, &noise(4, len));
    let two = &shards[..2];
    assert!(coder.open(&secret(), 0, len, two).is_ok());
    assert_eq!(coder.open(&secret(), 1, len, two), Err(CodeError::Corrupt));
    // One byte shorter gives shards of the same length: only the authenticated length tells.
    assert_eq!(shard_len(2, len), shard_len(2, len - 1));
    assert_eq!(coder.open(&secret(), 0, len - 1, two), Err(CodeError::Corrupt));
    let other_segment = SegmentSecret::derive(&BUCKET_KEY, SegmentId::from_bytes([8; 16]));
    assert_eq!(coder.open(&other_segment, 0, len, two), Err(CodeError::Corrupt));
    let other_bucket = SegmentSecret::derive(&[0x43; 32], SEGMENT);
    assert_eq!(coder.open(&other_bucket, 0, len, two), Err(CodeError::Corrupt));
    let swapped = [(1, two[0].1.clone()), (0, two[1].1.clone())];
    assert_eq!(coder.open(&secret(), 0, len, &swapped), Err(CodeError::Corrupt));
}

/// Promise 3. Whoever holds k - 1 shards and the bucket's key still misses a shard, and the key of the
/// stripe is masked by a hash of all the ciphertext: short of guessing 32 random bytes there is nothing to
/// try. Asking to open is refused; completing the set with a guess (zeros, another shard, the right shard of
/// another sealing of the same plaintext) opens nothing.
#[test]
fn fewer_than_k_shards_open_nothing_even_with_the_key() {
    for (k, n) in POLICIES.into_iter().filter(|&(k, _)| k > 1) {
        let mut coder = coder(k, n);
        for len in [1, 100, 5000] {
            let plaintext = noise(5, len);
            let shards = seal(&mut coder, &plaintext);
            let again = coder.seal_encode(&secret(), 0, plaintext, key(2)).unwrap();
            for few in subsets(&shards, usize::from(k) - 1) {
                let refused = Err(CodeError::NotEnough { have: few.len(), need: k.into() });
                assert_eq!(coder.open(&secret(), 0, len, &few), refused);
                let missing = (0..n).find(|index| few.iter().all(|(held, _)| held != index)).unwrap();
                assert!(few[0].1.len() >= MIN_SHARD_BYTES);
                let guesses =
                    [Bytes::from(vec![0; few[0].1.len()]), few[0].1.clone(), again[usize::from(missing)].clone()];
                for guess in guesses {
                    let mut completed = few.clone();
                    completed.push((missing, guess));
                    assert_eq!(coder.open(&secret(), 0, len, &completed), Err(CodeError::Corrupt));
                }
            }
        }
    }
}

/// The same from within: the stripe's key hides behind every single byte of ciphertext and tag. A hash that
/// skipped some would let whoever misses only those compute the key and read the rest.
#[test]
fn the_stripe_key_takes_every_byte_of_the_ciphertext() {
    let (secret, len) = (secret(), 200);
    let sealed = coder(1, 1).seal_encode(&secret, 0, noise(8, len), key(1)).unwrap().concat();
    let (ciphertext, tail) = sealed.split_last_chunk::<32>().unwrap();
    let recover = |ciphertext: &[u8]| -> Vec<u8> {
        secret.mask(ciphertext).as_bytes().iter().zip(tail).map(|(mask, tail)| mask ^ tail).collect()
    };
    let right = recover(ciphertext);
    assert_eq!(right, noise(!1, 32), "all of it gives the key");
    for at in 0..ciphertext.len() {
        let mut damaged = ciphertext.to_vec();
        damaged[at] ^= 1;
        let bits: u32 = recover(&damaged).iter().zip(&right).map(|(got, right)| (got ^ right).count_ones()).sum();
        assert!((64..=192).contains(&bits), "byte {at} changes {bits} of 256 bits");
    }
}

/// Promise 3, as an engineer checks it with grep: no run of the plaintext is on any disk, and equal
/// plaintexts leave no equal bytes, so disks do not tell that two objects are the same.
#[test]
fn no_shard_shows_plaintext() {
    const RUN: usize = 64;
    let text = b"It is a period of civil war. Rebel peers, striking from a hidden pool, ".repeat(300);
    let plaintext = BytesMut::from(&text[..]);
    let runs: HashSet<&[u8]> = text.windows(RUN).collect();
    assert!(text[100..200].windows(RUN).any(|run| runs.contains(run)), "the search finds what is there");
    for (k, n) in POLICIES {
        let mut coder = coder(k, n);
        let first = coder.seal_encode(&secret(), 0, plaintext.clone(), key(1)).unwrap();
        assert!(first.iter().all(|shard| !shard.windows(RUN).any(|run| runs.contains(run))));

        let second = coder.seal_encode(&secret(), 0, plaintext.clone(), key(2)).unwrap();
        let blocks: HashSet<&[u8; 16]> = first.iter().flat_map(|shard| shard.as_chunks().0).collect();
        assert!(second.iter().all(|shard| !shard.as_chunks().0.iter().any(|block| blocks.contains(block))));
    }
}

/// Tiny plaintexts are where a shard could be short or padded with known bytes: one byte under every
/// policy leaves no shard shorter than the bound and none with a run of zeros.
#[test]
fn shards_of_tiny_plaintexts_are_not_guessable() {
    for (k, n) in POLICIES.into_iter().chain([(64, 64), (40, 64)]) {
        for (_, shard) in seal(&mut coder(k, n), &BytesMut::from(&[0][..])) {
            assert!(shard.len() >= MIN_SHARD_BYTES);
            assert!(shard.windows(8).all(|run| run != [0; 8]), "{k}-of-{n}");
        }
    }
}

/// Homes answer with anything. Whatever does not fit is named, so that the caller asks another home.
#[test]
fn shards_that_do_not_fit_are_named() {
    let mut coder = coder(2, 3);
    let len = 500;
    let shards = seal(&mut coder, &noise(6, len));
    let (expected, good) = (shards[0].1.len(), shards[0].clone());
    let bad = |index: u8, len: usize| Err(CodeError::BadShard { index, len, n: 3, expected });

    let short = (1, shards[1].1.slice(2..));
    assert_eq!(coder.open(&secret(), 0, len, &[good.clone(), short]), bad(1, expected - 2));
    assert_eq!(coder.open(&secret(), 0, len, &[good.clone(), (1, Bytes::new())]), bad(1, 0));
    assert_eq!(coder.open(&secret(), 0, len, &[good.clone(), good.clone()]), bad(0, expected));
    for index in [3, 64, 255] {
        assert_eq!(coder.open(&secret(), 0, len, &[good.clone(), (index, shards[1].1.clone())]), bad(index, expected));
        assert_eq!(coder.rebuild(len, &shards, &[index]).map(|_| Bytes::new()), bad(index, expected));
    }
    let few = Err(CodeError::NotEnough { have: 1, need: 2 });
    assert_eq!(coder.open(&secret(), 0, len, &shards[2..]), few);
    // After all these errors the coder works on.
    assert!(coder.open(&secret(), 0, len, &shards[1..]).is_ok());
}

#[test]
fn lengths_out_of_bounds_are_errors() {
    let mut coder = coder(3, 5);
    for len in [0, STRIPE_BYTES + 1] {
        let error = Some(CodeError::Length(len as u64));
        assert_eq!(coder.seal_encode(&secret(), 0, BytesMut::zeroed(len), key(1)).err(), error);
        assert_eq!(coder.open(&secret(), 0, len, &[]).err(), error);
        assert_eq!(coder.rebuild(len, &[], &[0]).err(), error);
    }
    for len in [0, SEGMENT_BYTES + 1, u64::MAX] {
        assert_eq!(Shape::new(Policy { k: 3, n: 5 }, len), Err(CodeError::Length(len)));
    }
    for (k, n) in [(0, 0), (0, 1), (2, 1), (1, 65), (65, 65)] {
        assert!(matches!(Coder::new(Policy { k, n }), Err(CodeError::Policy(_))));
        assert!(matches!(Shape::new(Policy { k, n }, 1), Err(CodeError::Policy(_))));
    }
}

/// Uploads are bound by memory traffic: a buffer with room for the overhead is sealed where it lies and its
/// shards are slices of it.
#[test]
fn data_shards_are_the_buffer_they_were_given_in() {
    let mut coder = coder(3, 5);
    for len in [1000, STRIPE_BYTES] {
        let mut buffer = BytesMut::with_capacity(coder.stripe_capacity());
        buffer.extend_from_slice(&noise(7, len));
        let address = buffer.as_ptr() as usize;
        let shards = coder.seal_encode(&secret(), 0, buffer, key(1)).unwrap();
        for (index, shard) in shards[..3].iter().enumerate() {
            assert_eq!(shard.as_ptr() as usize, address + index * shard.len());
        }
    }
}

/// Logs and panics print what they are given.
#[test]
fn secrets_do_not_print() {
    assert_eq!(format!("{:?}", secret()), "SegmentSecret(07070707, redacted)");
    assert_eq!(format!("{:?}", StripeKey::from_random([9; 32])), "StripeKey(redacted)");
}

/// What is on disks today must open for ever: the cipher, the hash, their contexts and the erasure code's
/// coefficients, which a new version of a library might change without a word. Never edit these
/// values; a new format gets new ones beside them. (`docs/format.md` has the layout.)
#[test]
fn golden_shards() {
    for (k, n, len, data, all) in GOLDEN {
        let shards = coder(k, n).seal_encode(&secret(), 9, noise(1, len), key(1)).unwrap();
        assert_eq!(blake3::hash(&shards[..k.into()].concat()).to_hex().as_str(), data, "{k}-of-{n}, {len} bytes");
        assert_eq!(blake3::hash(&shards.concat()).to_hex().as_str(), all, "{k}-of-{n}, {len} bytes");
    }
}

/// k, n, plaintext bytes; BLAKE3 of the data shards end to end, which were computed apart from this code, by
/// Python's `cryptography` and `blake3`; BLAKE3 of all shards.
const GOLDEN: [(u8, u8, usize, &str, &str); 7] = [
    (
        1,
        1,
        1,
        "4e39e8a7a8701ba3f2d2fcec4add4f6b0350a44e55d8ff43d0c180f44c2bbce0",
        "4e39e8a7a8701ba3f2d2fcec4add4f6b0350a44e55d8ff43d0c180f44c2bbce0",
    ),
    (
        1,
        2,
        100,
        "7231793b19e0233eccb898fd1a86ac93437fc997699efa2650b9ae968517182f",
        "4d7a370396535aa510e163154eec4688df160c4fd81cd1fd762174d51f19c842",
    ),
    (
        2,
        3,
        1,
        "4905e21ca308bedfe20d9129cda618540e212483800a097441b117146f736adb",
        "22e807b75a7f40b8e506f47281ff08755815f9a95a92c741da52b5cba55c647a",
    ),
    (
        3,
        5,
        100,
        "afb76314985944925a691e0466d31f2dd7eea9c6bec77183021b48ba56ad98b3",
        "e82d0a80ff359202c6fca17f925e52198748f5a29a66384abbbf159ff6ae5d00",
    ),
    (
        3,
        5,
        STRIPE_BYTES,
        "a64a8e0c8a14a8b8c775a77ab948ab8d98857c5e7edc76107a2c4b9696c81dc0",
        "2919cdb87612722275281ec840bc4663c22f20ef757b28f00e334c22449491f9",
    ),
    (
        2,
        6,
        777,
        "4532eb9179d114ae3e833bef94bfbb326f2f12a432acb3530423e089938760f1",
        "21c4fb53ff68f4cde41e521ef7de4ddb2f7c1b05b7338668f0b13d6aa98092e7",
    ),
    (
        5,
        8,
        STRIPE_BYTES - 1,
        "1d5bc9e0794a759583064b776cfa26ce4cee9b856bdf0ba5cea1b16a94657422",
        "e1af6853adc7724fb885acb8448cab7e9b5648e527b9bf7668a4406970dbb5b7",
    ),
];
