//! Processes of other pid namespaces: which number they have for whoever looks.
//!
//! A process knows itself by its number in its own namespace (`unshare --pid`, a container). Seen from a namespace above it has another
//! number; from one beside it, it can't be seen at all.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::meta::Process;

/// The inode of the namespace that all others are below (`PROC_PID_INIT_INO` of the kernel).
const INITIAL: u64 = 0xefff_fffc;
/// The recording's mark of its first process: its id, start and namespace.
const FIRST: &str = ".first";

/// Where a process is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// In this folder of `/proc`, if it lives.
    At(PathBuf),
    /// Nowhere: it has ended.
    Nowhere,
    /// It can't be seen from here, whether it lives or not.
    Hidden,
}

/// Whoever looks for processes.
#[derive(Clone, Debug)]
pub struct Onlooker {
    proc: PathBuf,
    /// Our own namespace; 0 where it can't be told.
    namespace: u64,
    /// The numbers in `/proc` are those of our namespace.
    direct: bool,
}

impl Onlooker {
    /// This process.
    pub fn here() -> Self {
        Self::at(PathBuf::from("/proc"), std::process::id())
    }

    /// The same with another `/proc` and as another process.
    fn at(proc: PathBuf, own: u32) -> Self {
        let namespace = namespace_of(&proc.join("self")).unwrap_or(0);
        let shown = fs::read_link(proc.join("self"));
        let direct = shown.map_or(true, |shown| shown.as_os_str() == own.to_string().as_str());
        Self { proc, namespace, direct }
    }

    /// Where `process`, whose recording lies in `directory`, is to be found.
    pub fn find(&self, process: &Process, directory: Option<&Path>) -> Sight {
        let same = process.namespace == 0 || self.namespace == 0 || process.namespace == self.namespace;
        if same && self.direct {
            return Sight::At(self.proc.join(process.pid.to_string()));
        }
        let processes = fs::read_dir(&self.proc).into_iter().flatten().flatten().map(|entry| entry.path());
        match processes.filter(|dir| is_number(dir)).find(|dir| is_it(dir, process)) {
            Some(dir) => Sight::At(dir),
            None if same || self.sees_below(directory) => Sight::Nowhere,
            None => Sight::Hidden,
        }
    }

    /// Whether all processes of a recording are in our namespace or below it: no process can leave its namespace
    /// for one that is not below.
    fn sees_below(&self, directory: Option<&Path>) -> bool {
        let first = || first_namespace(directory?);
        self.namespace == INITIAL || self.namespace != 0 && first() == Some(self.namespace)
    }
}

/// The namespace of a recording's first process.
fn first_namespace(directory: &Path) -> Option<u64> {
    let text = fs::read_to_string(directory.join(FIRST)).ok()?;
    text.split_ascii_whitespace().nth(2)?.parse().ok()
}

fn is_number(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

fn namespace_of(dir: &Path) -> Option<u64> {
    fs::metadata(dir.join("ns/pid")).ok().map(|metadata| metadata.ino())
}

/// Whether the process at `dir` has the number of `process` in its own namespace, its start and, as far as we may ask, its
/// namespace.
fn is_it(dir: &Path, process: &Process) -> bool {
    super::process::may_be(dir, process)
        && innermost_pid(dir) == Some(process.pid)
        && namespace_of(dir).is_none_or(|namespace| process.namespace == 0 || namespace == process.namespace)
}

/// The number of a process in its own namespace: the last of the line `NSpid` of its status.
fn innermost_pid(dir: &Path) -> Option<u32> {
    let status = fs::read(dir.join("status")).ok()?;
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A `/proc` with us (500) in it, and a process that has number 7 in a namespace below.
    fn fake(shown: &str) -> (tempfile::TempDir, Process) {
        let proc = tempfile::tempdir().unwrap();
        for (pid, inner) in [("500", "500"), ("42", "42\t7")] {
            fs::create_dir_all(proc.path().join(pid).join("ns")).unwrap();
            fs::write(proc.path().join(pid).join("ns/pid"), "").unwrap();
            fs::write(proc.path().join(pid).join("status"), format!("Name:\tx\nNSpid:\t{inner}\n")).unwrap();
            let stat = format!("{pid} (x) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 9876 1 2 3");
            fs::write(proc.path().join(pid).join("stat"), stat).unwrap();
        }
        fs::create_dir_all(proc.path().join("self/ns")).ok();
        fs::remove_dir_all(proc.path().join("self")).unwrap();
        symlink(shown, proc.path().join("self")).unwrap();
        let namespace = namespace_of(&proc.path().join("42")).unwrap();
        (proc, Process { pid: 7, start_ticks: 9876, namespace, ..Process::default() })
    }

    #[test]
    fn a_process_below_has_another_number_here() {
        let (proc, process) = fake("500");
        let us = Onlooker::at(proc.path().to_owned(), 500);
        assert!(us.direct && us.namespace != 0);
        assert_eq!(us.find(&process, None), Sight::At(proc.path().join("42")));
        let later = Process { start_ticks: 9877, ..process.clone() };
        assert_eq!(us.find(&later, None), Sight::Hidden, "there may be one beside us");
        let recording = tempfile::tempdir().unwrap();
        fs::write(recording.path().join(FIRST), format!("500 9876 {}", us.namespace)).unwrap();
        assert_eq!(us.find(&later, Some(recording.path())), Sight::Nowhere);
        let initial = Onlooker { namespace: INITIAL, ..us };
        assert_eq!(initial.find(&later, None), Sight::Nowhere);
        let ours = Process { pid: 500, namespace: INITIAL, ..process };
        assert_eq!(initial.find(&ours, None), Sight::At(proc.path().join("500")));
    }

    #[test]
    fn a_proc_of_a_namespace_above_is_searched() {
        let (proc, process) = fake("42");
        let us = Onlooker { namespace: process.namespace, ..Onlooker::at(proc.path().to_owned(), 9) };
        assert!(!us.direct);
        assert_eq!(us.find(&process, None), Sight::At(proc.path().join("42")));
        assert_eq!(us.find(&Process { pid: 8, ..process }, None), Sight::Nowhere);
    }
}
