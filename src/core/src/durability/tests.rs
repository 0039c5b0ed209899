//! The chain against closed forms, against dice, and against the page that quotes it.

use std::fmt::Write;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Nothing but peers that are lost, at a rate of 1 a year, and repaired within `repair_years`.
fn plain(k: u8, n: u8, repair_years: f64) -> Inputs {
    Inputs {
        annual_failure: 1.0 - (-1.0_f64).exp(),
        grace: Duration::from_secs_f64(repair_years * YEAR_SECONDS),
        replacement: Duration::ZERO,
        peer_bytes: 0,
        errors_per_terabyte_year: 0.0,
        ..Inputs::new(Policy { k, n }, n.into())
    }
}

fn assert_close(actual: f64, expected: f64) {
    assert!((actual / expected - 1.0).abs() < 1e-6, "{actual} is not {expected}");
}

/// Without redundancy the first loss is the end: the n-th part of a peer's life.
#[test]
fn without_redundancy_the_first_loss_counts() {
    for n in 1..=8 {
        assert_close(plain(n, n, 0.01).estimate().mean_years_to_loss, 1.0 / f64::from(n));
    }
}

/// The textbook's mirror, (3λ + μ) / 2λ²; and one step further, two of three lost from 1-of-3, where the chain is solved by
/// hand. The last is so rare that an elimination with subtractions would have lost all digits.
#[test]
fn mirrors_agree_with_the_textbook() {
    for repair_years in [10.0, 1.0, 0.01, 1e-6] {
        let mu = 1.0 / repair_years;
        assert_close(plain(1, 2, repair_years).estimate().mean_years_to_loss, 1.5 + mu / 2.0);
        // From 0 lost at rate 3, from 1 at 2, from 2 at 1; back at μ.
        let expected = 1.5 + mu / 2.0 + (1.0 + mu / 2.0 * (1.0 + mu)) / 3.0;
        assert_close(plain(1, 3, repair_years).estimate().mean_years_to_loss, expected);
    }
}

/// Without repair the lives add up: 1/n + 1/(n-1) + … as often as homes may go.
#[test]
fn without_repair_lives_add_up() {
    for n in 2..=8_u8 {
        for k in 1..=n {
            let expected: f64 = (k..=n).map(|homes| 1.0 / f64::from(homes)).sum();
            assert_close(plain(k, n, 1e9).estimate().mean_years_to_loss, expected);
        }
    }
}

/// Lives of objects thrown with dice, home by home, as the page tells the story: not the chain's states but each home's own
/// fate. Their mean must be the chain's, within four standard errors.
#[test]
fn the_chain_agrees_with_dice() {
    const LIVES: u32 = 20_000;
    #[derive(Clone, Copy, PartialEq)]
    enum Home {
        Whole,
        Wrong,
        Lost,
    }
    let cases = [
        Inputs { errors_per_terabyte_year: 0.5, ..plain(2, 3, 0.2) },
        Inputs { errors_per_terabyte_year: 2.0, ..plain(3, 5, 0.1) },
        Inputs { domains: 3, annual_domain_failure: 0.3, errors_per_terabyte_year: 1.0, ..plain(4, 7, 0.1) },
        Inputs { domains: 5, annual_domain_failure: 0.3, ..plain(3, 5, 0.3) },
    ];
    for (seed, inputs) in (0..).zip(cases) {
        let inputs = Inputs { fragment_bytes: 1_000_000_000_000, ..inputs };
        let mut dice = SmallRng::seed_from_u64(seed);
        let per_year = |share: f64| -(1.0 - share).ln();
        let homes = usize::from(inputs.policy.n);
        let domains = if inputs.domains < 2 { 0.0 } else { inputs.domains as f64 };
        let at_once = homes.div_ceil(inputs.domains.max(1));
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..LIVES {
            let (mut state, mut years) = (vec![Home::Whole; homes], 0.0);
            while state.iter().filter(|home| **home == Home::Whole).count() >= usize::from(inputs.policy.k) {
                // The next of all things that may happen, each as likely as its rate.
                let lost = state.iter().filter(|home| **home == Home::Lost).count();
                let rate_of = |home: Home| match home {
                    Home::Whole => per_year(inputs.annual_failure) + inputs.errors_per_terabyte_year,
                    Home::Wrong => per_year(inputs.annual_failure) + 2.0 * YEAR_SECONDS / inputs.scrub.as_secs_f64(),
                    Home::Lost => YEAR_SECONDS / inputs.grace.as_secs_f64() / lost as f64,
                };
                let domain_rate = domains * per_year(inputs.annual_domain_failure);
                let all: f64 = state.iter().map(|home| rate_of(*home)).sum::<f64>() + domain_rate;
                years -= (1.0 - dice.random::<f64>()).ln() / all;
                let mut throw = dice.random::<f64>() * all;
                let hit = state.iter().position(|home| {
                    throw -= rate_of(*home);
                    throw < 0.0
                });
                let Some(hit) = hit else {
                    // A domain, of homes that live as long as there are.
                    let struck: Vec<usize> =
                        (0..homes).filter(|&home| state[home] == Home::Whole).take(at_once).collect();
                    let missed = at_once - struck.len();
                    for home in struck {
                        state[home] = Home::Lost;
                    }
                    state
                        .iter_mut()
                        .filter(|home| **home == Home::Wrong)
                        .take(missed)
                        .for_each(|home| *home = Home::Lost);
                    continue;
                };
                let is_lost = dice.random::<f64>() * rate_of(state[hit]) < per_year(inputs.annual_failure);
                state[hit] = match state[hit] {
                    Home::Lost => Home::Whole,
                    _ if is_lost => Home::Lost,
                    Home::Whole => Home::Wrong,
                    Home::Wrong => Home::Whole,
                };
            }
            sum += years;
            squares += years * years;
        }
        let lives = f64::from(LIVES);
        let mean = sum / lives;
        let standard_error = ((squares / lives - mean * mean) / lives).sqrt();
        let expected = inputs.estimate().mean_years_to_loss;
        assert!(
            (mean - expected).abs() < 4.0 * standard_error,
            "case {seed}: dice {mean} chain {expected} ± {standard_error}"
        );
    }
}

/// Whatever makes a pool worse must not make its estimate better.
#[test]
fn the_estimate_moves_the_right_way() {
    let base = Inputs { domains: 4, ..Inputs::new(Policy { k: 3, n: 5 }, 8) };
    let worse = [
        Inputs { annual_failure: 0.4, ..base },
        Inputs { members: 5, ..base },
        Inputs { grace: Duration::from_hours(24), ..base },
        Inputs { repair_bytes_per_second: 1_000_000, ..base },
        Inputs { domains: 2, ..base },
        Inputs { annual_domain_failure: 0.1, ..base },
        Inputs { errors_per_terabyte_year: 10.0, ..base },
        Inputs { scrub: Duration::from_hours(24 * 3650), ..base },
        Inputs { policy: Policy { k: 4, n: 5 }, ..base },
    ];
    for inputs in worse {
        assert!(inputs.estimate().nines < base.estimate().nines, "{inputs:?}");
    }
    assert!(Inputs { availability: 0.5, ..base }.estimate().unavailable > base.estimate().unavailable);
}

/// Out of reach: 2-of-3 with each there 90 % of the time is away when two or three sleep.
#[test]
fn sleep_is_binomial() {
    let inputs = Inputs { availability: 0.9, ..Inputs::new(Policy { k: 2, n: 3 }, 3) };
    assert_close(inputs.estimate().unavailable, 3.0 * 0.9 * 0.01 + 0.001);
    let alone = Inputs { availability: 0.9, ..Inputs::new(Policy { k: 1, n: 1 }, 1) };
    assert_close(alone.estimate().unavailable, 0.1);
}

/// Settings are typed by people: no figure of theirs makes an estimate that is no number.
#[test]
fn no_input_breaks_it() {
    for share in [-1.0, 0.0, 1.0, 7.0, 1e-300] {
        for (k, n) in [(1, 1), (1, 64), (64, 64), (3, 5)] {
            for members in [0, 1, 4, 64] {
                let inputs = Inputs {
                    members,
                    annual_failure: share,
                    availability: share,
                    annual_domain_failure: share,
                    errors_per_terabyte_year: share,
                    domains: 3,
                    repair_bytes_per_second: 0,
                    scrub: Duration::ZERO,
                    ..Inputs::new(Policy { k, n }, members)
                };
                let estimate = inputs.estimate();
                assert!(estimate.mean_years_to_loss > 0.0 && estimate.mean_years_to_loss.is_finite(), "{inputs:?}");
                assert!(
                    (0.0..=1.0).contains(&estimate.annual_loss) && estimate.nines >= 0.0,
                    "{inputs:?} {estimate:?}"
                );
                assert!((0.0..=1.0 + 1e-9).contains(&estimate.unavailable), "{inputs:?}");
            }
        }
    }
}

/// What `palm status --durability` prints.
#[test]
fn it_reads_well() {
    let text = Inputs::new(Policy { k: 3, n: 5 }, 5).estimate().to_string();
    let expected = "\
An object is lost within a year with a probability of 1 in 4100 (3.6 nines).
Mean time to its loss: 4100 years. Repair of a lost peer: 7.1 days.
Out of reach because peers sleep: 10 h a year.
Assumed:
- 3-of-5 over 5 of 5 peers; 2 may be lost at once
- a peer or its disk is lost for ever with 20 % a year
- a lost peer's 500 GB are rebuilt at 50 MB a second, 15 min after it vanished
- no peer is to spare, so they wait for another machine, 7 days long
- peers are lost independently: no fire, theft or surge takes several
- 0.1 unnoticed errors a year in a terabyte, found within 30 days
- a peer is there 95 % of the time
- an object of one segment (up to 64 MiB); software and people make no mistakes";
    assert_eq!(text, expected);
}

/// docs/durability.md shows a table of the automatic policies. It must be what the model says today.
#[test]
fn the_page_quotes_the_model() {
    let page = include_str!("../../../../docs/durability.md");
    let mut table = String::new();
    for members in (1..=8).chain([12]) {
        let inputs = Inputs::new(Policy::auto(members), members);
        let [usual, good] = [inputs, Inputs { annual_failure: 0.05, ..inputs }].map(|inputs| inputs.estimate());
        let fire = Inputs { domains: members.min(3), ..inputs }.estimate();
        let _ = writeln!(
            table,
            "| {members} | {} | {:.2} | {} | {} | {} ({:.1}) | {} ({:.1}) | {} ({:.1}) | {} |",
            inputs.policy,
            f64::from(inputs.policy.n) / f64::from(inputs.policy.k),
            inputs.tolerated(),
            if inputs.tolerated() == 0 { "none".to_owned() } else { Span(usual.repair_seconds).to_string() },
            Chance(usual.annual_loss),
            usual.nines,
            Chance(good.annual_loss),
            good.nines,
            Chance(fire.annual_loss),
            fire.nines,
            Span(usual.unavailable * YEAR_SECONDS),
        );
    }
    assert!(page.contains(&table), "the table in docs/durability.md should be\n{table}");
}
