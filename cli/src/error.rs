//! Errors: one line that says what failed, why, and what to do about it.

use std::fmt;
use std::io;
use std::path::Path;

use crate::exit_codes::ExitCode;

/// Result of anything that can end `memscope-cli`.
pub type Result<T> = std::result::Result<T, Error>;

/// Why `memscope-cli` could not do what it was asked to.
#[derive(Debug)]
pub struct Error {
    what: String,
    why: String,
    remedy: Option<String>,
    code: ExitCode,
    quiet: bool,
}

impl Error {
    /// memscope itself failed (status 125).
    pub fn failed(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::with_code(ExitCode::Failed, what, why)
    }

    /// The command line was wrong (status 2).
    pub fn usage(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::with_code(ExitCode::Usage, what, why)
    }

    /// The program cannot be found (status 127).
    pub fn not_found(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::with_code(ExitCode::NotFound, what, why)
    }

    /// The program was found but cannot be run (status 126).
    pub fn cannot_run(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::with_code(ExitCode::CannotRun, what, why)
    }

    /// A file could not be read or written.
    pub fn file(path: &Path, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => Some("check the path"),
            io::ErrorKind::PermissionDenied => Some("check its permissions and those of its directory"),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("free some space there"),
            io::ErrorKind::IsADirectory => Some("name a file, or move the directory away"),
            io::ErrorKind::NotADirectory => Some("a part of the path is a file: check the path"),
            io::ErrorKind::FileTooLarge => Some("raise the limit of file sizes (`ulimit -f`)"),
            io::ErrorKind::ReadOnlyFilesystem => Some("choose a place that can be written to"),
            _ => None,
        };
        let error = Self { quiet: broken_pipe(error), ..Self::failed(path.display(), describe(error)) };
        match remedy {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }

    fn with_code(code: ExitCode, what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self { what: one_line(what), why: one_line(why), remedy: None, code, quiet: false }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy = Some(one_line(remedy));
        self
    }

    /// What failed and why, for a place that needs no remedy.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("{}: {}", self.what, self.why)
    }

    /// The status with which `memscope-cli` ends.
    #[must_use]
    pub const fn exit_code(&self) -> ExitCode {
        self.code
    }

    /// Whether nobody wants to read about it: the reader of our output has gone.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memscope: {}: {}", self.what, self.why)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

fn broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// The system's words for an error, without Rust's "(os error 2)" behind them.
pub fn describe(error: &io::Error) -> String {
    if error.raw_os_error().is_none() && error.get_ref().is_none() {
        return plain_words(error.kind());
    }
    let text = error.to_string();
    let plain = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = plain.chars();
    match letters.next() {
        // Lower case reads better after a colon; a name in capitals (an acronym) stays.
        Some(first) if !letters.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => plain.to_owned(),
    }
}

/// The system's words for errors that did not come from it.
fn plain_words(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
        io::ErrorKind::InvalidData => "its content makes no sense".to_owned(),
        other => other.to_string(),
    }
}

/// Keeps a message on its line, whatever file names and messages from elsewhere hold.
fn one_line(text: impl fmt::Display) -> String {
    let text = text.to_string();
    let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|l| !l.is_empty()).collect();
    lines.join(" ").replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::{Error, describe};
    use crate::exit_codes::ExitCode;

    #[test]
    fn a_message_is_one_line_with_its_remedy() {
        let error = Error::failed("out\ndir", "no\r\nspace").remedy("free\nsome");
        assert_eq!(error.to_string(), "memscope: out dir: no space; free some");
        assert_eq!(error.exit_code(), ExitCode::Failed);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(Error::usage("a\u{1b}[31m", "b").to_string(), "memscope: a\u{fffd}[31m: b");
    }

    #[test]
    fn errors_of_the_system_read_well() {
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(describe(&missing), "no such file or directory");
        assert_eq!(describe(&io::ErrorKind::NotFound.into()), "no such file or directory");
        assert_eq!(describe(&io::Error::other("it is gone")), "it is gone");
        let error = Error::file(Path::new("x.json"), &missing);
        assert_eq!(error.to_string(), "memscope: x.json: no such file or directory; check the path");
        assert!(!error.is_quiet());
    }

    #[test]
    fn a_broken_pipe_is_quiet() {
        let gone = io::Error::from_raw_os_error(libc::EPIPE);
        assert!(Error::file(Path::new("-"), &gone).is_quiet());
    }
}
