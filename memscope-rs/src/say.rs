//! Lines of ours on standard error.

use crate::{settings, sys};

/// A line that `MEMSCOPE_QUIET=1` suppresses.
pub fn note(text: &str) {
    if !settings::quiet() {
        error(text);
    }
}

/// A line that says what went wrong.
pub fn error(text: &str) {
    sys::write_stderr(format!("memscope: {text}\n").as_bytes());
}
