//! Work that holds a thread for long: hashing, sealing, walks over the index.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

/// Runs it beside the asynchronous tasks. A runtime of one thread is a simulation or a small test: there it waits for its
/// turn among the other tasks, so that the order of all that happens follows from the seed alone.
pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => tokio::spawn(async move { work() }),
        _ => tokio::task::spawn_blocking(work),
    }
}
