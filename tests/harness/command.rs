//! Runs a command in a small, fixed environment, with a deadline.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Variables that the tests' own environment hands on; everything else is cleared, so that a native
/// run, a recorded one and one under another tool see the same.
const HANDED_ON: [&str; 6] = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "TMPDIR"];

/// A command to run.
#[derive(Clone, Debug)]
pub struct Cmd {
    argv: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    dir: Option<PathBuf>,
    stdin: Vec<u8>,
    timeout: Duration,
}

/// What a command left when it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub status: ExitStatus,
    /// Its process id.
    pub pid: u32,
    /// How long it took.
    pub wall: Duration,
}

impl Cmd {
    /// A command of these words.
    #[must_use]
    pub fn new<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(|word| word.as_ref().to_owned()).collect(),
            env: Vec::new(),
            dir: None,
            stdin: Vec::new(),
            timeout: Duration::from_secs(240),
        }
    }

    /// Adds a word.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.argv.push(word.as_ref().to_owned());
        self
    }

    /// Adds words.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Takes a variable away.
    #[must_use]
    pub fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), None));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets what standard input holds; nothing by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The words.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// The same surroundings around other words.
    #[must_use]
    pub fn with_argv(&self, argv: Vec<OsString>) -> Self {
        Self { argv, ..self.clone() }
    }

    /// As a [`Command`], in a process group of its own, its streams not yet set up.
    ///
    /// # Panics
    /// When there are no words.
    #[must_use]
    pub fn command(&self) -> Command {
        let (program, args) = self.argv.split_first().expect("a command has words");
        let mut command = Command::new(program);
        command.args(args).env_clear().process_group(0);
        for name in HANDED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs([("LANG", "C.UTF-8"), ("TERM", "dumb"), ("USER", "tester")]);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time.
    #[must_use]
    pub fn run(&self) -> Ran {
        let begin = Instant::now();
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {:?}: {e}", self.argv));
        let mut stdin = child.stdin.take().expect("piped");
        let input = self.stdin.clone();
        // A program need not read what it is given, so a broken pipe is no failure.
        let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
        let stdout = drain(child.stdout.take().expect("piped"));
        let stderr = drain(child.stderr.take().expect("piped"));
        let status = self.wait(&mut child, begin);
        let ran = Ran {
            stdout: stdout.join().expect("a reader of standard output"),
            stderr: stderr.join().expect("a reader of standard error"),
            status: status.unwrap_or_default(),
            pid: child.id(),
            wall: begin.elapsed(),
        };
        feeder.join().expect("a writer of standard input");
        assert!(status.is_some(), "{:?} did not end within {:?}\n{}", self.argv, self.timeout, ran.tail());
        ran
    }

    fn wait(&self, child: &mut Child, begin: Instant) -> Option<ExitStatus> {
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = child.try_wait().expect("a child to wait for") {
                return Some(status);
            }
            if begin.elapsed() > self.timeout {
                kill_group(child.id());
                drop(child.wait());
                return None;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

/// Sends SIGKILL to a whole process group, so that nothing keeps the pipes open.
fn kill_group(leader: u32) {
    signal(&format!("-{leader}"), "KILL");
}

/// Sends a signal (by name, without `SIG`) to a process or, with `-` before it, to a group.
pub fn signal(target: &str, name: &str) {
    let sent = Command::new("kill").args(["-s", name, "--", target]).stderr(Stdio::null()).status();
    assert!(sent.is_ok(), "the `kill` program is needed");
}

/// The only child of a process, once it has one.
///
/// # Panics
/// When the process has ended.
#[must_use]
pub fn only_child(pid: u32) -> String {
    loop {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
        if let Some(child) = children.split_whitespace().next() {
            return child.to_owned();
        }
        thread::yield_now();
    }
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error still counts.
        drop(from.read_to_end(&mut bytes));
        bytes
    })
}

impl Ran {
    /// The exit status as a shell says it: 128+N for signal N.
    ///
    /// # Panics
    /// Never: a process that ended did so by a status or a signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().expect("a status or a signal"))
    }

    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails the test unless the status is 0.
    #[track_caller]
    #[must_use]
    pub fn success(self) -> Self {
        self.with_code(0)
    }

    /// Fails the test unless the status is this.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    #[must_use]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "exit status\n{}", self.tail());
        self
    }

    /// The ends of both streams, for messages.
    #[must_use]
    pub fn tail(&self) -> String {
        let mut text = String::new();
        for (name, bytes) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let end = &bytes[bytes.len().saturating_sub(2000)..];
            let _ = writeln!(text, "--- {name}\n{}", String::from_utf8_lossy(end));
        }
        text
    }
}
