//! What every index does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Lifetime, Random};
use crate::index::Durability::{Buffered, Synced};
use crate::index::{IndexStore, Next, Space, Write};

/// Checks the whole contract. `open` opens the index kept under a name.
pub async fn index<O>(lifetime: Lifetime, open: O)
where
    O: AsyncFn(&str) -> Arc<dyn IndexStore>,
{
    keys_and_values(&*open("keys-and-values").await).await;
    batches_in_order(&*open("batches-in-order").await).await;
    scans(&*open("scans").await).await;
    cleared(&*open("cleared").await).await;
    scans_see_one_moment(open("scans-see-one-moment").await).await;
    commits_at_once(open("commits-at-once").await).await;
    like_a_map(lifetime, &open).await;
    if lifetime == Lifetime::Persistent {
        kept_when_reopened(&open).await;
    }
}

/// Scenario: keys of all kinds in all spaces. Danger: spaces that mix, a key or value that does not survive. Expectation:
/// what was put is there and nothing else.
async fn keys_and_values(index: &dyn IndexStore) {
    let mut random = Random(1);
    let keys = [Bytes::new(), Bytes::from_static(b"\0"), Bytes::from_static(&[0xff; 40]), random.bytes(1200)];
    for (number, space) in Space::ALL.into_iter().enumerate() {
        assert_eq!(scan_all(index, space), []);
        for key in &keys {
            assert_eq!(index.get(space, key).unwrap(), None);
            let value = random.bytes(number * 400_000);
            index.commit(vec![Write::Put(space, key.clone(), value.clone())], Synced).await.unwrap();
            assert_eq!(index.get(space, key).unwrap(), Some(value));
        }
    }
    for space in Space::ALL {
        assert_eq!(scan_all(index, space).len(), keys.len());
        index.commit(vec![Write::Delete(space, keys[1].clone())], Buffered).await.unwrap();
        index.commit(vec![Write::Delete(space, keys[1].clone())], Buffered).await.unwrap();
        assert_eq!(index.get(space, &keys[1]).unwrap(), None);
        assert_eq!(scan_all(index, space).len(), keys.len() - 1);
    }
    index.commit(Vec::new(), Synced).await.unwrap();
}

/// Scenario: one batch changes a key more than once, and one caller commits again and again. Danger: changes reordered.
/// Expectation: the last one counts, in a batch and from batch to batch.
async fn batches_in_order(index: &dyn IndexStore) {
    let key = Bytes::from_static(b"key");
    let put = |value: &'static str| Write::Put(Space::Meta, key.clone(), Bytes::from_static(value.as_bytes()));
    let delete = || Write::Delete(Space::Meta, key.clone());
    index.commit(vec![put("1"), put("2")], Buffered).await.unwrap();
    assert_eq!(index.get(Space::Meta, &key).unwrap().unwrap(), "2");
    index.commit(vec![put("3"), delete()], Buffered).await.unwrap();
    assert_eq!(index.get(Space::Meta, &key).unwrap(), None);
    index.commit(vec![delete(), put("4")], Synced).await.unwrap();
    assert_eq!(index.get(Space::Meta, &key).unwrap().unwrap(), "4");
    for number in 0..200_u32 {
        let durability = if number % 7 == 0 { Synced } else { Buffered };
        let value = Bytes::copy_from_slice(&number.to_be_bytes());
        index.commit(vec![Write::Put(Space::Meta, key.clone(), value.clone())], durability).await.unwrap();
        assert_eq!(index.get(Space::Meta, &key).unwrap().unwrap(), value);
    }
}

/// Scenario: a listing with a delimiter walks a thousand keys. Danger: a key skipped or seen twice around a seek.
/// Expectation: keys in order of their bytes, from any key on, and seeks land on the first key at or after.
async fn scans(index: &dyn IndexStore) {
    let key = |folder: u32, file: u32| Bytes::from(format!("{folder:03}/{file:03}"));
    let puts = (0..50).flat_map(|folder| (0..20).map(move |file| (folder, file)));
    let puts = puts.map(|(folder, file)| Write::Put(Space::Followed, key(folder, file), key(file, folder)));
    index.commit(puts.rev().collect(), Synced).await.unwrap();

    let all = scan_all(index, Space::Followed);
    assert_eq!(all.len(), 1000);
    assert!(all.is_sorted());
    assert!(all.iter().all(|(key, value)| key[..3] == value[4..] && key[4..] == value[..3]));

    let mut seen = Vec::new();
    let mut stop_at = |from: &[u8], count: usize| {
        seen.clear();
        let visit = &mut |key: &[u8], _: &[u8]| {
            seen.push(key.to_vec());
            if seen.len() == count { Next::Stop } else { Next::Continue }
        };
        index.scan(Space::Followed, from, visit).unwrap();
        seen.clone()
    };
    assert_eq!(stop_at(b"010/005", 3), [&b"010/005"[..], b"010/006", b"010/007"]);
    assert_eq!(stop_at(b"010/0055", 1), [&b"010/006"[..]]);
    assert_eq!(stop_at(b"010/019", 2), [&b"010/019"[..], b"011/000"]);
    assert_eq!(stop_at(b"049/019", 5), [&b"049/019"[..]]);
    assert_eq!(stop_at(b"050", 5), <[&[u8]; 0]>::default());

    let mut folders = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        folders.push(key[..3].to_vec());
        // The byte after the delimiter: past everything in the folder.
        Next::Seek(Bytes::from([&key[..3], b"0"].concat()))
    };
    index.scan(Space::Followed, b"", visit).unwrap();
    let expected: Vec<_> = (0..50).map(|folder| format!("{folder:03}").into_bytes()).collect();
    assert_eq!(folders, expected);
}

/// Scenario: a learner too far behind drops its space and fills it anew. Danger: keys that survive, or other spaces hit.
/// Expectation: all keys of that space are gone, also those of the same batch before it, and those after it are there.
async fn cleared(index: &dyn IndexStore) {
    let put = |space, key: &str| Write::Put(space, Bytes::copy_from_slice(key.as_bytes()), Bytes::new());
    index.commit(vec![Write::Clear(Space::Followed)], Synced).await.unwrap();
    index.commit(vec![put(Space::Followed, "a"), put(Space::Accepted, "a")], Buffered).await.unwrap();
    let batch = vec![put(Space::Followed, "z"), Write::Clear(Space::Followed), put(Space::Followed, "b")];
    index.commit(batch, Buffered).await.unwrap();
    assert_eq!(scan_all(index, Space::Followed), [(b"b".to_vec(), vec![])]);
    assert_eq!(scan_all(index, Space::Accepted).len(), 1);
    index.commit(vec![put(Space::Followed, ""), put(Space::Followed, "c")], Buffered).await.unwrap();
    index.commit(vec![Write::Clear(Space::Followed)], Synced).await.unwrap();
    assert_eq!(scan_all(index, Space::Followed), []);
}

/// Scenario: batches that set all of a hundred keys to the same number race with scans. Danger: a scan that sees half a
/// batch. Expectation: each scan sees one number, and never an older one than the scan before.
async fn scans_see_one_moment(index: Arc<dyn IndexStore>) {
    let set_all = |number: u64| {
        let value = Bytes::copy_from_slice(&number.to_be_bytes());
        (0..100_u8).map(|key| Write::Put(Space::Accepted, Bytes::copy_from_slice(&[key]), value.clone())).collect()
    };
    index.commit(set_all(0), Buffered).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let (scanned, finished) = (Arc::clone(&index), Arc::clone(&done));
    let scanner = tokio::task::spawn_blocking(move || {
        let (mut newest, mut scans) = (Vec::new(), 0);
        while !finished.load(Ordering::Relaxed) || scans == 0 {
            let mut values: Vec<_> = scan_all(&*scanned, Space::Accepted).into_iter().map(|(_, value)| value).collect();
            assert_eq!(values.len(), 100);
            values.dedup();
            assert_eq!(values.len(), 1, "a scan saw more than one batch");
            assert!(values[0] >= newest, "a scan went back in time");
            newest.clone_from(&values[0]);
            scans += 1;
        }
    });
    for number in 1..300 {
        index.commit(set_all(number), if number % 10 == 0 { Synced } else { Buffered }).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    scanner.await.unwrap();
}

/// Scenario: 64 callers commit at once, some synced and some not. Danger: a group that answers for a batch it left out.
/// Expectation: each sees its own batch as soon as it is answered, and all are there in the end.
async fn commits_at_once(index: Arc<dyn IndexStore>) {
    let mut tasks = JoinSet::new();
    for caller in 0..64_u8 {
        let index = Arc::clone(&index);
        tasks.spawn(async move {
            for number in 0..20_u8 {
                let key = Bytes::copy_from_slice(&[caller, number]);
                let batch = vec![
                    Write::Put(Space::Fragments, key.clone(), key.clone()),
                    Write::Put(Space::Accepted, key.clone(), key.clone()),
                ];
                index.commit(batch, if caller % 2 == 0 { Synced } else { Buffered }).await.unwrap();
                assert_eq!(index.get(Space::Fragments, &key).unwrap().as_ref(), Some(&key));
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(scan_all(&*index, Space::Fragments).len(), 64 * 20);
    assert_eq!(scan_all(&*index, Space::Accepted).len(), 64 * 20);
}

/// Scenario: a long history of batches, reopened now and then. Danger: whatever nobody thought of. Expectation: four maps
/// say the same after every step.
async fn like_a_map<O>(lifetime: Lifetime, open: &O)
where
    O: AsyncFn(&str) -> Arc<dyn IndexStore>,
{
    const NAME: &str = "like-a-map";
    const SEED: u64 = 2;
    let mut random = Random(SEED);
    let mut model: BTreeMap<Space, BTreeMap<Vec<u8>, Vec<u8>>> = BTreeMap::new();
    let mut index = open(NAME).await;
    for step in 0..500 {
        let context = format!("seed {SEED}, step {step}");
        let mut batch = Vec::new();
        for _ in 0..random.below(20) {
            let space = Space::ALL[random.below(4) as usize];
            // Keys share prefixes and few bytes, so that they meet often.
            let len = random.below(5) as usize;
            let key: Bytes = random.bytes(len).iter().map(|byte| byte % 4).collect();
            let entries = model.entry(space).or_default();
            match random.below(50) {
                0 => {
                    entries.clear();
                    batch.push(Write::Clear(space));
                }
                1..15 => {
                    entries.remove(&key[..]);
                    batch.push(Write::Delete(space, key));
                }
                _ => {
                    let len = random.below(50) as usize;
                    let value = random.bytes(len);
                    entries.insert(key.to_vec(), value.to_vec());
                    batch.push(Write::Put(space, key, value));
                }
            }
        }
        index.commit(batch, if step % 5 == 0 { Synced } else { Buffered }).await.expect(&context);
        if lifetime == Lifetime::Persistent && step % 100 == 99 {
            drop(index);
            index = open(NAME).await;
        }
        if step % 10 == 9 {
            for space in Space::ALL {
                let expected: Vec<_> = model.entry(space).or_default().clone().into_iter().collect();
                assert_eq!(scan_all(&*index, space), expected, "{context}");
            }
        }
    }
}

/// Scenario: a peer is stopped and started. Danger: a batch, synced or not, that lived in memory only. Expectation: every
/// key and deletion and clearing is as it was.
async fn kept_when_reopened<O>(open: &O)
where
    O: AsyncFn(&str) -> Arc<dyn IndexStore>,
{
    const NAME: &str = "kept-when-reopened";
    let mut random = Random(3);
    let index = open(NAME).await;
    let fill = |random: &mut Random| {
        let keys = (0..1000).map(|_| (Space::ALL[random.below(4) as usize], random.bytes(20), random.bytes(100)));
        keys.map(|(space, key, value)| Write::Put(space, key, value)).collect::<Vec<_>>()
    };
    index.commit(fill(&mut random), Buffered).await.unwrap();
    index.commit(vec![Write::Clear(Space::Meta)], Synced).await.unwrap();
    index.commit(fill(&mut random), Synced).await.unwrap();
    let (key, _) = scan_all(&*index, Space::Accepted).remove(5);
    index.commit(vec![Write::Delete(Space::Accepted, Bytes::from(key))], Buffered).await.unwrap();
    let before = Space::ALL.map(|space| scan_all(&*index, space));
    drop(index);
    let index = open(NAME).await;
    assert!(Space::ALL.map(|space| scan_all(&*index, space)) == before, "reopened");
}

fn scan_all(index: &dyn IndexStore, space: Space) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        found.push((key.to_vec(), value.to_vec()));
        Next::Continue
    };
    index.scan(space, b"", visit).unwrap();
    found
}
