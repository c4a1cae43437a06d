//! Signals that are watched before what would happen at them happens.

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering};

/// The end of the pipe that [`on_signal`] writes to.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(signal: c_int) {
    let byte = [signal as u8];
    // SAFETY: `write` may be called in a signal handler; the byte is readable. `errno` is put back.
    unsafe {
        let errno = errno_location();
        let before = *errno;
        libc::write(SIGNAL_PIPE.load(Ordering::Acquire), byte.as_ptr().cast(), 1);
        *errno = before;
    }
}

#[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "hurd", target_os = "dragonfly"))]
fn errno_location() -> *mut c_int {
    // SAFETY: no condition.
    unsafe { libc::__errno_location() }
}

#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
fn errno_location() -> *mut c_int {
    // SAFETY: no condition.
    unsafe { libc::__error() }
}

#[cfg(any(target_os = "netbsd", target_os = "openbsd", target_os = "android"))]
fn errno_location() -> *mut c_int {
    // SAFETY: no condition.
    unsafe { libc::__errno() }
}

/// A signal that is watched, and what was to happen at it before.
#[derive(Clone, Copy)]
pub struct Watched {
    signal: c_int,
    before: libc::sigaction,
}

/// Watches signals from a thread of its own, which calls `first` and then lets happen what would have
/// happened without us. Signals that are ignored stay so.
///
/// # Errors
/// Those of making a pipe or a thread.
pub fn watch_signals(signals: &[c_int], first: fn(i32)) -> std::io::Result<()> {
    use std::os::fd::IntoRawFd;
    let (reader, writer) = std::io::pipe()?;
    SIGNAL_PIPE.store(writer.into_raw_fd(), Ordering::Release);
    let watched: Vec<Watched> = signals.iter().filter_map(|&signal| watch(signal)).collect();
    let thread = std::thread::Builder::new().name("memscope-signals".to_owned());
    thread.spawn(move || serve_signals(reader, &watched, first))?;
    Ok(())
}

fn watch(signal: c_int) -> Option<Watched> {
    // SAFETY: both actions are valid where they are read; the handler only does what handlers may do.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &raw mut before) != 0
            || before.sa_sigaction == libc::SIG_IGN
        {
            return None;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        (libc::sigaction(signal, &raw const action, std::ptr::null_mut()) == 0)
            .then_some(Watched { signal, before })
    }
}

fn serve_signals(mut reader: std::io::PipeReader, watched: &[Watched], first: fn(i32)) {
    use std::io::Read;
    let mut byte = [0];
    while matches!(reader.read(&mut byte), Ok(1)) {
        let signal = c_int::from(byte[0]);
        let Some(watched) = watched.iter().find(|watched| watched.signal == signal) else { continue };
        first(signal);
        // SAFETY: the action is the one that was there before; the signal goes to our own process.
        unsafe {
            libc::sigaction(signal, &raw const watched.before, std::ptr::null_mut());
            libc::kill(libc::getpid(), signal);
        }
    }
}
