//! What the running peer says: how the pool is, who speaks which version, whose clock differs.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use palm_core::record::Consistency;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Check;
use crate::admin::api::{Member, MemberState, Members, StatusReport, path};
use crate::admin::client::{AskError, Reach, ask};

/// How long an S3 endpoint may take to say what time it is.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// A date in an answer is of the second, and may be a second old.
const CLOCK_WARNS: Duration = Duration::from_secs(5);
/// S3 refuses requests signed by a clock that is off by more (`RequestTimeTooSkewed`).
const CLOCK_FAILS: Duration = Duration::from_mins(15);
/// The head of an answer is no longer.
const MAX_HEAD_BYTES: u64 = 16 << 10;

/// What the running peer told.
pub(super) struct Told {
    status: StatusReport,
    members: Vec<Member>,
}

/// Asks the peer, if there is one; what is said of one that does not answer.
pub(super) async fn ask_all(reach: &Reach) -> Result<Told, Check> {
    let status = ask(reach, path::STATUS, None::<&()>).await.map_err(|error| match error {
        AskError::NotRunning { dir } => {
            Check::ok("peer", format!("none runs in {}: ports are looked at instead", dir.display()))
        }
        other => Check::fail("peer", other.to_string(), "look into its log; end it and start it again if it hangs"),
    })?;
    let members: Members = ask(reach, path::MEMBERS, None::<&()>)
        .await
        .map_err(|error| Check::fail("peer", error.to_string(), "look into its log"))?;
    Ok(Told { status, members: members.members })
}

pub(super) async fn look(told: &Told) -> Vec<Check> {
    let mut checks = standing(&told.status);
    checks.push(versions(&told.members));
    checks.push(clocks(&told.members).await);
    checks
}

fn standing(report: &StatusReport) -> Vec<Check> {
    let status = &report.status;
    let mut checks = vec![Check::ok("peer", format!("running, in pool {}", status.pool))];
    let first = report.words.first().cloned().unwrap_or_default();
    let is_short = status.voters_live < status.voters / 2 + 1;
    checks.push(if is_short && status.consistency == Consistency::Strong {
        Check::fail("pool", first, "start the members that are away, or see `palm pool recover`")
    } else if !report.absent.is_empty() {
        let names: Vec<&str> = report.absent.iter().map(|one| one.name.as_str()).collect();
        let mend = "start them; those that never come back: `palm evict`";
        Check::warn("pool", format!("{first} Away: {}", names.join(", ")), mend)
    } else {
        Check::ok("pool", first)
    });
    let ills = report.health.ills.iter();
    checks.extend(
        ills.map(|ill| Check::fail("backend", ill.clone(), "mend or replace the disk; the pool heals meanwhile")),
    );
    checks
}

fn versions(members: &[Member]) -> Check {
    const NAME: &str = "versions";
    let found: BTreeSet<&str> = members.iter().filter_map(|member| member.version.as_deref()).collect();
    let found: Vec<&str> = found.into_iter().collect();
    match found.as_slice() {
        [] => Check::warn(NAME, "no member has told its version yet", "look again in a minute"),
        [one] => Check::ok(NAME, format!("all members run {one}")),
        several => {
            let mend = "a mixed pool works; bring all members to the newest";
            Check::warn(NAME, format!("members run {}", several.join(", ")), mend)
        }
    }
}

/// Compares this clock with those of the other peers, by the dates of their S3 endpoints' answers.
async fn clocks(members: &[Member]) -> Check {
    const NAME: &str = "clock";
    let others = members.iter().filter(|member| !member.this_peer && member.state == MemberState::Live);
    let asked = others.filter_map(|member| Some((member.name.as_str(), member.s3.as_deref()?)));
    let told = join_all(asked.map(|(name, url)| async move { (name, offset(url).await) })).await;
    let worst = told.iter().filter_map(|&(name, offset)| Some((name, offset?))).max_by_key(|&(_, offset)| offset);
    let silent: Vec<&str> = told.iter().filter(|(_, offset)| offset.is_none()).map(|&(name, _)| name).collect();
    let mend = "set the clocks by NTP, at every peer";
    match worst {
        _ if told.is_empty() => Check::ok(NAME, "no other peer to compare with"),
        Some((name, off)) if off > CLOCK_FAILS => {
            Check::fail(NAME, format!("{} s apart from {name}'s", off.as_secs()), mend)
        }
        Some((name, off)) if off > CLOCK_WARNS => {
            Check::warn(NAME, format!("{} s apart from {name}'s", off.as_secs()), mend)
        }
        _ if !silent.is_empty() => {
            let found = format!("the S3 endpoints of {} do not answer", silent.join(", "));
            Check::warn(NAME, found, "open their S3 port to this machine, if clients here should reach them")
        }
        _ => Check::ok(NAME, format!("within {} s of {} other peers'", CLOCK_WARNS.as_secs(), told.len())),
    }
}

/// How far the clock behind an HTTP endpoint is from ours.
async fn offset(url: &str) -> Option<Duration> {
    let host = url.strip_prefix("http://")?;
    let asked = async {
        let mut stream = TcpStream::connect(host).await.ok()?;
        let request = format!("HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.take(MAX_HEAD_BYTES).read_to_string(&mut answer).await.ok()?;
        date(&answer)
    };
    let theirs = tokio::time::timeout(CLOCK_TIMEOUT, asked).await.ok()??;
    Some((OffsetDateTime::now_utc() - theirs).unsigned_abs())
}

fn date(head: &str) -> Option<OffsetDateTime> {
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then(|| value.trim())
    })?;
    OffsetDateTime::parse(line, &Rfc2822).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110, 5.6.7: what every HTTP server writes.
    #[test]
    fn http_dates_are_read() {
        let head = "HTTP/1.1 403 Forbidden\r\nServer: x\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        assert_eq!(date(head).map(OffsetDateTime::unix_timestamp), Some(784_111_777));
        assert_eq!(date("HTTP/1.1 200 OK\r\n\r\n"), None);
        assert_eq!(date("Date: yesterday\r\n"), None);
    }
}
