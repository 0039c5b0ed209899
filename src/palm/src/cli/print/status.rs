//! How the pool is.

use std::fmt::Write as _;

use console::style;

use super::{say, say_json};
use crate::admin::api;
use crate::admin::words::size;

/// The words, and two lines of figures: short enough to be read whole when much is the matter.
pub(in crate::cli) fn status(report: &api::StatusReport, as_json: bool) {
    if as_json {
        return say_json(report);
    }
    say(&text(report));
}

fn text(report: &api::StatusReport) -> String {
    let (status, health) = (&report.status, &report.health);
    let mut text = String::new();
    for words in &report.words {
        let _ = writeln!(text, "{}", paint(words));
    }
    let free = |bytes: Option<u64>| bytes.map(|free| format!(", {} free", size(free))).unwrap_or_default();
    let _ = write!(
        text,
        "Pool  {} ({}): {} of {} members live, {} of {} voters reachable, {}, {} free before redundancy\n\
         Here  {} fragments, {}{}",
        status.pool,
        status.pool_id,
        status.members_live,
        status.members,
        status.voters_live,
        status.voters,
        status.policy,
        size(status.free_pool),
        status.fragments_here,
        size(status.bytes_here),
        free(status.free_here),
    );
    if let (done @ 1.., all) = health.scrubbed {
        let _ = write!(text, "; {done} of the pool's {all} fragments scrubbed in this round");
    }
    if health.trash_bytes > 0 {
        let _ = write!(text, "; {} in the trash", size(health.trash_bytes));
    }
    text
}

/// What shouts is red.
fn paint(words: &str) -> String {
    let shouts = words.starts_with(|c: char| c.is_ascii_uppercase())
        && words.chars().nth(1).is_some_and(|c| c.is_ascii_uppercase());
    if shouts { style(words).red().bold().to_string() } else { words.to_owned() }
}

/// How likely objects are to be lost, and what that assumes.
pub(in crate::cli) fn durability(estimate: &api::Estimate, as_json: bool) {
    if as_json {
        return say_json(estimate);
    }
    say(&estimate.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::status::Status;

    /// The words of the README: what stands there is what people see.
    #[test]
    fn status_is_a_few_lines() {
        let status = Status {
            pool: "home".into(),
            pool_id: "6f1e".into(),
            members: 5,
            members_live: 4,
            voters: 5,
            voters_live: 4,
            policy: "3-of-5 (auto)".into(),
            fragments_here: 1004,
            bytes_here: 1 << 30,
            free_here: Some(412 << 30),
            free_pool: 2 << 40,
            ..Status::default()
        };
        let mut report = api::StatusReport { status, words: vec!["You can.".into()], ..api::StatusReport::default() };
        assert_eq!(
            text(&report),
            "You can.\n\
             Pool  home (6f1e): 4 of 5 members live, 4 of 5 voters reachable, 3-of-5 (auto), 2.0 TiB free before redundancy\n\
             Here  1004 fragments, 1.0 GiB, 412.0 GiB free"
        );
        report.health.scrubbed = (310, 5000);
        report.health.trash_bytes = 3 << 20;
        let ending = "free; 310 of the pool's 5000 fragments scrubbed in this round; 3.0 MiB in the trash";
        assert!(text(&report).ends_with(ending), "{}", text(&report));
    }
}
