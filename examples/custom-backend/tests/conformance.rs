//! The suite that every backend passes.

use std::sync::Arc;

use custom_backend::Journal;
use palm_backends::conformance::{self, Lifetime};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_conforms() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = async |name: &str| Arc::new(Journal::open(&dir.path().join(name)).expect("opens")) as _;
    conformance::fragments(Lifetime::Persistent, open).await;
}
