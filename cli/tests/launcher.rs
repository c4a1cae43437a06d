//! `memscope-cli run` as a process among processes: what the program gets from it and gives through it.
//!
//! What is recorded is none of these tests' business.

#[path = "launcher/bench.rs"]
mod bench;
#[path = "launcher/errors.rs"]
mod errors;
#[path = "launcher/passing.rs"]
mod passing;
#[path = "launcher/signals.rs"]
mod signals;
