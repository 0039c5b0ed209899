//! Commands that take long: the peer does the work, and this end shows how far it is. Ctrl-C ends the showing, not the work.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, print};
use crate::admin::api::{self, StartTask, Task, TaskEnd, TaskState, path};
use crate::admin::client::{Reach, ask};

/// How often the peer is asked how far it is.
const REFRESH: Duration = Duration::from_millis(250);
/// How often where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(100);
const BAR: &str = "{msg} {wide_bar} {pos}/{len} {eta}";
/// Where nobody knows how much there is.
const SPINNER: &str = "{spinner} {msg}";

/// Has the peer do a task, and prints what came of it; for people the plan first.
pub(super) async fn run(reach: &Reach, task: Task, dry_run: bool, json: bool) -> Result<(), CliError> {
    if !dry_run && !json && !matches!(task, Task::Drain | Task::EmptyBackends) {
        let plan = finish(reach, StartTask { task, dry_run: true }, json).await?;
        print::plan(&plan);
    }
    let outcome = finish(reach, StartTask { task, dry_run }, json).await?;
    print::outcome(&outcome, json);
    Ok(())
}

pub(super) async fn drain(reach: &Reach, undo: bool, json: bool) -> Result<(), CliError> {
    if undo {
        let api::Empty {} = ask(reach, path::UNDRAIN, Some(&api::Empty {})).await?;
        print::undrained(json);
        return Ok(());
    }
    run(reach, Task::Drain, false, json).await
}

/// Begins a task or joins it, and shows how far it is until it has ended.
pub(super) async fn finish(reach: &Reach, wish: StartTask, json: bool) -> Result<api::Outcome, CliError> {
    let mut state: TaskState = ask(reach, path::TASKS, Some(&wish)).await?;
    let state_path = if wish.dry_run { path::PLAN } else { path::TASK };
    let mut show = Show::new(json);
    loop {
        if let Some(end) = state.end {
            show.end();
            return match end {
                TaskEnd::Done(outcome) => Ok(outcome),
                TaskEnd::Failed(error) => Err(CliError::Failed(error)),
            };
        }
        show.tell(&state);
        tokio::time::sleep(REFRESH).await;
        state = ask(reach, state_path, Some(&wish.task)).await?;
    }
}

/// Shows on a terminal that something is being done, as long as it is, where nobody can say how far it has come.
pub(super) async fn spinning<T>(words: &str, json: bool, work: impl Future<Output = T>) -> T {
    let spinner = (!json && std::io::stderr().is_terminal()).then(|| {
        let spinner = ProgressBar::new_spinner().with_message(words.to_owned());
        spinner.enable_steady_tick(TICK);
        spinner
    });
    let done = work.await;
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    done
}

/// How far a task is, on stderr (stdout is for results): a bar on a terminal, else now and then a line.
enum Show {
    Bar(ProgressBar),
    Lines { next: Instant },
    Nothing,
}

impl Show {
    fn new(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Self::Nothing,
            (false, true) => Self::Bar(ProgressBar::no_length()),
            (false, false) => Self::Lines { next: Instant::now() + LINE_EVERY },
        }
    }

    fn tell(&mut self, state: &TaskState) {
        match self {
            Self::Bar(bar) => draw(bar, state),
            Self::Lines { next } if Instant::now() >= *next => {
                *next = Instant::now() + LINE_EVERY;
                match state.total {
                    0 => eprintln!("{}", state.doing),
                    total => eprintln!("{}: {} of {total}", state.doing, state.done),
                }
            }
            Self::Lines { .. } | Self::Nothing => {}
        }
    }

    fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn draw(bar: &ProgressBar, state: &TaskState) {
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
