//! How fast one thread seals and opens: `cargo run -p palm-core --release --example code_speed [k n]`.
//!
//! Each line is plaintext bytes per second over stripes of one size, with fresh buffers as in a real upload:
//! filling the buffer is counted, drawing the key is not.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use palm_core::code::{CodeError, Coder, STRIPE_BYTES, SegmentSecret, StripeKey};
use palm_core::id::SegmentId;
use palm_core::place::Policy;

/// Each figure is measured over this long.
const WINDOW: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u8> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let policy = match numbers[..] {
        [k, n] => Policy::new(k, n)?,
        _ => Policy::new(3, 5)?,
    };
    let mut coder = Coder::new(policy)?;
    let secret = SegmentSecret::derive(&[1; 32], SegmentId::from_bytes([2; 16]));

    println!("{policy}, one thread");
    for len in [STRIPE_BYTES, 64 << 10, 1 << 10] {
        let plaintext: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let seal = |coder: &mut Coder| {
            let mut buffer = BytesMut::with_capacity(coder.stripe_capacity());
            buffer.extend_from_slice(&plaintext);
            coder.seal_encode(&secret, 0, buffer, StripeKey::from_random([3; 32]))
        };
        let shards: Vec<(u8, Bytes)> = (0..).zip(seal(&mut coder)?).collect();
        let (k, n) = (usize::from(policy.k), usize::from(policy.n));

        measure("seal and encode", len, || seal(&mut coder).map(drop))?;
        measure("open, data shards", len, || coder.open(&secret, 0, len, &shards[..k]).map(drop))?;
        for lost in 1..=(n - k).min(k) {
            let label = format!("open, {lost} lost");
            measure(&label, len, || coder.open(&secret, 0, len, &shards[lost..]).map(drop))?;
        }
        if n > k {
            measure("rebuild 1 data shard", len, || coder.rebuild(len, &shards[1..], &[0]).map(drop))?;
            measure("rebuild 1 parity shard", len, || coder.rebuild(len, &shards[..k], &[policy.k]).map(drop))?;
        }
    }
    Ok(())
}

fn measure(label: &str, len: usize, mut run: impl FnMut() -> Result<(), CodeError>) -> Result<(), CodeError> {
    let start = Instant::now();
    let mut rounds = 0_u32;
    while start.elapsed() < WINDOW {
        black_box(run()?);
        rounds += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    let each = seconds * 1e6 / f64::from(rounds);
    println!("{len:>8} B  {label:<24} {:>8.0} MB/s  {each:>8.1} us", len as f64 * f64::from(rounds) / seconds / 1e6);
    Ok(())
}
