//! What `memscope-cli` says on stderr. Nobody reading it is never an error.

use std::fmt;
use std::io::{self, Write};

use memscope_report::harmless;

use crate::error::Error;

/// Says one line.
pub fn say(line: impl fmt::Display) {
    // Names of programs and paths may hold anything. One write for the whole line: the program's children may be writing there too.
    let line = format!("memscope: {}\n", harmless(&line.to_string()));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Says why something failed.
pub fn say_error(error: &Error) {
    if !error.is_quiet() {
        let line = format!("{error}\n");
        let _ = io::stderr().write_all(line.as_bytes());
    }
}
