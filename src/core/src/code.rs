//! Sealing and Reed-Solomon.

/// Plaintext bytes of a stripe: what is sealed, coded and opened as one.
pub const STRIPE_BYTES: usize = 1 << 20;
/// Plaintext bytes of a segment at most.
pub const SEGMENT_BYTES: u64 = 64 << 20;
