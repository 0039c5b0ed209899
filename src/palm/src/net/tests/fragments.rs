//! Fragment bodies in both directions.

use super::*;

const FRAGMENT_BYTES: usize = 30 << 20;

fn fragment() -> Bytes {
    let mut bytes = vec![0; FRAGMENT_BYTES];
    blake3::Hasher::new().update(b"fragment").finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// A large fragment goes to a home and comes back whole, then a range of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_fragment_comes_back_as_it_went() {
    let (a, b) = pair();
    let (bytes, home) = (fragment(), b.net.me());
    let id = FragmentId::of(&bytes);
    let mut upload = a.net.put_fragment(home, origin(0)).await.unwrap();
    for at in (0..bytes.len()).step_by(350_000) {
        upload.write(bytes.slice(at..bytes.len().min(at + 350_000))).await.unwrap();
    }
    let stored = upload.finish().await.unwrap();
    assert_eq!(stored, Response::Stored { id, len: FRAGMENT_BYTES as u64 });

    let mut download = a.net.get_fragment(home, id, 0, FRAGMENT_BYTES as u64).await.unwrap().unwrap();
    let mut hasher = blake3::Hasher::new();
    for at in (0..FRAGMENT_BYTES).step_by(350_000) {
        hasher.update(&download.read(350_000.min(FRAGMENT_BYTES - at)).await.unwrap());
    }
    assert_eq!(hasher.finalize().as_bytes(), id.as_bytes());
    assert!(download.read(1).await.is_err(), "there is nothing after the end");

    let mut range = a.net.get_fragment(home, id, 12_345, 1_000).await.unwrap().unwrap();
    assert_eq!(range.read(1_000).await.unwrap(), bytes.slice(12_345..13_345));
}

/// A home without the fragment says so; that is an answer, not an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_home_can_answer_that_it_has_nothing() {
    let (a, b) = pair();
    let missing = a.net.get_fragment(b.net.me(), FragmentId::of(b"nothing"), 0, 1).await.unwrap();
    assert_eq!(missing.err(), Some(Response::NotFound));
}

/// An uploader that dies half-way, or drops its upload, must never look like one that finished: the home would
/// keep a fragment cut short.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_upload_is_an_error_at_the_home() {
    let (a, b) = pair();
    let seen = &b.seen;
    let begun =
        |count| eventually("the home has the first bytes", move || seen.uploads_begun.load(Ordering::SeqCst) == count);
    let ended = || tokio::time::timeout(PATIENCE, seen.happened.notified());
    let mut upload = a.net.put_fragment(b.net.me(), origin(0)).await.unwrap();
    upload.write(Bytes::from_static(b"half of it")).await.unwrap();
    begun(1).await;
    drop(upload);
    ended().await.unwrap();

    // The same while the uploader waits for flow control, part of a write under way.
    let mut upload = a.net.put_fragment(b.net.me(), origin(0)).await.unwrap();
    tokio::select! {
        _ = upload.write(vec![0; 1 << 30].into()) => panic!("a gigabyte does not go at once"),
        () = begun(2) => {}
    }
    drop(upload);
    ended().await.unwrap();

    // And when the whole uploader goes.
    let mut upload = a.net.put_fragment(b.net.me(), origin(0)).await.unwrap();
    upload.write(Bytes::from_static(b"half of it")).await.unwrap();
    begun(3).await;
    a.net.close().await;
    ended().await.unwrap();

    let ends = b.seen.upload_ends.lock().clone();
    assert_eq!(ends.len(), 3);
    assert!(ends.iter().all(Result::is_err), "{ends:?}");
    assert!(b.seen.fragments.lock().is_empty());
}

/// A full home answers before it has read the body. The uploader must learn why, and not hang on flow control.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_reaches_the_uploader() {
    let (a, b) = pair();
    let mut upload = a.net.put_fragment(b.net.me(), origin(u8::MAX)).await.unwrap();
    let bytes = fragment();
    for at in (0..bytes.len()).step_by(1 << 20) {
        upload.write(bytes.slice(at..at + (1 << 20))).await.unwrap();
    }
    assert!(upload.is_refused());
    let answer = upload.finish().await.unwrap();
    assert!(matches!(answer, Response::Failed { reason: Failure::Full, .. }), "{answer:?}");
}
