//! `memscope-cli`: runs a program with the recorder in it, and makes reports of what was recorded.
//!
//! [`run`] launches, [`export`] and [`report`] write what a recording says, [`symbols`] gives its
//! addresses names. This package carries `libmemscope.so` as bytes ([`embed`]) but never links it.
#![deny(unsafe_code)]

mod args;
mod commands;
mod elf;
mod embed;
mod error;
mod exit_codes;
mod export;
mod handoff;
// An allocator has no safe interface.
#[allow(unsafe_code)]
mod heap;
mod input;
mod output;
mod preflight;
mod progress;
// Processes and signals have no safe interface.
#[allow(unsafe_code)]
mod run;
mod symbols;

use std::process::ExitCode;

use memscope_report as report;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap;

fn main() -> ExitCode {
    match commands::dispatch() {
        Ok(code) => code.into(),
        Err(error) => {
            output::say_error(&error);
            error.exit_code().into()
        }
    }
}
