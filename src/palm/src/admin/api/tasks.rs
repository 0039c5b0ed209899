//! What takes longer than an answer.

use serde::{Deserialize, Serialize};

/// What takes longer than an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// All peers count their objects, and repair what needs it.
    Repair,
    /// This peer reads and hashes all its fragments.
    Scrub,
    /// All peers count, and the overfull ones give to others.
    Rebalance,
    /// This peer looks for garbage among its fragments.
    Gc,
    /// This peer gives its fragments away.
    Drain,
    /// The backends that are to be removed are emptied.
    EmptyBackends,
}

/// Asks to begin a task, or to join the one of its kind that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StartTask {
    /// Which.
    pub task: Task,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// Which.
    pub task: Task,
    /// Only saying what would be done.
    pub dry_run: bool,
    /// What it does now, in a few words.
    pub doing: String,
    /// How much of `total` is done.
    pub done: u64,
    /// 0 where nobody knows.
    pub total: u64,
    /// How it ended, once it has.
    pub end: Option<TaskEnd>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskEnd {
    /// Well.
    Done(Outcome),
    /// Without success, and why.
    Failed(String),
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// In words.
    pub words: Vec<String>,
    /// In figures: other ones for each task.
    #[serde(flatten)]
    pub figures: serde_json::Map<String, serde_json::Value>,
}
