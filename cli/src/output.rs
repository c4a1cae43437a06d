//! What `memscope-cli` says on stderr. Nobody reading it is never an error.

use std::fmt;
use std::io::{self, Write};

use crate::error::Error;

/// Says one line.
pub fn say(line: impl fmt::Display) {
    // One write for the whole line: the program's children may be writing there too.
    let line = format!("memscope: {line}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Says why something failed.
pub fn say_error(error: &Error) {
    if !error.is_quiet() {
        let line = format!("{error}\n");
        let _ = io::stderr().write_all(line.as_bytes());
    }
}
