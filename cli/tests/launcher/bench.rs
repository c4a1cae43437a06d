//! A directory to run `memscope-cli` in.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that is going to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of its own for each test.
pub struct Bench(tempfile::TempDir);

impl Bench {
    /// A new directory.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        self.0.path()
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// An executable shell script.
    pub fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set");
        path
    }

    /// `memscope-cli` with these words, split at spaces.
    pub fn memscope(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memscope-cli"));
        command.current_dir(self.root()).args(words.split_whitespace());
        command.env("XDG_CACHE_HOME", self.path("cache")).env_remove("RUST_BACKTRACE");
        command
    }

    /// `memscope-cli run` that records into `rec`, exports nothing and keeps quiet.
    pub fn run(&self, words: &str) -> Command {
        self.memscope(&format!("run --quiet --export none -o rec {words}"))
    }
}

/// Runs to the end.
pub fn output(command: &mut Command) -> Output {
    command.output().expect("memscope-cli starts")
}

/// What was printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command that runs while the test does something to it. Killed at the end, if need be.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    /// Starts it and reads its stdout.
    pub fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("memscope-cli starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The next line of its stdout; empty at its end.
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(3 * PATIENCE) {
            Ok(line) => line.trim_end().to_owned(),
            Err(mpsc::RecvTimeoutError::Disconnected) => String::new(),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no line comes"),
        }
    }

    /// What a shell says about a signal when a `read` has ended. The signal may come after the line that ends one `read`;
    /// then the next line ends the next.
    pub fn answer(&mut self) -> String {
        let deadline = Instant::now() + 3 * PATIENCE;
        while Instant::now() < deadline {
            self.say("\n");
            if let Ok(line) = self.lines.recv_timeout(Duration::from_millis(100)) {
                return line.trim_end().to_owned();
            }
        }
        panic!("no answer comes")
    }

    /// Process id of `memscope-cli`.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Writes to its stdin.
    pub fn say(&mut self, text: &str) {
        self.child.stdin.as_mut().expect("a pipe").write_all(text.as_bytes()).expect("written");
    }

    /// Sends a signal to `memscope-cli` alone.
    pub fn signal(&self, name: &str) {
        kill(name, self.pid());
    }

    /// Waits for its end and gives the exit status.
    pub fn status(mut self) -> i32 {
        wait_until("its end", || self.child.try_wait().expect("waited").is_some());
        self.child.wait().expect("waited").code().expect("an exit status")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process; a negative one means its group.
pub fn kill(signal: &str, pid: i32) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -s {signal} -- {pid}")).status().expect("sh");
    assert!(sent.success(), "kill -s {signal} {pid}");
}

/// The state letter of a process.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}

/// Waits for something that nothing announces.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
