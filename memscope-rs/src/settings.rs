//! The settings, from the environment. A bad value is one line on standard error and the default.

use crate::say;
use std::ffi::OsString;
use std::path::PathBuf;

/// What an export makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The snapshot.
    pub json: bool,
    /// The report.
    pub html: bool,
}

/// `MEMSCOPE_AUTO_EXPORT`.
pub fn auto_export() -> bool {
    switch("MEMSCOPE_AUTO_EXPORT").unwrap_or(false)
}

/// `MEMSCOPE_QUIET`.
pub fn quiet() -> bool {
    switch("MEMSCOPE_QUIET").unwrap_or(false)
}

/// `MEMSCOPE_EXPORT_PATH`.
pub fn export_path() -> Option<PathBuf> {
    value("MEMSCOPE_EXPORT_PATH").map(PathBuf::from)
}

/// `MEMSCOPE_EXPORT_FORMAT`.
pub fn format() -> Option<Format> {
    let value = value("MEMSCOPE_EXPORT_FORMAT")?;
    match value.to_str() {
        Some("json") => Some(Format { json: true, html: false }),
        Some("html") => Some(Format { json: false, html: true }),
        Some("both") => Some(Format { json: true, html: true }),
        _ => {
            bad("MEMSCOPE_EXPORT_FORMAT", &value, "json, html or both", "json");
            None
        }
    }
}

/// `MEMSCOPE_STACKS`: 0 for none, 1 for all frames, else their number.
pub fn stacks() -> Option<u8> {
    let value = value("MEMSCOPE_STACKS")?;
    let frames = value.to_str().and_then(|text| text.parse().ok());
    if frames.is_none() {
        bad("MEMSCOPE_STACKS", &value, "0, 1 or a number of frames up to 128", "the default");
    }
    frames
}

/// What the standard library's backtraces go by.
pub fn backtraces() -> bool {
    let wanted = |name| value(name).map(|value| value != "0");
    wanted("RUST_LIB_BACKTRACE").or_else(|| wanted("RUST_BACKTRACE")).unwrap_or(false)
}

fn value(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn switch(name: &str) -> Option<bool> {
    let value = value(name)?;
    match value.to_str() {
        Some("0") => Some(false),
        Some("1") => Some(true),
        _ => {
            bad(name, &value, "0 or 1", "the default");
            None
        }
    }
}

fn bad(name: &str, value: &OsString, wanted: &str, default: &str) {
    let value: String = value.to_string_lossy().chars().take(80).flat_map(char::escape_debug).collect();
    say::error(&format!("{name}: \"{value}\" is not {wanted}: using {default}"));
}
