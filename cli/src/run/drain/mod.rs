//! `run --no-thread`: the program has no thread of ours, so we write its traces while it runs.
//!
//! One thread here watches the recording's directory; each process image that appears there and lets a drainer come gets
//! another ([`serve`]), which meets the program's threads in the shared memory of its spool ([`meeting`]). Who writes a
//! trace at a time, and how that passes on, is said in `memscope_shared::spool::role`. When the first program has
//! ended we let go of all others: from then on their threads write.

mod faults;
mod meeting;
mod samples;
mod serve;
mod trace;

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

use self::serve::Served;
use crate::output;

/// Most process images that are drained at once; the threads of others write themselves until one of these has ended.
const MOST: usize = 200;
/// Most that wait for that.
const MOST_WAITING: usize = 10_000;
/// How often the directory is read where it can't be watched.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often it is asked whether one has ended, where others wait for that.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long the end waits for those who drain: a disk that doesn't answer must not keep us.
const PATIENCE: Duration = Duration::from_secs(20);
/// What drains a process image.
type Serve = fn(&Path, &Served);

/// All that is drained, until it is told to stop.
#[derive(Debug)]
pub struct Draining {
    /// Closed, it tells the watching thread to stop.
    stop: PipeWriter,
    watcher: JoinHandle<()>,
}

impl Draining {
    /// Begins to drain what records into this directory. `None` where we can't: then the program's threads write.
    pub fn start(directory: &Path) -> Option<Self> {
        let (stopped, stop) = io::pipe().ok()?;
        let watch = Watch::new(directory.to_owned(), stopped, MOST, serve::serve);
        let thread = thread::Builder::new().name("watch".into());
        let watcher = thread.spawn(move || watch.run()).ok()?;
        Some(Self { stop, watcher })
    }

    /// Takes what there is and lets go of everything.
    pub fn stop(self) {
        if !self.stop_within(PATIENCE) {
            output::say(format_args!(
                "run --no-thread: not all that was recorded could be written within {} s: run `memscope-cli analyze` on \
                 the recording once its disk answers",
                PATIENCE.as_secs()
            ));
        }
    }

    /// The same; false where it takes longer.
    fn stop_within(self, patience: Duration) -> bool {
        drop(self.stop);
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(100);
        while !self.watcher.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
        let _ = self.watcher.join();
        true
    }
}

/// The directory, and what is drained of it.
struct Watch {
    directory: PathBuf,
    stopped: PipeReader,
    news: Option<OwnedFd>,
    /// Traces that were looked at.
    seen: HashSet<OsString>,
    /// Those for which there was no room.
    waiting: VecDeque<PathBuf>,
    most: usize,
    serve: Serve,
    serving: Vec<(Arc<Served>, JoinHandle<()>)>,
}

impl Watch {
    fn new(directory: PathBuf, stopped: PipeReader, most: usize, serve: Serve) -> Self {
        let news = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok().filter(|news| {
            inotify::add_watch(news, &directory, WatchFlags::MOVED_TO | WatchFlags::CREATE).is_ok()
        });
        let (seen, waiting, serving) = (HashSet::new(), VecDeque::new(), Vec::new());
        Self { directory, stopped, news, seen, waiting, most, serve, serving }
    }

    fn run(mut self) {
        self.look();
        while !self.wait() {
            if !self.take_news() {
                self.look();
            }
            self.serve_waiting();
        }
        for (served, thread) in &self.serving {
            served.stop();
            thread.thread().unpark();
        }
        for (_, thread) in self.serving {
            let _ = thread.join();
        }
    }

    /// Waits for something new; true where we are to stop.
    fn wait(&self) -> bool {
        let again = match (self.news.is_none(), self.waiting.is_empty()) {
            (true, _) => Some(LOOK_AGAIN),
            (false, false) => Some(ASK_AGAIN),
            (false, true) => None,
        };
        let timeout = again.map(|time| Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() });
        let mut fds = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        fds.extend(self.news.iter().map(|news| PollFd::new(news, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => !fds[0].revents().is_empty(),
            Err(error) => error != rustix::io::Errno::INTR,
        }
    }

    /// Takes what the kernel tells of the directory; false where that is not everything.
    fn take_news(&mut self) -> bool {
        let mut names = Vec::new();
        let Some(news) = &self.news else { return false };
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(news, &mut room);
        while let Ok(event) = reader.next() {
            let Some(name) = event.file_name() else { return false };
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
        }
        names.into_iter().for_each(|name| self.found(name));
        true
    }

    /// Reads the directory.
    fn look(&mut self) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            self.found(entry.file_name());
        }
    }

    fn found(&mut self, name: OsString) {
        let path = self.directory.join(&name);
        if path.extension() != Some(OsStr::new("trace")) || !self.seen.insert(name) {
            return;
        }
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back(path);
        }
        self.serve_waiting();
    }

    /// Begins with those that wait, as far as there is room.
    fn serve_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.serving.retain(|(_, thread)| !thread.is_finished());
        while self.serving.len() < self.most {
            let Some(path) = self.waiting.pop_front() else { return };
            let served = Arc::new(Served::default());
            let (its, serve) = (Arc::clone(&served), self.serve);
            let thread = thread::Builder::new().name("drain".into()).spawn(move || serve(&path, &its));
            self.serving.extend(thread.ok().map(|thread| (served, thread)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drains until it is told to stop, or its trace has gone; says so beside it.
    fn fake(trace: &Path, served: &Served) {
        fs::write(trace.with_extension("begun"), "").expect("written");
        while trace.exists() && !served.is_stopped() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn never(trace: &Path, _: &Served) {
        fs::write(trace.with_extension("begun"), "").expect("written");
        while trace.exists() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn start(directory: &Path, most: usize, serve: Serve) -> Draining {
        let (stopped, stop) = io::pipe().expect("a pipe");
        let watch = Watch::new(directory.to_owned(), stopped, most, serve);
        Draining { stop, watcher: thread::spawn(move || watch.run()) }
    }

    fn wait_for(path: &Path) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !path.exists() {
            assert!(Instant::now() < deadline, "{} does not come", path.display());
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_found_no_room_comes_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("1-0.trace"), "").expect("written");
        let draining = start(folder.path(), 1, fake);
        wait_for(&path("1-0.begun"));
        fs::write(path("2-0.trace"), "").expect("written");
        thread::sleep(2 * ASK_AGAIN);
        assert!(!path("2-0.begun").exists(), "there is no room");
        fs::remove_file(path("1-0.trace")).expect("removed");
        wait_for(&path("2-0.begun"));
        assert!(draining.stop_within(Duration::from_secs(60)));
    }

    #[test]
    fn the_end_does_not_wait_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let trace = folder.path().join("1-0.trace");
        fs::write(&trace, "").expect("written");
        let draining = start(folder.path(), 1, never);
        wait_for(&trace.with_extension("begun"));
        assert!(!draining.stop_within(Duration::from_millis(50)));
        fs::remove_file(trace).expect("removed");
    }
}
