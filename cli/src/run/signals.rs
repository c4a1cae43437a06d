//! Signals while the program runs.
//!
//! `memscope-cli` stays in the program's process group and must not be noticed there. What the
//! terminal sends, the program gets by itself; what somebody sends to us alone is meant for it:
//!
//! | signal | what we do |
//! |---|---|
//! | SIGINT, SIGQUIT | ignored: the program decides |
//! | others, sent by a process | forwarded, unless they come from the program or from what it started |
//! | SIGALRM | forwarded: an alarm set before us was meant for the program |
//! | SIGCONT | forwarded if the program is stopped |
//! | SIGCHLD | the program stopped: we stop, and are woken when it ends or goes on without us; it ended: we are done |
//!
//! All are blocked and taken with `sigwaitinfo`, so nothing runs in a handler.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use super::waker::Waker;
use super::{inherited, proc};

/// Signals that stay as they are: the kernel raises them for our own faults.
const FAULTS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
/// Signals whose disposition we change.
const CHANGED: [(i32, libc::sighandler_t); 3] =
    [(libc::SIGINT, libc::SIG_IGN), (libc::SIGQUIT, libc::SIG_IGN), (libc::SIGCHLD, libc::SIG_DFL)];

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a status.
    Exited(i32),
    /// Killed by a signal.
    Killed(i32),
}

/// The state of signals that was there before we changed it.
pub struct Signals {
    mask: libc::sigset_t,
    waited: libc::sigset_t,
    actions: [(i32, libc::sigaction); CHANGED.len()],
    /// The last process that was to wake us; 0 before.
    waker: Cell<i32>,
}

impl Signals {
    /// Blocks and ignores what has to be, and remembers what was.
    pub fn take_over() -> io::Result<Self> {
        let waited = waited_set();
        let mut mask = empty_set();
        // SAFETY: both sets are initialised and outlive the call.
        check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const waited, &raw mut mask) })?;
        // SAFETY: all zeros is a valid `sigaction`.
        let mut actions = CHANGED.map(|(signal, _)| (signal, unsafe { std::mem::zeroed() }));
        for ((signal, handler), (_, before)) in CHANGED.iter().zip(&mut actions) {
            *before = set_action(*signal, *handler)?;
        }
        Ok(Self { mask, waited, actions, waker: Cell::new(0) })
    }

    /// Puts back what was. In the child, too, before it becomes the program.
    pub fn give_back(&self) {
        for (signal, before) in &self.actions {
            // SAFETY: `before` is what the kernel gave for this signal.
            unsafe { libc::sigaction(*signal, before, ptr::null_mut()) };
        }
        // SAFETY: the mask is what the kernel gave.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut()) };
    }

    /// When the program has ended: what was, but that a limit on the size of files is an error to be told,
    /// not our end.
    pub fn go_on_alone(&self) {
        self.drop_pending();
        self.give_back();
        let _ = set_action(libc::SIGXFSZ, libc::SIG_IGN);
    }

    /// What has come by now was meant for the program, whose end was noticed first.
    fn drop_pending(&self) {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set is initialised, and nothing is to be told of the signal.
        while unsafe { libc::sigtimedwait(&raw const self.waited, ptr::null_mut(), &raw const at_once) } > 0 {
        }
    }

    /// In the child: also what Rust's runtime changed.
    pub fn give_back_all(&self) {
        if !inherited::pipe_ignored() {
            // It was default: another handler does not survive `exec`.
            let _ = set_action(libc::SIGPIPE, libc::SIG_DFL);
        }
        self.give_back();
    }

    /// Waits until the program has ended, following what happens to it and to us. Where we are to stop, `around_stop` is
    /// called with what does it.
    pub fn wait_for(&self, program: i32, mut around_stop: impl FnMut(&dyn Fn())) -> io::Result<Ending> {
        loop {
            let info = self.next()?;
            match info.si_signo {
                libc::SIGCHLD => {
                    if let Some(ending) = self.look_at(program, &mut around_stop)? {
                        return Ok(ending);
                    }
                }
                libc::SIGCONT if !self.is_from_waker(&info) && proc::is_stopped(program) => {
                    send(program, libc::SIGCONT);
                }
                libc::SIGCONT => {}
                signal if is_meant_for(program, &info) => send(program, signal),
                _ => {}
            }
        }
    }

    /// Whether this was only meant for us; the program may have stopped again meanwhile.
    fn is_from_waker(&self, info: &libc::siginfo_t) -> bool {
        // SAFETY: the kernel fills in the sender of every signal that a process can send.
        self.waker.get() != 0 && info.si_code == libc::SI_USER && unsafe { info.si_pid() } == self.waker.get()
    }

    fn next(&self) -> io::Result<libc::siginfo_t> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        loop {
            // SAFETY: the set is initialised; `info` has room for what the kernel writes.
            if unsafe { libc::sigwaitinfo(&raw const self.waited, info.as_mut_ptr()) } > 0 {
                // SAFETY: the kernel filled it in, and zeros were valid before.
                return Ok(unsafe { info.assume_init() });
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Takes every change of the program's state; the signal may stand for several.
    fn look_at(&self, program: i32, around_stop: &mut impl FnMut(&dyn Fn())) -> io::Result<Option<Ending>> {
        loop {
            let mut status = 0;
            let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
            // SAFETY: `status` is ours to be written.
            match unsafe { libc::waitpid(program, &raw mut status, flags) } {
                0 => return Ok(None),
                -1 => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                _ if libc::WIFEXITED(status) => return Ok(Some(Ending::Exited(libc::WEXITSTATUS(status)))),
                _ if libc::WIFSIGNALED(status) => return Ok(Some(Ending::Killed(libc::WTERMSIG(status)))),
                _ if libc::WIFSTOPPED(status) => {
                    around_stop(&|| self.stop_like_the_program(program, libc::WSTOPSIG(status)));
                }
                _ => {}
            }
        }
    }

    /// Stops ourselves by the same signal, so that the shell sees what it would have seen. Returns
    /// when we are continued.
    fn stop_like_the_program(&self, program: i32, signal: i32) {
        // Where there can be none, the shell still sees us stop.
        let waker = Waker::start(program).ok();
        waker.iter().for_each(|waker| self.waker.set(waker.pid()));
        if !matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) {
            raise(libc::SIGSTOP);
            return;
        }
        let Ok(before) = set_action(signal, libc::SIG_DFL) else { return };
        raise(signal);
        let only = set_of(&[signal]);
        // SAFETY: the sets are initialised. The pending signal stops us within the first call; the second
        // runs when we go on.
        unsafe {
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const only, ptr::null_mut());
            libc::sigprocmask(libc::SIG_BLOCK, &raw const only, ptr::null_mut());
            libc::sigaction(signal, &raw const before, ptr::null_mut());
        }
    }
}

/// Whether somebody outside sent this to us for the program's sake.
fn is_meant_for(program: i32, info: &libc::siginfo_t) -> bool {
    if info.si_signo == libc::SIGALRM {
        return true;
    }
    // Above 0: from the kernel, which sends what the terminal says to the whole group.
    if info.si_code > 0 {
        return false;
    }
    // SAFETY: the kernel fills in the sender for every code that a process can cause; for the others
    // (timers) the field holds some number, and all that can come of it is that the signal is forwarded.
    let sender = unsafe { info.si_pid() };
    // What the program sends to its group, it has got itself.
    !proc::descends_from(sender, program)
}

fn send(program: i32, signal: i32) {
    // SAFETY: no memory is involved. The program has not been waited for, so its id is still its own.
    unsafe { libc::kill(program, signal) };
}

fn raise(signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(libc::getpid(), signal) };
}

fn set_action(signal: i32, handler: libc::sighandler_t) -> io::Result<libc::sigaction> {
    // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask; the handler is one of the two constants.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut before: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        check(libc::sigaction(signal, &raw const action, &raw mut before))?;
        Ok(before)
    }
}

/// All signals that we wait for.
fn waited_set() -> libc::sigset_t {
    let mut set = empty_set();
    // SAFETY: the set is initialised; the numbers are signals.
    unsafe {
        libc::sigfillset(&raw mut set);
        for signal in FAULTS.iter().chain(&[libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE]) {
            libc::sigdelset(&raw mut set, *signal);
        }
    }
    set
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = empty_set();
    for signal in signals {
        // SAFETY: the set is initialised; the number is a signal.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "the program exited with status {status}"),
            Self::Killed(signal) => write!(f, "the program was killed by signal {signal}{}", name(*signal)),
        }
    }
}

/// The names of signals that kill, in parentheses; nothing for the others.
const fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGHUP => " (SIGHUP)",
        libc::SIGINT => " (SIGINT)",
        libc::SIGQUIT => " (SIGQUIT)",
        libc::SIGILL => " (SIGILL)",
        libc::SIGTRAP => " (SIGTRAP)",
        libc::SIGABRT => " (SIGABRT)",
        libc::SIGBUS => " (SIGBUS)",
        libc::SIGFPE => " (SIGFPE)",
        libc::SIGKILL => " (SIGKILL)",
        libc::SIGUSR1 => " (SIGUSR1)",
        libc::SIGSEGV => " (SIGSEGV)",
        libc::SIGUSR2 => " (SIGUSR2)",
        libc::SIGPIPE => " (SIGPIPE)",
        libc::SIGALRM => " (SIGALRM)",
        libc::SIGTERM => " (SIGTERM)",
        libc::SIGXCPU => " (SIGXCPU)",
        libc::SIGXFSZ => " (SIGXFSZ)",
        libc::SIGSYS => " (SIGSYS)",
        _ => "",
    }
}
