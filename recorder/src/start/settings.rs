//! The settings, from the environment. A bad value is one line on stderr and the default.

use core::ffi::CStr;
use std::ffi::CString;

/// What the environment asks for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Recording directory as given; may be relative and hold `%p` and `%e`.
    pub output: Option<Vec<u8>>,
    /// Make the export when the first process ends.
    pub auto_export: bool,
    /// `json`, `html` or `both`.
    pub export_format: Format,
    /// Path of the export as given.
    pub export_path: Option<Vec<u8>>,
    /// Record child processes.
    pub follow: bool,
    /// A thread of ours may run in the program.
    pub thread: bool,
    /// Only errors on stderr.
    pub quiet: bool,
    /// The launcher that makes exports.
    pub cli: Option<CString>,
    /// The recording that an ancestor, recorded by hand, has begun: its directory. Of our own making.
    pub joins: Option<Vec<u8>>,
    /// Where the first image of the recording's first process started: what `export_path` is relative to. Of our own making.
    pub start: Option<Vec<u8>>,
    /// What is wrong with the values, a line each. The first process of a recording says it.
    pub complaints: Vec<String>,
}

/// What an export makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The snapshot.
    Json,
    /// The report.
    Html,
    /// Both.
    Both,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            output: None,
            auto_export: false,
            export_format: Format::Json,
            export_path: None,
            follow: true,
            thread: true,
            quiet: false,
            cli: None,
            joins: None,
            start: None,
            complaints: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads them from an environment of `NAME=value` strings.
    pub fn read<'a>(environment: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut settings = Self::default();
        for entry in environment {
            let Some(rest) = entry.strip_prefix(b"MEMSCOPE_") else { continue };
            let Some(at) = rest.iter().position(|&byte| byte == b'=') else { continue };
            settings.apply(&rest[..at], &rest[at + 1..]);
        }
        settings
    }

    /// What the children of a process with these settings go by, as a text of strings with NULs behind them.
    #[must_use]
    pub fn for_children(&self, directory: &[u8]) -> Vec<u8> {
        let mut text = Self::directory_for_children(directory);
        text.extend_from_slice(&self.switches_for_children(0));
        text
    }

    /// Of that text the part that names the directory.
    #[must_use]
    pub fn directory_for_children(directory: &[u8]) -> Vec<u8> {
        [b"MEMSCOPE_OUTPUT=", directory, b"\0MEMSCOPE_RECORDING=", directory, b"\0"].concat()
    }

    /// Of that text the other part, with this byte behind each string. Never empty.
    #[must_use]
    pub fn switches_for_children(&self, end: u8) -> Vec<u8> {
        let mut text = Vec::with_capacity(64);
        for (name, value) in [("FOLLOW", self.follow), ("THREAD", self.thread), ("QUIET", self.quiet)] {
            let value = if value { b"1" } else { b"0" };
            text.extend_from_slice(&[b"MEMSCOPE_", name.as_bytes(), b"=", value, &[end]].concat());
        }
        text
    }

    fn apply(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"OUTPUT" if !value.is_empty() => self.output = Some(value.into()),
            b"EXPORT_PATH" if !value.is_empty() => self.export_path = Some(value.into()),
            b"RECORDING" => self.joins = Some(value.into()),
            b"START" => self.start = Some(value.into()),
            b"CLI" if !value.is_empty() => self.cli = CString::new(value).ok(),
            b"AUTO_EXPORT" => self.auto_export = self.switch("AUTO_EXPORT", value, false),
            b"FOLLOW" => self.follow = self.switch("FOLLOW", value, true),
            b"THREAD" => self.thread = self.switch("THREAD", value, true),
            b"QUIET" => self.quiet = self.switch("QUIET", value, false),
            b"EXPORT_FORMAT" => {
                self.export_format = match value {
                    b"" | b"json" => Format::Json,
                    b"html" => Format::Html,
                    b"both" => Format::Both,
                    _ => {
                        self.bad("EXPORT_FORMAT", value, "json, html or both", "json");
                        Format::Json
                    }
                }
            }
            _ => {}
        }
    }

    fn switch(&mut self, name: &str, value: &[u8], default: bool) -> bool {
        match value {
            b"" => default,
            b"0" => false,
            b"1" => true,
            _ => {
                self.bad(name, value, "0 or 1", if default { "1" } else { "0" });
                default
            }
        }
    }

    fn bad(&mut self, name: &str, value: &[u8], wanted: &str, default: &str) {
        let value = String::from_utf8_lossy(value);
        let value: String = value.chars().take(80).flat_map(char::escape_debug).collect();
        self.complaints.push(format!("MEMSCOPE_{name}: \"{value}\" is not {wanted}: using {default}"));
    }
}

/// Walks a NULL-terminated array of C strings.
///
/// # Safety
/// `array` is null or such an array, which stays valid and unchanged while the iterator lives.
pub unsafe fn strings<'a>(array: *const *const libc::c_char) -> impl Iterator<Item = &'a [u8]> {
    let mut at = array;
    core::iter::from_fn(move || {
        // SAFETY: as promised by the caller.
        unsafe {
            if at.is_null() || (*at).is_null() {
                return None;
            }
            let bytes = CStr::from_ptr(*at).to_bytes();
            at = at.add(1);
            Some(bytes)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_defaults() {
        let lines: [&[u8]; 6] = [
            b"MEMSCOPE_OUTPUT=/tmp/a b/%p",
            b"MEMSCOPE_AUTO_EXPORT=1",
            b"MEMSCOPE_EXPORT_FORMAT=both",
            b"MEMSCOPE_FOLLOW=0",
            b"MEMSCOPE_THREAD=perhaps",
            b"HOME=/root",
        ];
        let settings = Settings::read(lines.into_iter());
        assert_eq!(settings.output.as_deref(), Some(b"/tmp/a b/%p".as_slice()));
        assert!(settings.auto_export && !settings.follow && settings.thread && !settings.quiet);
        assert_eq!(settings.export_format, Format::Both);
        assert_eq!(settings.complaints, ["MEMSCOPE_THREAD: \"perhaps\" is not 0 or 1: using 1"]);
    }
}
