//! Work that takes longer than an answer: one question starts it, others look at how far it is, and it goes on when whoever
//! asked has gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use super::api::{StartTask, TaskEnd, TaskState};
use crate::object::Store;
use crate::pool::Pool;

mod work;

/// The tasks of a peer: of each kind the one under way, or the last. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tasks {
    pool: Pool,
    store: Store,
    started: Arc<Mutex<BTreeMap<StartTask, watch::Receiver<TaskState>>>>,
}

/// Where a task tells how far it is.
#[derive(Clone)]
struct Progress(watch::Sender<TaskState>);

impl Progress {
    /// What is being done now, and of how much how much is done; 0 of 0 where nobody knows.
    fn tell(&self, doing: &str, done: u64, total: u64) {
        self.0.send_modify(|state| {
            if state.doing != doing {
                doing.clone_into(&mut state.doing);
            }
            (state.done, state.total) = (done, total);
        });
    }
}

impl Tasks {
    pub(super) fn new(pool: Pool, store: Store) -> Self {
        Self { pool, store, started: Arc::default() }
    }

    /// Begins a task, or joins the one of its kind that is under way.
    pub(super) fn start(&self, wish: StartTask) -> TaskState {
        let mut started = self.started.lock();
        let under_way = started.get(&wish).map(|state| state.borrow().clone());
        if let Some(state) = under_way.filter(|state| state.end.is_none()) {
            return state;
        }
        let StartTask { task, dry_run } = wish;
        let state = TaskState { task, dry_run, doing: "begins".to_owned(), done: 0, total: 0, end: None };
        let progress = watch::Sender::new(state.clone());
        started.insert(wish, progress.subscribe());
        let tasks = self.clone();
        tokio::spawn(async move {
            let progress = Progress(progress);
            let end = match tasks.work(task, dry_run, &progress).await {
                Ok(outcome) => {
                    info!(?task, dry_run, words = ?outcome.words, "task ended");
                    TaskEnd::Done(outcome)
                }
                Err(error) => {
                    warn!(?task, dry_run, error, "task failed");
                    TaskEnd::Failed(error)
                }
            };
            progress.0.send_modify(|state| state.end = Some(end));
        });
        state
    }

    /// How far the task of a kind is that is under way, or was last.
    pub(super) fn state(&self, wish: StartTask) -> Option<TaskState> {
        self.started.lock().get(&wish).map(|state| state.borrow().clone())
    }
}
