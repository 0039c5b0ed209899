//! The store over a directory through the suite, and what only it promises. Over S3 and `WebDAV`: `s3-tests/cases/test_backend_opendal.py`.

use tempfile::TempDir;

use super::*;
use crate::conformance::{self, Lifetime};
use crate::decorate::Quota;
use crate::open;

fn url(dir: &Path, options: &str) -> String {
    format!("opendal+fs://{}{options}", dir.display())
}

async fn opened(dir: &Path) -> RemoteFragments {
    RemoteFragments::open(&format!("fs://{}", dir.display()), Vec::new(), Found::Adopted).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_in_a_directory_conform() {
    let dir = TempDir::new().unwrap();
    let open = async |name: &str| Arc::new(opened(&dir.path().join(name)).await) as _;
    conformance::fragments(Lifetime::Persistent, open).await;
    let bounded = Quota::new(Arc::new(opened(&dir.path().join("full")).await), 1 << 20, 0);
    conformance::fragments_when_full(Arc::new(bounded), 1 << 20).await;
}

/// Scenario: a second peer is pointed at the place of a first one; later the first is gone for good; and a place that a peer
/// knows is not there. Danger: two peers that collect each other's fragments; a bucket that was emptied is taken for a new one.
/// Expectation: refused with words, taken over when told to, and absent is absent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_belongs_to_who_made_it() {
    let dir = TempDir::new().unwrap();
    let first = open::fragments(&url(dir.path(), "")).unwrap();
    let stat = first.put(Bytes::from_static(b"kept")).await.unwrap();
    let second = open::fragments(&url(dir.path(), "")).map(drop).unwrap_err();
    assert!(second.to_string().contains("adopt=true"), "{second}");
    drop(first);
    let known = open::known_fragments(&url(dir.path(), "?max_bytes=10")).unwrap();
    assert_eq!(known.usage().await.unwrap(), Usage { fragments: 1, bytes: 4, free: 6 });
    let adopted = open::fragments(&url(dir.path(), "?adopt=true")).unwrap();
    assert_eq!(adopted.list(None, 10).await.unwrap(), [stat]);
    let absent = open::known_fragments(&url(&dir.path().join("other"), "?adopt=true")).map(drop).unwrap_err();
    assert!(matches!(absent, OpenError::Absent(_)), "{absent}");
}

/// Scenario: a URL with a typo, a service that is not in this build, a secret that the environment lacks. Danger: an option
/// ignored; a secret in a log. Expectation: words that name what is known, without the values.
#[test]
fn wrong_urls_are_refused_and_secrets_not_repeated() {
    let said = |url: &str| open::fragments(url).map(drop).unwrap_err().to_string();
    assert!(said("opendal+fs:///tmp/x?max_byte=1").contains("max_bytes"));
    assert!(said("opendal+ftp://host/x").contains("not in this build"));
    assert!(said("opendal+fs:///tmp/x?adopt=perhaps").contains("neither true nor false"));
    let secret = said("opendal+s3://bucket/x?secret_access_key=hunter2&acess_key_id=x");
    assert!(secret.contains("access_key_id") && !secret.contains("hunter2"), "{secret}");
    let absent = said("opendal+s3://bucket/x?secret_access_key=env:PALM_TEST_NO_SUCH_VARIABLE");
    assert!(absent.contains("PALM_TEST_NO_SUCH_VARIABLE"), "{absent}");
    let place =
        open::fragments("opendal+s3://bucket/x?region=a&endpoint=ftp://nowhere").map(drop).unwrap_err().to_string();
    assert!(!place.contains("hunter2"), "{place}");
}

/// Scenario: a peer dies in the middle of an upload. Danger: objects under temporary names fill the bucket, or a stranger's go.
/// Expectation: ours are gone after the next opening.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_removes_what_was_cut_short() {
    let dir = TempDir::new().unwrap();
    drop(opened(dir.path()).await);
    std::fs::create_dir_all(dir.path().join("tmp")).unwrap();
    let (ours, note) = (dir.path().join("tmp/00000000000000ff.part"), dir.path().join("tmp/note.part"));
    std::fs::write(&ours, b"half").unwrap();
    std::fs::write(&note, b"keep").unwrap();
    opened(dir.path()).await;
    assert!(!ours.exists() && note.exists());
}

/// Scenario: an object rotted into another length and repair stores it again. Danger: counted twice. Expectation: healed,
/// and counted as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storing_again_heals() {
    let dir = TempDir::new().unwrap();
    let store = opened(dir.path()).await;
    let good = Bytes::from(vec![7; 100_000]);
    let stat = store.put(good.clone()).await.unwrap();
    std::fs::write(dir.path().join(path(stat.id)), b"rotten").unwrap();
    let store = opened(dir.path()).await;
    assert_eq!(store.usage().await.unwrap().bytes, 6);
    store.put(good.clone()).await.unwrap();
    assert_eq!(store.get(stat.id).await.unwrap(), good);
    assert_eq!(store.usage().await.unwrap().bytes, 100_000);
}

/// Scenario: between two pages of one folder a fragment ahead is deleted, another stored, and a file taken away by hand. Danger: pages
/// from one listing tell what was. Expectation: the next page knows what this store did, and the next walk what others did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_sees_what_changes_ahead_of_it() {
    let dir = TempDir::new().unwrap();
    let store = opened(dir.path()).await;
    let in_one_folder = (0_u64..).map(|number| Bytes::from(number.to_le_bytes().to_vec()));
    let mut bodies: Vec<Bytes> = in_one_folder.filter(|body| FragmentId::of(body).as_bytes()[0] == 7).take(5).collect();
    bodies.sort_unstable_by_key(|body| FragmentId::of(body));
    let late = bodies.remove(3);
    let mut stats = Vec::new();
    for body in &bodies {
        stats.push(store.put(body.clone()).await.unwrap());
    }
    assert_eq!(store.list(None, 1).await.unwrap(), stats[..1]);
    assert_eq!(store.list(Some(stats[0].id), 1).await.unwrap(), stats[1..2]);
    store.delete(stats[2].id).await.unwrap();
    let stored = store.put(late).await.unwrap();
    assert_eq!(store.list(Some(stats[1].id), 10).await.unwrap(), [stored, stats[3]]);
    std::fs::remove_file(dir.path().join(path(stored.id))).unwrap();
    assert_eq!(store.list(None, 10).await.unwrap(), [stats[0], stats[1], stats[3]]);
}
