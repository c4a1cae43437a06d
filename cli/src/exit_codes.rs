//! The exit statuses of `memscope-cli`, as users and scripts rely on them.

use std::process::ExitCode as StdExitCode;

/// How `memscope-cli` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// All went well.
    Success,
    /// The program's own status, passed on.
    Program(u8),
    /// The program was killed by this signal.
    Killed(u8),
    /// Wrong usage.
    Usage,
    /// memscope itself failed.
    Failed,
    /// The program was found but cannot be run.
    CannotRun,
    /// The program cannot be found.
    NotFound,
}

impl ExitCode {
    /// The status as the parent of `memscope-cli` sees it.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Program(status) => status,
            Self::Killed(signal) => 128_u8.wrapping_add(signal),
            Self::Usage => 2,
            Self::Failed => 125,
            Self::CannotRun => 126,
            Self::NotFound => 127,
        }
    }
}

impl From<ExitCode> for StdExitCode {
    fn from(code: ExitCode) -> Self {
        code.status().into()
    }
}

#[cfg(test)]
mod tests {
    use super::ExitCode;

    #[test]
    fn memscopes_own_statuses() {
        assert_eq!(ExitCode::Success.status(), 0);
        assert_eq!(ExitCode::Usage.status(), 2);
        assert_eq!(ExitCode::Failed.status(), 125);
        assert_eq!(ExitCode::CannotRun.status(), 126);
        assert_eq!(ExitCode::NotFound.status(), 127);
    }

    #[test]
    fn the_programs_status_is_passed_on() {
        for status in 0..=255 {
            assert_eq!(ExitCode::Program(status).status(), status);
        }
    }

    #[test]
    fn a_signal_is_added_to_128() {
        assert_eq!(ExitCode::Killed(9).status(), 137);
        assert_eq!(ExitCode::Killed(11).status(), 139);
        assert_eq!(ExitCode::Killed(64).status(), 192);
    }
}
