//! How likely an object is to be lost: a Markov model, and what it rests on in words.
//!
//! A model, not a promise (docs/durability.md says what it leaves out). Of the homes of an object some are lost for ever and
//! not yet repaired, and some have a fragment that is wrong and not yet found. Homes are lost one by one, or with
//! their whole domain; errors creep in; repair and scrub mend; and with more away than the policy tolerates the object is
//! lost. All times are exponential, as in any such chain (Gibson and Patterson, "Designing disk arrays for high data
//! reliability", 1993), and the expected time to loss follows exactly, by elimination.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::place::Policy;

#[cfg(test)]
mod tests;

/// Seconds of a year, on average.
const YEAR_SECONDS: f64 = 365.25 * 24.0 * 3600.0;
/// Bytes of a terabyte.
const TERABYTE: f64 = 1e12;
/// More wrong fragments of one object than these, all unnoticed, count as its loss: it bounds the chain, and
/// errs to the safe side.
const MAX_LATENT: usize = 4;
/// Bounds of yearly probabilities and shares of time: none is quite impossible or certain.
const SHARES: (f64, f64) = (1e-12, 1.0 - 1e-12);

/// What an estimate is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Policy of the objects.
    pub policy: Policy,
    /// Peers that keep fragments.
    pub members: usize,
    /// Probability that a peer's disk or the peer is lost for ever within a year.
    pub annual_failure: f64,
    /// Part of the time that a peer is there.
    pub availability: f64,
    /// How long a peer may be absent before it counts as lost.
    pub grace: Duration,
    /// How long it takes until another machine stands where one was lost. Counts where no peer is to spare: there the fragments
    /// have nowhere to go before.
    pub replacement: Duration,
    /// Bytes of the fragments on the fullest peer: all of them are rebuilt when it is lost, and ours may be the last.
    pub peer_bytes: u64,
    /// Bytes of fragments that the pool rebuilds in a second.
    pub repair_bytes_per_second: u64,
    /// In how many domains (rooms, hosts) the peers are, where they are told apart. Fewer than 2: all in one that is never lost.
    pub domains: usize,
    /// Probability that a domain is lost as a whole within a year.
    pub annual_domain_failure: f64,
    /// Errors that arise unnoticed in a terabyte within a year.
    pub errors_per_terabyte_year: f64,
    /// Bytes of a fragment.
    pub fragment_bytes: u64,
    /// Within what time each fragment is read and hashed once.
    pub scrub: Duration,
}

impl Inputs {
    /// A pool of machines at homes and desks, for which docs/durability.md gives the sources. Every field may be set to what
    /// is known better.
    pub fn new(policy: Policy, members: usize) -> Self {
        Self {
            policy,
            members: members.max(1),
            annual_failure: 0.2,
            availability: 0.95,
            grace: Duration::from_mins(15),
            replacement: Duration::from_hours(7 * 24),
            peer_bytes: 500_000_000_000,
            repair_bytes_per_second: 50_000_000,
            domains: 1,
            annual_domain_failure: 0.001,
            errors_per_terabyte_year: 0.1,
            fragment_bytes: 32_000_000,
            scrub: Duration::from_hours(30 * 24),
        }
    }

    /// The estimate.
    pub fn estimate(&self) -> Estimate {
        let mean_years_to_loss = Chain::new(self).mean_time() / YEAR_SECONDS;
        let annual_loss = -(-1.0 / mean_years_to_loss).exp_m1();
        Estimate {
            mean_years_to_loss,
            annual_loss,
            nines: -annual_loss.log10(),
            unavailable: self.unavailable(),
            repair_seconds: self.repair_seconds(),
            assumptions: self.words(),
        }
    }

    /// Homes of an object.
    fn homes(&self) -> usize {
        self.members.clamp(1, usize::from(self.policy.n.max(1)))
    }

    /// How many of them may be lost, whichever they are.
    fn tolerated(&self) -> usize {
        self.policy.losses_over(self.members).into()
    }

    /// Whether a lost home's fragments find a peer that has none.
    fn has_spare_peer(&self) -> bool {
        self.members > self.homes()
    }

    fn repair_seconds(&self) -> f64 {
        let replacement = if self.has_spare_peer() { Duration::ZERO } else { self.replacement };
        let moved = self.peer_bytes as f64 / self.repair_bytes_per_second.max(1) as f64;
        (self.grace + replacement).as_secs_f64() + moved
    }

    /// Part of the time that more homes are away than may be, each by itself, and all data safe.
    fn unavailable(&self) -> f64 {
        let (homes, away) = (self.homes(), 1.0 - self.availability.clamp(SHARES.0, SHARES.1));
        let mut exactly = (1.0 - away).powf(homes as f64);
        let mut unavailable = 0.0;
        for lost in 1..=homes {
            exactly *= away / (1.0 - away) * (homes - lost + 1) as f64 / lost as f64;
            if lost > self.tolerated() {
                unavailable += exactly;
            }
        }
        unavailable
    }

    /// What the estimate assumes, a sentence each.
    fn words(&self) -> Vec<String> {
        let percent =
            |share: f64| format!("{:.3}", share * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned();
        let (homes, tolerated) = (self.homes(), self.tolerated());
        let mut words = vec![
            format!("{} over {homes} of {} peers; {tolerated} may be lost at once", self.policy, self.members),
            format!("a peer or its disk is lost for ever with {} % a year", percent(self.annual_failure)),
            format!(
                "a lost peer's {} are rebuilt at {} a second, {} after it vanished",
                Bytes(self.peer_bytes as f64),
                Bytes(self.repair_bytes_per_second as f64),
                Span(self.grace.as_secs_f64()),
            ),
        ];
        if !self.has_spare_peer() && tolerated > 0 {
            words.push(format!(
                "no peer is to spare, so they wait for another machine, {} long",
                Span(self.replacement.as_secs_f64())
            ));
        }
        words.push(if self.domains < 2 {
            "peers are lost independently: no fire, theft or surge takes several".to_owned()
        } else {
            format!(
                "each of {} domains is lost as a whole with {} % a year",
                self.domains,
                percent(self.annual_domain_failure)
            )
        });
        words.push(format!(
            "{} unnoticed errors a year in a terabyte, found within {}",
            self.errors_per_terabyte_year,
            Span(self.scrub.as_secs_f64())
        ));
        words.push(format!("a peer is there {} % of the time", percent(self.availability)));
        words.push("an object of one segment (up to 64 MiB); software and people make no mistakes".to_owned());
        words
    }
}

/// How an object will fare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Expected time until it is lost, years.
    pub mean_years_to_loss: f64,
    /// Probability that it is lost within a year, as if the risk were the same at any time: a little too much, because it
    /// begins whole. The excess is about a repair's part of a year.
    pub annual_loss: f64,
    /// The same as a number of nines: 3.0 is 99.9 %.
    pub nines: f64,
    /// Part of the time that it is safe and cannot be read because too many peers sleep.
    pub unavailable: f64,
    /// How long a lost peer's last fragment waits for its repair, seconds.
    pub repair_seconds: f64,
    /// What all this rests on, a sentence each.
    pub assumptions: Vec<String>,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "An object is lost within a year with a probability of {} ({:.1} nines).",
            Chance(self.annual_loss),
            self.nines
        )?;
        writeln!(
            f,
            "Mean time to its loss: {} years. Repair of a lost peer: {}.",
            Round(self.mean_years_to_loss),
            Span(self.repair_seconds)
        )?;
        writeln!(f, "Out of reach because peers sleep: {} a year.", Span(self.unavailable * YEAR_SECONDS))?;
        write!(f, "Assumed:")?;
        self.assumptions.iter().try_for_each(|words| write!(f, "\n- {words}"))
    }
}

/// An absorbing chain in continuous time. State 0 is the start, and the last stands for the loss.
struct Chain {
    /// `rates[from][to]`, a second.
    rates: Vec<Vec<f64>>,
}

impl Chain {
    /// The states are numbers of homes lost and of wrong fragments, together at most what is tolerated.
    fn new(inputs: &Inputs) -> Self {
        let (homes, tolerated) = (inputs.homes(), inputs.tolerated());
        let states: Vec<(usize, usize)> = (0..=tolerated)
            .flat_map(|lost| (0..=(tolerated - lost).min(MAX_LATENT)).map(move |wrong| (lost, wrong)))
            .collect();
        let loss = states.len();
        let number = |state| states.iter().position(|&other| other == state).unwrap_or(loss);
        let yearly = |share: f64| -(-share.clamp(SHARES.0, SHARES.1)).ln_1p() / YEAR_SECONDS;

        let failure = yearly(inputs.annual_failure);
        let per_home = inputs.fragment_bytes as f64 * f64::from(inputs.policy.n) / homes as f64;
        let error = inputs.errors_per_terabyte_year.max(0.0) * per_home / TERABYTE / YEAR_SECONDS;
        let repair = 1.0 / inputs.repair_seconds().max(1.0);
        // An error is as likely to arise just before it is looked for as just after.
        let scrub = 1.0 / (inputs.scrub.as_secs_f64() / 2.0).max(1.0);
        let domains = if inputs.domains < 2 { 0 } else { inputs.domains.min(homes) };
        let domain_failure = domains as f64 * yearly(inputs.annual_domain_failure);
        let at_once = homes.div_ceil(domains.max(1));

        let mut rates = vec![vec![0.0; loss + 1]; loss];
        for (from, &(lost, wrong)) in states.iter().enumerate() {
            let whole = (homes - lost - wrong) as f64;
            let mut to = |state, rate: f64| rates[from][number(state)] += rate;
            to((lost + 1, wrong), whole * failure);
            to((lost, wrong + 1), whole * error);
            to((lost + at_once, wrong), domain_failure);
            if wrong > 0 {
                to((lost + 1, wrong - 1), wrong as f64 * failure);
                to((lost, wrong - 1), wrong as f64 * scrub);
            }
            if lost > 0 {
                to((lost - 1, wrong), repair);
            }
        }
        Self { rates }
    }

    /// Expected seconds from the start to the loss.
    ///
    /// One state after the other is taken out: what went to it goes where it led, and takes the time it took. Nothing is ever
    /// subtracted, so a time of 10^30 years is as exact as one of 10 (Grassmann, Taksar and Heyman, "Regenerative analysis and
    /// steady state distributions for Markov chains", 1985).
    fn mean_time(mut self) -> f64 {
        let mut stay = vec![1.0; self.rates.len()];
        for last in (1..self.rates.len()).rev() {
            let Some(left) = self.rates.pop() else { break };
            let out: f64 = left.iter().enumerate().filter(|&(to, _)| to != last).map(|(_, rate)| rate).sum();
            for (from, rates) in self.rates.iter_mut().enumerate() {
                let share = rates[last] / out;
                stay[from] += share * stay[last];
                for (rate, through) in rates.iter_mut().zip(&left) {
                    *rate += share * through;
                }
                rates[last] = 0.0;
                rates[from] = 0.0;
            }
        }
        let out: f64 = self.rates.iter().flatten().skip(1).sum();
        stay[0] / out
    }
}

/// A probability: `20 %`, `1 in 4100`.
struct Chance(f64);

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0.1 { write!(f, "{:.0} %", self.0 * 100.0) } else { write!(f, "1 in {}", Round(1.0 / self.0)) }
    }
}

/// Two digits that count, and large numbers in words.
struct Round(f64);

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, word) = match self.0 {
            plain if plain < 1e6 => (plain, ""),
            large if large < 1e9 => (large / 1e6, " million"),
            large if large < 1e12 => (large / 1e9, " billion"),
            large if large < 1e15 => (large / 1e12, " trillion"),
            huge => return write!(f, "{huge:.0e}"),
        };
        let unit = 10_f64.powf(value.max(1.0).log10().floor() - 1.0);
        let rounded = (value / unit).round() * unit;
        if rounded < 10.0 && rounded.fract() > 0.01 {
            write!(f, "{rounded:.1}{word}")
        } else {
            write!(f, "{rounded:.0}{word}")
        }
    }
}

/// A time in the unit that suits it.
struct Span(f64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            seconds if seconds < 90.0 => (seconds, "s"),
            seconds if seconds < 5400.0 => (seconds / 60.0, "min"),
            seconds if seconds < 48.0 * 3600.0 => (seconds / 3600.0, "h"),
            seconds => (seconds / 86_400.0, "days"),
        };
        write!(f, "{} {unit}", Round(value))
    }
}

/// Bytes in the unit that suits them.
struct Bytes(f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            bytes if bytes < 1e6 => (bytes / 1e3, "kB"),
            bytes if bytes < 1e9 => (bytes / 1e6, "MB"),
            bytes if bytes < 1e12 => (bytes / 1e9, "GB"),
            bytes => (bytes / 1e12, "TB"),
        };
        write!(f, "{} {unit}", Round(value))
    }
}
