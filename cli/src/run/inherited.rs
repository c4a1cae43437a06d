//! What our parent gave us, before Rust's runtime changed it: the program gets just that.
//!
//! Before `main`, the runtime ignores SIGPIPE and opens `/dev/null` for each standard stream that is
//! closed. A function in `.init_array` runs earlier still.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// SIGPIPE was ignored.
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);
/// Standard streams that were closed.
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

// SAFETY: the loader calls the functions of this section once, on the only thread, when libc is ready.
// This one makes no use of Rust's runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: all zeros is a valid `sigaction`; the kernel fills it in.
    let (result, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action), action)
    };
    PIPE_IGNORED.store(result == 0 && action.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
    for (stream, closed) in (0..).zip(&CLOSED) {
        // SAFETY: asks for the descriptor's flags and changes nothing.
        closed.store(unsafe { libc::fcntl(stream, libc::F_GETFD) } == -1, Ordering::Relaxed);
    }
}

/// Whether SIGPIPE was ignored.
pub fn pipe_ignored() -> bool {
    PIPE_IGNORED.load(Ordering::Relaxed)
}

/// The standard streams that were closed.
pub fn closed_streams() -> impl Iterator<Item = RawFd> {
    (0..).zip(&CLOSED).filter(|(_, closed)| closed.load(Ordering::Relaxed)).map(|(stream, _)| stream)
}
