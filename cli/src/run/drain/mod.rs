//! `run --no-thread`: the program has no thread of ours, so we write its traces while it runs.
//!
//! One thread here watches the recording's directory; each process image that appears there and lets a drainer come gets
//! another ([`serve`]), which meets the program's threads in the shared memory of its spool ([`meeting`]). Who writes a
//! trace at a time, and how that passes on, is said in `memscope_shared::spool::role`. When the first program has
//! ended we let go of all others: from then on their threads write.

mod meeting;
mod output;
mod samples;
mod serve;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

use self::serve::Served;

/// Most process images that are drained at once; the threads of others write themselves.
const MOST: usize = 200;
/// How often the directory is read where it can't be watched.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

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
        let watch = Watch::new(directory.to_owned(), stopped);
        let thread = thread::Builder::new().name("watch".into());
        let watcher = thread.spawn(move || watch.run()).ok()?;
        Some(Self { stop, watcher })
    }

    /// Takes what there is and lets go of everything.
    pub fn stop(self) {
        drop(self.stop);
        let _ = self.watcher.join();
    }
}

/// The directory, and what is drained of it.
struct Watch {
    directory: PathBuf,
    stopped: PipeReader,
    news: Option<OwnedFd>,
    /// Traces that were looked at.
    seen: HashSet<OsString>,
    serving: Vec<(Arc<Served>, JoinHandle<()>)>,
}

impl Watch {
    fn new(directory: PathBuf, stopped: PipeReader) -> Self {
        let news = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok().filter(|news| {
            inotify::add_watch(news, &directory, WatchFlags::MOVED_TO | WatchFlags::CREATE).is_ok()
        });
        Self { directory, stopped, news, seen: HashSet::new(), serving: Vec::new() }
    }

    fn run(mut self) {
        self.look();
        while !self.wait() {
            if !self.take_news() {
                self.look();
            }
        }
        self.serving.iter().for_each(|(served, _)| served.stop());
        for (_, thread) in self.serving {
            let _ = thread.join();
        }
    }

    /// Waits for something new; true where we are to stop.
    fn wait(&self) -> bool {
        let timeout =
            self.news.is_none().then(|| Timespec { tv_sec: 0, tv_nsec: LOOK_AGAIN.subsec_nanos().into() });
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
        self.serving.retain(|(_, thread)| !thread.is_finished());
        if self.serving.len() >= MOST {
            return;
        }
        let served = Arc::new(Served::default());
        let its = Arc::clone(&served);
        let thread = thread::Builder::new().name("drain".into()).spawn(move || serve::serve(&path, &its));
        self.serving.extend(thread.ok().map(|thread| (served, thread)));
    }
}
