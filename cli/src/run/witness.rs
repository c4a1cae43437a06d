//! How processes end that are not our children: their parents take their statuses, but Linux (6.15 and later) tells them to whoever
//! has a descriptor of the process, too.
//!
//! A thread of ours hears of each new trace in the recording, opens its process, and asks when that has ended. One that is gone before we
//! come ends unknown, as all do on older systems. What shared memory a trace names is remembered by the way ([`Spools`]).

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::{fs, ptr};

use memscope_shared::stat;
use memscope_shared::trace::{Ending, Process};

use super::monotonic_ns;
use super::spools::Spools;

/// Processes that are watched at a time.
const MOST: usize = 1000;

/// A process: its id, and when it started.
type Name = (u32, u64);

/// The ends that were seen.
#[derive(Debug, Default)]
pub struct Ends(HashMap<Name, Ending>);

impl Ends {
    /// How this process ended, as far as it was seen. That its id is one of our namespace is the caller's to know.
    pub fn of(&self, process: &Process) -> Ending {
        self.0.get(&(process.pid, process.start_ticks)).copied().unwrap_or_default()
    }
}

/// The thread that watches.
#[derive(Debug)]
pub struct Witness {
    thread: JoinHandle<(Ends, Spools)>,
    /// Its end tells the thread to end, too.
    stop: PipeWriter,
}

impl Witness {
    /// Watches the processes that record into `directory`; `None` where that can't be done.
    pub fn start(directory: &Path) -> Option<Self> {
        let news = watch(directory).ok()?;
        let (stopped, stop) = io::pipe().ok()?;
        let watching = Watching::new(directory, news);
        let thread = thread::Builder::new().name("witness".into()).spawn(|| watching.run(stopped)).ok()?;
        Some(Self { thread, stop })
    }

    /// All that was seen until now: ends, and what shared memory there is.
    pub fn seen(self) -> (Ends, Spools) {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

/// Hears of files that get their names in a directory.
fn watch(directory: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: no memory is involved; what comes back is a new descriptor.
    let news = unsafe { owned(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK)) }?;
    // SAFETY: the path is a C string.
    match unsafe {
        libc::inotify_add_watch(news.as_raw_fd(), path.as_ptr(), libc::IN_MOVED_TO | libc::IN_CREATE)
    } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(news),
    }
}

/// # Safety
/// `fd` is a new descriptor, or -1.
unsafe fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as promised by the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

struct Watching {
    directory: PathBuf,
    news: OwnedFd,
    /// On an older kernel, processes are not worth their descriptors.
    kernel_tells: bool,
    processes: Vec<(Name, OwnedFd)>,
    ends: Ends,
    spools: Spools,
}

impl Watching {
    fn new(directory: &Path, news: OwnedFd) -> Self {
        let (ends, spools) = (Ends::default(), Spools::of(directory));
        let directory = directory.to_owned();
        Self { directory, news, kernel_tells: kernel_tells(), processes: Vec::new(), ends, spools }
    }

    fn run(mut self, stopped: PipeReader) -> (Ends, Spools) {
        loop {
            let (stopped, news) = (stopped.as_raw_fd(), self.news.as_raw_fd());
            let mut waited = vec![waiting(stopped, libc::POLLIN), waiting(news, libc::POLLIN)];
            // Whose end has been taken by its parent hangs up; before that we would be told nothing.
            waited.extend(self.processes.iter().map(|(_, process)| waiting(process.as_raw_fd(), 0)));
            // SAFETY: the list is as long as it says.
            if unsafe { libc::poll(waited.as_mut_ptr(), waited.len() as libc::nfds_t, -1) } < 0 {
                continue;
            }
            self.take_ends(|index| waited[2 + index].revents != 0);
            self.read_news();
            if waited[0].revents != 0 {
                self.take_ends(|_| true);
                self.spools.settle();
                return (self.ends, self.spools);
            }
        }
    }

    /// Asks those that have ended, and lets them go.
    fn take_ends(&mut self, ended: impl Fn(usize) -> bool) {
        for index in (0..self.processes.len()).rev().filter(|&index| ended(index)) {
            let (name, process) = self.processes.swap_remove(index);
            if let Some(ending) = ending_of(&process) {
                self.ends.0.insert(name, ending);
            }
        }
    }

    fn read_news(&mut self) {
        let mut events = [0; 16 << 10];
        while let Some(read) = read(&self.news, &mut events) {
            self.take_news(&events[..read]);
        }
    }

    fn take_news(&mut self, mut news: &[u8]) {
        while let Some((first, behind)) = next_news(news) {
            match first {
                News::Trace(pid, name) => self.found(pid, OsStr::from_bytes(name)),
                News::Overflow => self.look(),
                News::Other => {}
            }
            news = behind;
        }
    }

    /// Reads the directory: the kernel had more to tell than it keeps.
    fn look(&mut self) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            pid_of_trace(name.as_bytes()).into_iter().for_each(|pid| self.found(pid, &name));
        }
    }

    /// There is a trace of this process.
    fn found(&mut self, pid: u32, name: &OsStr) {
        if self.kernel_tells {
            self.open(pid);
        }
        self.spools.note(pid, &self.directory.join(name));
    }

    /// Opens a process that has a trace.
    fn open(&mut self, pid: u32) {
        let Some(start) = start_of(pid) else { return };
        if self.processes.len() >= MOST || self.processes.iter().any(|(name, _)| *name == (pid, start)) {
            return;
        }
        // SAFETY: no memory is involved; what comes back is a new descriptor.
        let opened = unsafe { owned(libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32) };
        // Only if it is still the same.
        if let Ok(process) = opened
            && start_of(pid) == Some(start)
        {
            self.processes.push(((pid, start), process));
        }
    }
}

const fn waiting(fd: i32, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

fn read(from: &OwnedFd, into: &mut [u8]) -> Option<usize> {
    let from = from.try_clone().ok()?;
    fs::File::from(from).read(into).ok().filter(|read| *read > 0)
}

/// What the kernel tells of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News<'a> {
    /// There is a trace of this process, under this name.
    Trace(u32, &'a [u8]),
    /// It could not keep all that there was to be told.
    Overflow,
    /// Something else.
    Other,
}

/// The first of some news, and what follows.
fn next_news(news: &[u8]) -> Option<(News<'_>, &[u8])> {
    const HEAD: usize = size_of::<libc::inotify_event>();
    let word = |at: usize| Some(u32::from_ne_bytes(news.get(at..at + 4)?.try_into().ok()?));
    let (mask, length) = (word(4)?, word(HEAD - 4)? as usize);
    let name = news.get(HEAD..HEAD + length)?.split(|byte| *byte == 0).next().unwrap_or_default();
    let first = if mask & libc::IN_Q_OVERFLOW != 0 {
        News::Overflow
    } else {
        pid_of_trace(name).map_or(News::Other, |pid| News::Trace(pid, name))
    };
    Some((first, &news[HEAD + length..]))
}

/// The process whose trace has this name.
fn pid_of_trace(name: &[u8]) -> Option<u32> {
    let numbers = OsStr::from_bytes(name).to_str()?.strip_suffix(".trace")?;
    numbers.split_once('-')?.0.parse().ok()
}

/// When a process started, in ticks since boot, as its trace has it: by the clock of its time namespace, while the kernel tells us by
/// that of ours.
fn start_of(pid: u32) -> Option<u64> {
    let ticks = stat::start_ticks(&fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/time")).ok();
    let (its, ours) = (namespace(&pid.to_string()), namespace("self"));
    if its == ours {
        return Some(ticks);
    }
    let ahead = seconds_ahead(&pid.to_string())?.checked_sub(seconds_ahead("self")?)?;
    ticks.checked_add_signed(ahead.checked_mul(TICKS_PER_SECOND)?)
}

/// What `/proc/PID/stat` counts in.
const TICKS_PER_SECOND: i64 = 100;

/// By how many seconds a process's time since boot is ahead of that of the first time namespace.
fn seconds_ahead(process: &str) -> Option<i64> {
    let offsets = fs::read_to_string(format!("/proc/{process}/timens_offsets")).ok()?;
    offsets.lines().find_map(|line| line.strip_prefix("boottime")?.split_whitespace().next()?.parse().ok())
}

/// The kernel's `struct pidfd_info`, as far as all versions have it.
#[repr(C)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// [`Info::mask`]: how the process ended.
const EXIT: u64 = 1 << 3;

/// What the kernel tells of a process; `None` where it is too old to.
fn info(process: &OwnedFd) -> Option<Info> {
    /// `_IOWR(0xff, 11, struct pidfd_info)`.
    const GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<Info>() as libc::c_ulong) << 16 | 0xff << 8 | 11;
    let mut info = Info { mask: EXIT, cgroup: 0, ids: [0; 11], exit_code: 0 };
    // SAFETY: the kernel writes as much as the request's number says: one `Info`.
    let asked = unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO, ptr::from_mut(&mut info)) };
    (asked == 0).then_some(info)
}

/// Whether this kernel tells anything: on an older one it is not worth the descriptors.
fn kernel_tells() -> bool {
    // SAFETY: no memory is involved; what comes back is a new descriptor.
    let own = unsafe { owned(libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) as i32) };
    own.is_ok_and(|own| info(&own).is_some())
}

/// How a process ended that has.
fn ending_of(process: &OwnedFd) -> Option<Ending> {
    let info = info(process).filter(|info| info.mask & EXIT != 0)?;
    let status = info.exit_code;
    Some(Ending {
        exit_code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        seen_ns: Some(monotonic_ns()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_end_of_a_process_whose_status_another_takes() {
        let folder = tempfile::tempdir().expect("a folder");
        let witness = Witness::start(folder.path()).expect("a witness");
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let process = Process {
            pid: child.id(),
            start_ticks: start_of(child.id()).expect("its start"),
            ..Process::default()
        };
        let descriptors = || {
            let all = fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten();
            let of_child = |text: &String| text.lines().any(|line| line == format!("Pid:\t{}", child.id()));
            all.filter_map(|fd| fs::read_to_string(fd.path()).ok()).filter(of_child).count()
        };
        // The standard library may have one of its own.
        let before = descriptors();
        let draft = folder.path().join("draft");
        fs::write(&draft, "").expect("written");
        fs::rename(&draft, folder.path().join(format!("{}-0.trace", child.id()))).expect("renamed");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while descriptors() == before {
            assert!(std::time::Instant::now() < deadline, "it is not opened");
            thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().expect("killed");
        child.wait().expect("waited");
        let end = witness.seen().0.of(&process);
        let told =
            !fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| is_before_6_15(&release));
        assert_eq!(end.signal, told.then_some(9));
        assert_eq!(end.exit_code, None);
    }

    #[test]
    fn what_the_kernel_could_not_tell_is_looked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        fs::write(folder.path().join(format!("{}-0.trace", child.id())), "").expect("written");
        fs::write(folder.path().join("other"), "").expect("written");
        let event = |mask: u32| [u32::MAX, mask, 0, 0].map(u32::to_ne_bytes).concat();
        let mut watching = Watching::new(folder.path(), watch(folder.path()).expect("a watch"));
        watching.take_news(&event(libc::IN_IGNORED));
        assert!(watching.processes.is_empty());
        watching.take_news(&[event(libc::IN_IGNORED), event(libc::IN_Q_OVERFLOW)].concat());
        let found: Vec<u32> = watching.processes.iter().map(|(name, _)| name.0).collect();
        child.kill().expect("killed");
        child.wait().expect("waited");
        assert_eq!(found, [child.id()]);
    }

    fn is_before_6_15(release: &str) -> bool {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 15)
    }
}
