//! Room for files of our own, where the limit of open files leaves none; the program gets the limit that we were given.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that we may have open at once.
const NEEDED: u64 = 1024;
/// Fewer than these are hardly enough, with three of them standard streams.
const FEW: u64 = 8;

/// The limit of open files.
#[derive(Debug)]
pub struct OpenFiles {
    /// What it was, if it was raised.
    before: Option<Rlimit>,
}

impl OpenFiles {
    /// Raises the limit, as far as that is allowed, if it is low.
    pub fn raise() -> Self {
        let before = getrlimit(Resource::Nofile);
        if before.current.is_none_or(|most| most >= NEEDED) {
            return Self { before: None };
        }
        let maximum = before.maximum.map(|most| most.max(NEEDED));
        let enough = Rlimit { current: Some(NEEDED), maximum };
        // Not everybody may raise the upper limit.
        let allowed = Rlimit { current: before.maximum, ..before };
        let raised = [enough, allowed].into_iter().any(|limit| setrlimit(Resource::Nofile, limit).is_ok());
        Self { before: raised.then_some(before) }
    }

    /// Makes the limit what it was, for this process and what it becomes.
    pub fn give_back(&self) {
        if let Some(before) = self.before {
            // To lower a limit is always allowed.
            let _ = setrlimit(Resource::Nofile, before);
        }
    }

    /// Gives up standard input, which was the program's, where few files are allowed. It has ended.
    pub fn make_room() {
        if getrlimit(Resource::Nofile).current.is_some_and(|most| most < FEW) {
            // SAFETY: nothing of ours reads from it.
            unsafe { libc::close(libc::STDIN_FILENO) };
        }
    }
}
