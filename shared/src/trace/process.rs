//! Whether the process image that a trace is of still runs.
//!
//! A process is known by its number and its start time. `exec` changes neither, so an image counts as
//! running only as long as the process has that image's spool mapped. In another pid namespace it has another number
//! ([`super::namespace`]).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::meta::Process;
use super::namespace::{Onlooker, Sight};
use crate::stat;

/// What became of a process image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// It runs, here under this process id.
    Running(u32),
    /// The process lives, but as another image.
    Replaced,
    /// The process has ended.
    Gone,
    /// The process can't be seen from our pid namespace.
    Hidden,
}

/// What became of the image of `process`, whose trace lies in `directory`.
#[must_use]
pub fn image_state(process: &Process, directory: Option<&Path>) -> ImageState {
    match Onlooker::here().find(process, directory) {
        Sight::At(dir) => image_state_at(&dir, process),
        Sight::Nowhere => ImageState::Gone,
        Sight::Hidden => ImageState::Hidden,
    }
}

/// The same of the process that has this folder of `/proc`.
fn image_state_at(dir: &Path, process: &Process) -> ImageState {
    let name = dir.file_name().and_then(|name| name.to_str());
    let running = ImageState::Running(name.and_then(|name| name.parse().ok()).unwrap_or(process.pid));
    if !may_be(dir, process) {
        return ImageState::Gone;
    }
    let threads = living_threads(dir);
    if threads.is_empty() {
        return ImageState::Gone;
    }
    if process.spool.is_empty() {
        return running;
    }
    // Each thread's file says the same, but that of one that is ending is empty.
    let maps = threads.iter().map(|thread| fs::read(thread.join("maps")));
    for maps in maps {
        match maps {
            Ok(maps) if maps.is_empty() => {}
            Ok(maps) if maps_spool(&maps, &process.spool) => return running,
            Ok(_) => return ImageState::Replaced,
            // It may be another user's: better to believe that it runs.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return running,
            Err(_) => {}
        }
    }
    ImageState::Gone
}

/// What we need of `/proc/PID/stat`.
struct Stat {
    state: u8,
    start_ticks: u64,
}

/// Whether the process of this folder of `/proc` may be this one, by its start.
pub(super) fn may_be(dir: &Path, process: &Process) -> bool {
    read_stat(dir).is_some_and(|stat| {
        // A process that had no `/proc` doesn't know when it started.
        let is_known = process.start_ticks != 0 && !counts_time_otherwise(dir);
        !is_known || stat.start_ticks == process.start_ticks
    })
}

/// Whether a process is in another time namespace than we: the kernel tells each the start by the time of whoever asks.
fn counts_time_otherwise(dir: &Path) -> bool {
    let namespace = |dir: &Path| fs::metadata(dir.join("ns/time")).ok().map(|metadata| metadata.ino());
    let (its, ours) = (namespace(dir), namespace(Path::new("/proc/self")));
    its.is_some() && ours.is_some() && its != ours
}

fn read_stat(dir: &Path) -> Option<Stat> {
    parse_stat(&fs::read(dir.join("stat")).ok()?)
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    Some(Stat { state: *stat::field(text, 3)?.first()?, start_ticks: stat::start_ticks(text)? })
}

/// Folders of the threads that have not ended: the main thread may end long before others.
fn living_threads(dir: &Path) -> Vec<PathBuf> {
    let Ok(tasks) = fs::read_dir(dir.join("task")) else { return Vec::new() };
    let alive =
        |path: &PathBuf| read_stat(path).is_some_and(|stat| !matches!(stat.state, b'Z' | b'X' | b'x'));
    tasks.flatten().map(|task| task.path()).filter(alive).collect()
}

/// Whether `maps` lists the file at `spool`, by path or by device and inode.
fn maps_spool(maps: &[u8], spool: &[u8]) -> bool {
    let path = Path::new(std::ffi::OsStr::from_bytes(spool));
    let identity = fs::symlink_metadata(path).ok().map(|m| {
        let (major, minor) = (rustix::fs::major(m.dev()), rustix::fs::minor(m.dev()));
        (format!("{major:02x}:{minor:02x}"), m.ino().to_string())
    });
    maps.split(|&b| b == b'\n').any(|line| {
        // Address, rights, offset, device, inode, path.
        let mut fields = line.splitn(6, |&b| b == b' ').skip(3);
        let (Some(device), Some(inode)) = (fields.next(), fields.next()) else { return false };
        let same_file =
            identity.as_ref().is_some_and(|(d, i)| device == d.as_bytes() && inode == i.as_bytes());
        same_file || fields.next().is_some_and(|name| is_path(name.trim_ascii_start(), spool))
    })
}

/// Whether the last column of a line in `maps` names `path`; a file that was removed has a suffix.
fn is_path(column: &[u8], path: &[u8]) -> bool {
    let column = column.strip_suffix(b" (deleted)").unwrap_or(column);
    let mut escaped = Vec::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'\n' => escaped.extend_from_slice(b"\\012"),
            _ => escaped.push(byte),
        }
    }
    column == escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "(a) b (c d) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3";

    fn fake(threads: &[(u32, &str, &str)]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        let write = |dir: PathBuf, stat: &str, maps: &str| {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("stat"), stat).unwrap();
            fs::write(dir.join("maps"), maps).unwrap();
        };
        write(proc.path().join("42"), threads[0].1, threads[0].2);
        for (tid, stat, maps) in threads {
            write(proc.path().join("42/task").join(tid.to_string()), stat, maps);
        }
        proc
    }

    fn state(threads: &[(u32, &str, &str)]) -> ImageState {
        let process =
            Process { pid: 42, start_ticks: 987_654, spool: b"/x/a b\nc".to_vec(), ..Process::default() };
        image_state_at(&fake(threads).path().join("42"), &process)
    }

    const MAPS: &str = "7f00-7f01 rw-s 00000000 00:1b 5 /x/other\n7f02-7f03 rw-s 0 00:1b 6    /x/a b\\012c\n";

    #[test]
    fn names_with_parentheses() {
        let stat = parse_stat(format!("42 {STAT}").as_bytes()).unwrap();
        assert_eq!((stat.state, stat.start_ticks), (b'S', 987_654));
        for cut in 0..STAT.len() {
            let _ = parse_stat(&STAT.as_bytes()[..cut]);
        }
    }

    #[test]
    fn states() {
        let zombie = STAT.replace(") S", ") Z");
        assert_eq!(state(&[(42, STAT, MAPS)]), ImageState::Running(42));
        assert_eq!(state(&[(42, STAT, &MAPS.replace("c\n", "c (deleted)\n"))]), ImageState::Running(42));
        assert_eq!(state(&[(42, STAT, "1-2 r-xp 0 00:00 0 /x/a b\\012cd\n")]), ImageState::Replaced);
        assert_eq!(state(&[(42, &STAT.replace("987654", "987655"), MAPS)]), ImageState::Gone);
        assert_eq!(state(&[(42, &zombie, "")]), ImageState::Gone);
        assert_eq!(state(&[(42, &zombie, ""), (43, STAT, MAPS)]), ImageState::Running(42));
        assert_eq!(state(&[(42, &zombie, ""), (43, &zombie, "")]), ImageState::Gone);
    }

    #[test]
    fn this_very_process() {
        let spool = tempfile::NamedTempFile::new().unwrap();
        let pid = std::process::id();
        let start_ticks = read_stat(Path::new("/proc/self")).unwrap().start_ticks;
        let path = spool.path().as_os_str().as_bytes().to_vec();
        let process = Process { pid, start_ticks, spool: path, ..Process::default() };
        let state = |process: &Process| image_state(process, None);
        assert_eq!(state(&process), ImageState::Replaced);
        let running = ImageState::Running(pid);
        assert_eq!(state(&Process { spool: Vec::new(), ..process.clone() }), running);
        assert_eq!(state(&Process { spool: Vec::new(), start_ticks: 0, ..process.clone() }), running);
        let exe = fs::read_link("/proc/self/exe").unwrap().into_os_string().into_encoded_bytes();
        assert_eq!(state(&Process { spool: exe, ..process.clone() }), running);
        assert_eq!(state(&Process { start_ticks: start_ticks + 1, ..process }), ImageState::Gone);
    }
}
