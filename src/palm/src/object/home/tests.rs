//! A home over backends in memory.
