//! How the pool is, in words: the most urgent first, and few of them when all is well.

use std::time::Duration;

use palm_core::record::Consistency;
use palm_core::repair::{Redundancy, Tally};

use super::api::StatusReport;
use crate::pool::status::{AbsentVoter, Limit};

/// Sentences of one kind that are shown before the rest is only counted.
const SHOWN_OF_A_KIND: usize = 3;
/// As much of an id as tells it from the others.
const SHOWN_ID_LETTERS: usize = 8;

impl StatusReport {
    /// The state of the pool in a sentence or two each.
    pub(super) fn sentences(&self) -> Vec<String> {
        let mut said = vec![self.standing()];
        said.extend(self.endangered());
        said.extend(self.repairs());
        said.extend(few(
            self.health.ills.iter().map(|ill| format!("Backend: {ill}.")).collect(),
            "`palm status --json` names all backends that are ill",
        ));
        said.extend(few(self.absences(), "`palm list-members` names all that are absent"));
        said.extend(self.applicants());
        said.extend(self.draining.iter().map(|one| match one.used_bytes {
            0 => format!("{} is drained: it keeps nothing any more.", one.name),
            left => format!("{} is draining: {} left there.", one.name, size(left)),
        }));
        said.extend(self.kept());
        said.extend(self.advice());
        said.extend(self.exposed());
        if let Some(progress) = &self.status.catching_up {
            said.push(format!("This peer is catching up: {progress}."));
        }
        if !self.silent.is_empty() {
            said.push(format!("Not counted, as they do not answer: {}.", self.silent.join(", ")));
        }
        said
    }

    /// Whether requests are served, and what may happen before they are not.
    fn standing(&self) -> String {
        let status = &self.status;
        let majority = status.voters / 2 + 1;
        if status.voters == 0 {
            return "STANDSTILL: a recovery was begun and not ended. Run `palm pool recover` again, at any member."
                .to_owned();
        }
        if status.voters_live < majority {
            let missing = majority - status.voters_live;
            return match status.consistency {
                Consistency::Local => format!(
                    "AN ISLAND: {} of {} members are reachable. This peer reads and writes with them alone, and all is merged when the others are back; until then members and access keys cannot change.",
                    status.members_live, status.members,
                ),
                Consistency::Strong => format!(
                    "NO MAJORITY: {} of {} voters are reachable, {majority} are needed. Requests are answered 503 until {missing} more {} back. \
                     If they are lost for ever, see `palm pool recover`.",
                    status.voters_live,
                    status.voters,
                    if missing == 1 { "comes" } else { "come" },
                ),
            };
        }
        let by_policy = match self.counted_seconds {
            None => " (by the policy: the objects are not counted yet)",
            Some(_) => "",
        };
        match (status.can_lose, status.limit) {
            (0, Limit::Voters) => {
                "You can lose no more peers: one more voter lost and requests are answered 503.".to_owned()
            }
            (0, Limit::Fragments) => {
                format!("You can lose no more peers without losing access to objects{by_policy}.")
            }
            (1, _) => format!("You can lose 1 more peer, whichever it is{by_policy}."),
            (n, _) => format!("You can lose {n} more peers, whichever they are{by_policy}."),
        }
    }

    /// Objects that are lost to sight, or nearly.
    fn endangered(&self) -> Vec<String> {
        let (lost, bare) = (self.tally(Redundancy::Unreadable), self.tally(Redundancy::None));
        let mut said = Vec::new();
        if lost.objects > 0 {
            said.push(format!(
                "UNREADABLE: {} {} too few fragments in reach, until their homes come back.",
                objects(lost),
                if lost.objects == 1 { "has" } else { "have" }
            ));
        }
        if bare.objects > 0 {
            let words = if bare.objects == 1 { "has" } else { "have" };
            said.push(format!("AT RISK: {} {words} no redundancy left.", objects(bare)));
        }
        said
    }

    fn repairs(&self) -> Vec<String> {
        let health = &self.health;
        let mut said = Vec::new();
        if health.queued > 0 {
            let speed = match (health.bytes_per_second, self.repair_eta_seconds) {
                (0, _) | (_, None) => String::new(),
                (rate, Some(left)) => format!(" at {}/s, {} left", size(rate), about(Duration::from_secs(left))),
            };
            said.push(format!(
                "Repairing {} ({}){speed}.",
                counted(health.queued, "segment"),
                size(health.queued_bytes)
            ));
        } else if health.segments_to_mend > 0 {
            said.push(format!("{} to be mended.", capital(&counted(health.segments_to_mend, "segment"))));
        }
        if health.damaged_here > 0 {
            let names: Vec<&str> = self.damaged.iter().map(|one| one.name.as_str()).collect();
            let at = if names.is_empty() { String::new() } else { format!(" at {}", list(&names)) };
            let fragments = counted(health.damaged_here, "fragment");
            said.push(format!("{} found damaged or missing{at}, to be replaced.", capital(&fragments)));
        }
        said
    }

    /// Who is not there. A voter's absence has consequences of its own.
    fn absences(&self) -> Vec<String> {
        let voters = &self.status.voters_absent;
        let others = self.absent.iter().filter(|one| !voters.iter().any(|voter| voter.peer_id == one.peer_id));
        let others = others.map(|one| {
            let time = about(Duration::from_secs(one.absent_seconds));
            format!("Member {} has been absent for {time}.", one.name)
        });
        voters.iter().map(absent).chain(others).collect()
    }

    /// Who waits to be let in, and how that is done.
    fn applicants(&self) -> Option<String> {
        match self.waiting.as_slice() {
            [] => None,
            [one] => {
                let beginning = one.peer_id.get(..SHOWN_ID_LETTERS).unwrap_or(&one.peer_id);
                Some(format!(
                    "{} waits to be let in: `palm approve {beginning}` if you know it, `palm refuse` if not.",
                    one.name
                ))
            }
            several => {
                let names: Vec<&str> = several.iter().map(|one| one.name.as_str()).collect();
                Some(format!(
                    "{} wait to be let in: `palm list-members` shows their ids, `palm approve ID` admits one.",
                    list(&names)
                ))
            }
        }
    }

    /// Objects that are kept well, or not as well as they should be.
    fn kept(&self) -> Option<String> {
        let (reduced, full) = (self.tally(Redundancy::Reduced), self.tally(Redundancy::Full));
        let age = about(Duration::from_secs(self.counted_seconds?));
        let all: u64 = self.health.objects.iter().map(|tally| tally.objects).sum();
        if all > 0 && full.objects + reduced.objects == 0 {
            return None;
        }
        Some(match (all, reduced.objects) {
            (0, _) => format!("There are no objects, as counted {age} ago."),
            (_, 0) if full.objects == all => format!("{} at full redundancy, as counted {age} ago.", objects(full)),
            (_, 0) => format!("{} at full redundancy.", objects(full)),
            (..) => format!("{} at reduced redundancy, {} at full.", objects(reduced), objects(full)),
        })
    }

    /// What only people can decide: whether those that are away come back.
    fn advice(&self) -> Option<String> {
        let away = self.status.members.saturating_sub(self.status.members_live);
        let wanting = self.tally(Redundancy::None).objects + self.tally(Redundancy::Reduced).objects;
        let is_done = self.health.queued == 0 && self.health.segments_to_mend == 0;
        (away > 0 && wanting > 0 && is_done).then(|| {
            format!(
                "No more can be done about it while {} away. Those that never come back: `palm evict` them, and the pool does with those it has.",
                if away == 1 { "1 member is".to_owned() } else { format!("{away} members are") }
            )
        })
    }

    /// Promise 3, where it does not hold.
    fn exposed(&self) -> Option<String> {
        let (members, policy) = (self.status.members, &self.status.policy);
        if members == 1 {
            return Some("This is the only member: its disk holds all of every object.".to_owned());
        }
        if self.status.exposed {
            return Some(format!(
                "With {members} members and {policy}, some disk holds enough fragments to rebuild an object (with the pool key). More members mend that."
            ));
        }
        (self.health.exposed > 0).then(|| {
            let objects = capital(&counted(self.health.exposed, "object"));
            format!("{objects} can be rebuilt from a single disk (with the pool key), until they are spread wider.")
        })
    }

    fn tally(&self, redundancy: Redundancy) -> Tally {
        self.health.objects[redundancy as usize]
    }
}

/// Of many sentences of one kind the first, and how many more there are: status stays short when much is the matter.
fn few(mut said: Vec<String>, what: &str) -> Vec<String> {
    let more = said.len().saturating_sub(SHOWN_OF_A_KIND);
    if more > 1 {
        said.truncate(SHOWN_OF_A_KIND);
        said.push(format!("And {more} more: {what}."));
    }
    said
}

/// `a`, `a and b`, `a, b and 3 more`.
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [one, two] => format!("{one} and {two}"),
        [one, two, three] => format!("{one}, {two} and {three}"),
        [one, two, more @ ..] => format!("{one}, {two} and {} more", more.len()),
    }
}

fn absent(voter: &AbsentVoter) -> String {
    let then = match voter.replaced_in_seconds {
        Some(0) => "its vote is being taken over.".to_owned(),
        Some(left) => format!("will be replaced in {}.", about(Duration::from_secs(left))),
        None => "keeps its vote: no other member can take it over.".to_owned(),
    };
    let absent = about(Duration::from_secs(voter.absent_seconds));
    format!("Voter {} has been absent for {absent}; {then}", voter.name)
}

fn objects(tally: Tally) -> String {
    format!("{} ({})", counted(tally.objects, "object"), size(tally.bytes))
}

/// `1 object`, `2 objects`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A time for people.
pub(crate) fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Bytes for people, in binary units.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::super::api::{Absent, Damaged, Draining, Waiting};
    use super::*;
    use crate::pool::status::Status;

    /// Five members, a thousand objects, nothing the matter.
    fn well() -> StatusReport {
        let status = Status {
            members: 5,
            members_live: 5,
            voters: 5,
            voters_live: 5,
            policy: "3-of-5 (auto)".into(),
            ..Status::default()
        };
        let mut report =
            StatusReport { status: status.counted(2), counted_seconds: Some(20), ..StatusReport::default() };
        report.health.objects[Redundancy::Full as usize] = Tally { objects: 1000, bytes: 3 << 20 };
        report
    }

    /// All is well, and somebody looks: two lines, of which the first is the answer to the question everybody has.
    #[test]
    fn little_is_said_when_all_is_well() {
        assert_eq!(
            well().sentences(),
            [
                "You can lose 2 more peers, whichever they are.",
                "1000 objects (3.0 MiB) at full redundancy, as counted 20 s ago."
            ]
        );
        let mut new = well();
        new.counted_seconds = None;
        assert!(new.sentences()[0].ends_with("(by the policy: the objects are not counted yet)."));
    }

    /// Much is the matter at once. Whoever reads only the beginning must have read the worst.
    #[test]
    fn the_worst_comes_first() {
        let mut report = well();
        report.status = report.status.counted(0);
        let mut tally = |redundancy: Redundancy, objects| {
            report.health.objects[redundancy as usize] = Tally { objects, bytes: 1024 * objects };
        };
        tally(Redundancy::Unreadable, 1);
        tally(Redundancy::None, 2);
        tally(Redundancy::Reduced, 3);
        report.health.queued = 7;
        report.health.queued_bytes = 9 << 30;
        report.health.bytes_per_second = 50 << 20;
        report.repair_eta_seconds = Some(184);
        report.health.ills = vec!["attic: disk 2 is gone".into()];
        report.health.damaged_here = 1;
        report.damaged = vec![Damaged { name: "attic".into(), fragments: 1 }];
        report.absent = vec![Absent { name: "lodge".into(), peer_id: "1".into(), absent_seconds: 3 }];
        report.waiting = vec![Waiting {
            peer_id: "0123456789abcdef".into(),
            name: "tent".into(),
            address: String::new(),
            requested_ms: 0,
        }];
        report.draining = vec![Draining { name: "cellar".into(), peer_id: String::new(), used_bytes: 5 << 30 }];
        report.silent = vec!["roof".into()];
        let absent = |name: &str, absent_seconds, replaced_in_seconds| AbsentVoter {
            peer_id: String::new(),
            name: name.into(),
            absent_seconds,
            replaced_in_seconds,
        };
        report.status.voters_absent =
            vec![absent("shed", 45, Some(855)), absent("barn", 900, Some(0)), absent("hut", 90, None)];
        assert_eq!(
            report.sentences(),
            [
                "You can lose no more peers without losing access to objects.",
                "UNREADABLE: 1 object (1.0 KiB) has too few fragments in reach, until their homes come back.",
                "AT RISK: 2 objects (2.0 KiB) have no redundancy left.",
                "Repairing 7 segments (9.0 GiB) at 50.0 MiB/s, 4 min left.",
                "1 fragment found damaged or missing at attic, to be replaced.",
                "Backend: attic: disk 2 is gone.",
                "Voter shed has been absent for 45 s; will be replaced in 15 min.",
                "Voter barn has been absent for 15 min; its vote is being taken over.",
                "Voter hut has been absent for 2 min; keeps its vote: no other member can take it over.",
                "Member lodge has been absent for 3 s.",
                "tent waits to be let in: `palm approve 01234567` if you know it, `palm refuse` if not.",
                "cellar is draining: 5.0 GiB left there.",
                "3 objects (3.0 KiB) at reduced redundancy, 1000 objects (3.0 MiB) at full.",
                "Not counted, as they do not answer: roof.",
            ]
        );
        report.status.voters_live = 2;
        assert!(report.sentences()[0].starts_with("NO MAJORITY: 2 of 5 voters are reachable, 3 are needed."));
        report.status.consistency = Consistency::Local;
        assert!(report.sentences()[0].starts_with("AN ISLAND"));
        report.status.voters = 0;
        assert!(report.sentences()[0].starts_with("STANDSTILL"));
    }

    /// Half of a large pool is off for the night, and many ask to be let in. Danger: a status that scrolls away what matters.
    /// Expected: three of a kind, and how many more there are.
    #[test]
    fn much_of_a_kind_is_counted() {
        let mut report = well();
        let absent =
            |number: u64| Absent { name: format!("p{number}"), peer_id: number.to_string(), absent_seconds: number };
        report.absent = (1..=9).map(absent).collect();
        let waits =
            |name: &str| Waiting { peer_id: name.into(), name: name.into(), address: String::new(), requested_ms: 0 };
        report.waiting = ["a", "b", "c", "d"].map(waits).into();
        assert_eq!(
            report.sentences()[1..6],
            [
                "Member p1 has been absent for 1 s.",
                "Member p2 has been absent for 2 s.",
                "Member p3 has been absent for 3 s.",
                "And 6 more: `palm list-members` names all that are absent.",
                "a, b and 2 more wait to be let in: `palm list-members` shows their ids, `palm approve ID` admits one.",
            ]
        );
        report.absent.truncate(4);
        assert_eq!(report.sentences()[4], "Member p4 has been absent for 4 s.", "one more is as short as its count");
    }

    /// Repair has done what can be done with three of five members, and objects are still not as safe as they should be.
    /// Only people know whether the others come back: they must be told that it is up to them.
    #[test]
    fn people_are_told_when_it_is_up_to_them() {
        let mut report = well();
        report.health.objects[Redundancy::Reduced as usize] = Tally { objects: 3, bytes: 9 };
        assert!(!report.sentences().iter().any(|words| words.contains("palm evict")), "nobody is away");
        report.status.members_live = 3;
        let words = report.sentences().into_iter().find(|words| words.contains("palm evict")).unwrap();
        assert!(words.starts_with("No more can be done about it while 2 members are away."), "{words}");
        report.health.queued = 1;
        assert!(!report.sentences().iter().any(|words| words.contains("palm evict")), "it is not done yet");
    }

    #[test]
    fn sizes_and_times_are_for_people() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(7 << 40), "7.0 TiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
        let about = |seconds| about(Duration::from_secs(seconds));
        assert_eq!([about(59), about(61), about(7_200), about(200_000)], ["59 s", "2 min", "2 h", "2 days"]);
    }
}
