//! Runs many seeds of the simulation and prints what happened in them.
//!
//! `cargo run -p palm-core --features sim --example soak -- --seeds 20000 [--from N]`, or `--show N` for the history
//! of one. Ends at the first violation, with its history.

use std::process::ExitCode;
use std::time::Instant;

use palm_core::sim;

fn main() -> ExitCode {
    let mut seeds = 20_000_u64;
    let mut from = 0_u64;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let number = arguments.next().and_then(|number| number.parse().ok());
        match (name.as_str(), number) {
            ("--seeds", Some(number)) => seeds = number,
            ("--from", Some(number)) => from = number,
            ("--hunt", Some(number)) => {
                for fault in sim::fault::Fault::ALL {
                    println!("{fault:?} {:?}", sim::hunt(*fault, from..from + number));
                }
                return ExitCode::SUCCESS;
            }
            ("--show", Some(number)) => {
                print!("{}", sim::transcript(number));
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("usage: soak [--seeds COUNT] [--from SEED] [--show SEED]");
                return ExitCode::FAILURE;
            }
        }
    }
    #[expect(clippy::disallowed_methods, reason = "an example looks at the clock for its figures; core does not")]
    let began = Instant::now();
    let mut total = sim::Stats::default();
    for seed in from..from + seeds {
        match sim::run(seed) {
            Ok(stats) => total.add(&stats),
            Err(violation) => {
                println!("{violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{total}");
    #[expect(clippy::disallowed_methods, reason = "as above")]
    let seconds = began.elapsed().as_secs_f64();
    println!("seconds            {seconds:>12.1}");
    ExitCode::SUCCESS
}
