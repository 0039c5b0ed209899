//! Commands that take long: the peer does the work, and this end shows how far it is. Ctrl-C ends the showing, not the work.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{CliError, print};
use crate::admin::api::{self, StartTask, Task, TaskEnd, TaskState, path};
use crate::admin::client::ask;

/// How often the peer is asked how far it is.
const REFRESH: Duration = Duration::from_millis(250);
const BAR: &str = "{msg} {wide_bar} {pos}/{len} {eta}";
/// Where nobody knows how much there is.
const SPINNER: &str = "{spinner} {msg}";

/// Has the peer do a task, and prints what came of it.
pub(super) async fn run(data: &Path, task: Task, dry_run: bool, json: bool) -> Result<(), CliError> {
    let outcome = finish(data, StartTask { task, dry_run }, json).await?;
    print::outcome(&outcome, json);
    Ok(())
}

pub(super) async fn drain(data: &Path, undo: bool, json: bool) -> Result<(), CliError> {
    if undo {
        let api::Empty {} = ask(data, path::UNDRAIN, Some(&api::Empty {})).await?;
        print::undrained(json);
        return Ok(());
    }
    run(data, Task::Drain, false, json).await
}

/// Begins a task or joins it, and shows how far it is until it has ended.
pub(super) async fn finish(data: &Path, wish: StartTask, json: bool) -> Result<api::Outcome, CliError> {
    let mut state: TaskState = ask(data, path::TASKS, Some(&wish)).await?;
    let bar = bar(json);
    loop {
        if let Some(end) = state.end {
            bar.finish_and_clear();
            return match end {
                TaskEnd::Done(outcome) => Ok(outcome),
                TaskEnd::Failed(error) => Err(CliError::Failed(error)),
            };
        }
        show(&bar, &state);
        tokio::time::sleep(REFRESH).await;
        state = ask(data, path::TASK, Some(&wish.task)).await?;
    }
}

/// To stderr, where that is a terminal: stdout is for results.
fn bar(json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    ProgressBar::no_length()
}

fn show(bar: &ProgressBar, state: &TaskState) {
    let (length, template) = match state.total {
        0 => (None, SPINNER),
        total => (Some(total), BAR),
    };
    if bar.length() != length || bar.position() == 0 {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        match length {
            Some(length) => bar.set_length(length),
            None => bar.unset_length(),
        }
    }
    bar.set_message(state.doing.clone());
    bar.set_position(state.done);
    bar.tick();
}
