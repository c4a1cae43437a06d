//! Records a command, through `memscope-cli run` or by a hand-set `LD_PRELOAD`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::artifacts;
use crate::command::{Cmd, Ran};
use crate::folder::TempDir;
use crate::snapshot::Snapshot;

/// A recording to make.
#[derive(Clone, Debug)]
pub struct Record {
    command: Cmd,
    options: Vec<OsString>,
    by_hand: bool,
    allocations: &'static str,
}

/// A recording that was made.
#[derive(Debug)]
pub struct Recorded {
    /// A fresh folder; the recording is `rec` in it.
    pub folder: TempDir,
    /// How the run ended.
    pub ran: Ran,
    by_hand: bool,
}

impl Record {
    /// Of these words, through `memscope-cli run --quiet --export json --allocations all`.
    #[must_use]
    pub fn new<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::of(Cmd::new(argv))
    }

    /// Of a command with its surroundings.
    #[must_use]
    pub const fn of(command: Cmd) -> Self {
        Self { command, options: Vec::new(), by_hand: false, allocations: "all" }
    }

    /// Through `LD_PRELOAD` and `MEMSCOPE_AUTO_EXPORT=1` instead.
    #[must_use]
    pub const fn by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    /// Adds an option of `run`.
    #[must_use]
    pub fn option(mut self, word: impl AsRef<OsStr>) -> Self {
        self.options.push(word.as_ref().to_owned());
        self
    }

    /// Sets which allocations the JSON lists.
    #[must_use]
    pub const fn allocations(mut self, which: &'static str) -> Self {
        self.allocations = which;
        self
    }

    /// Adds a word to the command.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command = self.command.arg(word);
        self
    }

    /// Sets a variable of the command.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command = self.command.env(name, value);
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.command = self.command.timeout(timeout);
        self
    }

    /// The command line that makes the recording in `folder`.
    #[must_use]
    pub fn command_in(&self, folder: &Path) -> Cmd {
        let rec = folder.join("rec");
        if self.by_hand {
            return self
                .command
                .clone()
                .env("LD_PRELOAD", artifacts::library())
                .env("MEMSCOPE_CLI", artifacts::cli())
                .env("MEMSCOPE_OUTPUT", &rec)
                .env("MEMSCOPE_AUTO_EXPORT", "1")
                .env("MEMSCOPE_EXPORT_PATH", folder.join("by-hand"))
                .env("MEMSCOPE_QUIET", "1")
                .env("RUST_BACKTRACE", "1");
        }
        let mut argv: Vec<OsString> = vec![artifacts::cli().into()];
        argv.extend(
            ["run", "--quiet", "--export", "json", "--allocations", self.allocations, "-o"]
                .map(OsString::from),
        );
        argv.push(rec.into());
        argv.extend(self.options.iter().cloned());
        argv.push("--".into());
        argv.extend(self.command.argv().iter().cloned());
        self.command.with_argv(argv)
    }

    /// Makes it, whatever the program's exit status.
    ///
    /// # Panics
    /// When the command cannot be started or does not end.
    #[must_use]
    pub fn run(&self) -> Recorded {
        let folder = TempDir::new().expect("a fresh folder");
        let ran = self.command_in(folder.path()).run();
        Recorded { folder, ran, by_hand: self.by_hand }
    }

    /// Makes it; the program must end with 0.
    #[track_caller]
    #[must_use]
    pub fn success(&self) -> Recorded {
        self.with_code(0)
    }

    /// Makes it; the program must end with this.
    ///
    /// # Panics
    /// When it ends with another.
    #[track_caller]
    #[must_use]
    pub fn with_code(&self, code: i32) -> Recorded {
        let recorded = self.run();
        assert_eq!(recorded.ran.code(), code, "exit status\n{}", recorded.ran.tail());
        recorded
    }
}

impl Recorded {
    /// The recording's directory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("rec")
    }

    /// The snapshot that the run left, checked.
    #[track_caller]
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let path = if self.by_hand {
            self.folder.path().join("by-hand.json")
        } else {
            self.dir().join("snapshot.json")
        };
        Snapshot::load(&path)
    }

    /// The snapshot of a run that recorded one process image, checked and complete.
    ///
    /// # Panics
    /// When there is more than one, or it is not complete.
    #[track_caller]
    #[must_use]
    pub fn process(&self) -> crate::Process {
        let mut snapshot = self.snapshot();
        assert!(snapshot.complete, "incomplete: {:?}", snapshot.incomplete_reason);
        assert_eq!(snapshot.processes.len(), 1, "one process image");
        snapshot.processes.remove(0)
    }

    /// Paths of the trace files, sorted.
    ///
    /// # Panics
    /// When the directory cannot be read.
    #[must_use]
    pub fn traces(&self) -> Vec<PathBuf> {
        traces_in(&self.dir())
    }
}

/// Paths of the trace files of a recording, sorted.
///
/// # Panics
/// When the directory cannot be read.
#[must_use]
pub fn traces_in(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "trace"))
        .collect();
    paths.sort();
    paths
}

/// `memscope-cli analyze INPUT OUTPUT` with these options.
#[must_use]
pub fn analyze(input: &Path, output: &Path, options: &[&str]) -> Ran {
    Cmd::new([artifacts::cli().as_os_str(), OsStr::new("analyze")]).args(options).arg(input).arg(output).run()
}

/// `memscope-cli report INPUT`.
#[must_use]
pub fn report(input: &Path) -> Ran {
    Cmd::new([artifacts::cli().as_os_str(), OsStr::new("report"), input.as_os_str()]).run()
}
