//! While we are stopped with the program, nobody would hear of its end: a stopped process learns of nothing. A child of ours watches
//! the program, and continues us when that has ended, or runs again without us.
//!
//! The child has a session of its own, so that neither the terminal nor a signal to our group stops it; it ends with us.
//! It may be forked while other threads run, so it makes system calls and nothing else.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::{io, ptr};

use super::proc;

/// How often the child looks at the program, and wakes us until it is told that we are awake.
const LOOK_AGAIN_MS: i32 = 50;

/// A child that wakes us. Dropped, it ends.
pub struct Waker {
    pid: i32,
}

impl Waker {
    /// Watches a child of ours that is stopped.
    pub fn start(program: i32) -> io::Result<Self> {
        // SAFETY: no memory is involved; what comes back is a new descriptor, or -1.
        let watched = unsafe {
            match libc::syscall(libc::SYS_pidfd_open, program, 0) {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd as i32),
            }
        };
        let stat = CString::new(format!("/proc/{program}/stat"))?;
        // SAFETY: there may be other threads, whose locks nobody gives back in the child: it only makes system calls.
        match unsafe { (libc::getpid(), libc::fork()) } {
            (_, -1) => Err(io::Error::last_os_error()),
            (sleeper, 0) => watch(sleeper, &watched, &stat),
            (_, pid) => Ok(Self { pid }),
        }
    }

    /// The child's id.
    pub const fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // SAFETY: the child is ours and has not been waited for, so the number is its own; no memory is involved.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            while libc::waitpid(self.pid, ptr::null_mut(), 0) == -1
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}

/// The child's way. It ends by our hand, or with us.
fn watch(sleeper: i32, watched: &OwnedFd, stat: &CString) -> ! {
    // SAFETY: no memory of ours is involved but `ended`, which is one descriptor as said.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let mut ended = libc::pollfd { fd: watched.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        while libc::getppid() == sleeper {
            // A signal could come just before we stop: it is sent until we end the child.
            if libc::poll(&raw mut ended, 1, LOOK_AGAIN_MS) == 1 {
                libc::kill(sleeper, libc::SIGCONT);
                libc::poll(ptr::null_mut(), 0, LOOK_AGAIN_MS);
            } else if !is_stopped(stat) {
                libc::kill(sleeper, libc::SIGCONT);
            }
        }
        libc::_exit(0)
    }
}

/// Whether the process of this `/proc/PID/stat` is stopped, by a signal or a debugger. True where that can't be read, or where its main
/// thread has ended and says nothing of the others.
fn is_stopped(stat: &CString) -> bool {
    let mut text = [0_u8; 128];
    // SAFETY: the path is a C string, and `text` has room for as much as is asked for.
    let read = unsafe {
        let fd = libc::open(stat.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let read = libc::read(fd, text.as_mut_ptr().cast(), text.len());
        libc::close(fd);
        read
    };
    let text = text.get(..usize::try_from(read).unwrap_or(0)).unwrap_or_default();
    proc::state(text).is_none_or(|state| matches!(state, 'T' | 't' | 'Z'))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::process::{Child, Command};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{Waker, is_stopped};

    fn stopped_sleep() -> (Child, CString) {
        let child = Command::new("sleep").arg("100").spawn().expect("sleep");
        let stat = CString::new(format!("/proc/{}/stat", child.id())).expect("a path");
        // SAFETY: no memory is involved; the child has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGSTOP) }, 0);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_stopped(&stat) {
            assert!(Instant::now() < deadline, "it doesn't stop");
            thread::sleep(Duration::from_millis(1));
        }
        (child, stat)
    }

    #[test]
    fn what_stat_says() {
        let (mut child, stat) = stopped_sleep();
        assert!(!is_stopped(&CString::from(c"/proc/self/stat")));
        child.kill().expect("killed");
        child.wait().expect("waited");
        assert!(is_stopped(&stat), "nothing is known of one that is gone");
    }

    #[test]
    fn it_ends_when_it_is_dropped() {
        let (mut child, _) = stopped_sleep();
        let waker = Waker::start(child.id().cast_signed()).expect("started");
        let pid = waker.pid();
        drop(waker);
        // SAFETY: no memory is involved; signal 0 is sent to nobody.
        assert_eq!(unsafe { libc::kill(pid, 0) }, -1);
        child.kill().expect("killed");
        child.wait().expect("waited");
    }
}
