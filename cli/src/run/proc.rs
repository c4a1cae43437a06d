//! What `/proc` says of other processes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel is given to replace a program, and how often we look: where others want the processor, it may be taken away in
/// the middle of that.
const EXEC_TIME: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The state letter and the parent of a process.
fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(&stat)
}

/// What stands in a `/proc/PID/stat` behind the name, which is in parentheses and may hold anything, parentheses included.
fn behind_the_name(stat: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let end_of_name = stat.iter().rposition(|b| *b == b')')?;
    Some(std::str::from_utf8(&stat[end_of_name + 1..]).ok()?.split_whitespace())
}

fn parse(stat: &[u8]) -> Option<(char, i32)> {
    let mut fields = behind_the_name(stat)?;
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// The state letter in (the beginning of) a `/proc/PID/stat`. Allocates nothing.
pub fn state(stat: &[u8]) -> Option<char> {
    behind_the_name(stat)?.next()?.chars().next()
}

/// Processes that were started to record into this directory, whether they have a trace yet or not: they have its
/// name in their environment, or the library below `preload` in front.
pub fn recording_into(directory: &Path, preload: &Path) -> Vec<u32> {
    let output = [b"MEMSCOPE_OUTPUT=", directory.as_os_str().as_bytes()].concat();
    let library = [b"LD_PRELOAD=", preload.as_os_str().as_bytes(), b"/"].concat();
    let ours = |entry: &[u8]| entry == output || entry.starts_with(&library);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut unknown: Vec<u32> =
        processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect();
    let (mut found, until) = (Vec::new(), Instant::now() + EXEC_TIME);
    loop {
        unknown.retain(|pid| {
            let known = has_entry(*pid, ours);
            found.extend(known.filter(|has| *has).map(|_| *pid));
            known.is_none()
        });
        if unknown.is_empty() || Instant::now() >= until {
            return found;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Whether a process that has not ended was started with such an entry in its environment. `None` while `exec` replaces the program:
/// then neither environment nor arguments are there.
fn has_entry(pid: u32, entry: impl Fn(&[u8]) -> bool) -> Option<bool> {
    let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    let mut environment = read("environ");
    // The kernel's own threads and the dead have no program.
    if environment.is_empty() && fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
        if read("cmdline").is_empty() {
            return None;
        }
        // It may only have come since.
        environment = read("environ");
    }
    Some(environment.split(|byte| *byte == 0).any(entry))
}

/// How to name a process to the user: its id and its name.
pub fn named(pid: u32) -> String {
    match fs::read(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{pid} ({})", String::from_utf8_lossy(name.trim_ascii_end()).escape_debug()),
        Err(_) => pid.to_string(),
    }
}

/// Whether the process is stopped by a signal.
pub fn is_stopped(pid: i32) -> bool {
    matches!(state_and_parent(pid), Some(('T', _)))
}

/// Whether `pid` is `ancestor` or was started by it, directly or through others.
pub fn descends_from(pid: i32, ancestor: i32) -> bool {
    let mut pid = pid;
    while pid > 1 {
        if pid == ancestor {
            return true;
        }
        match state_and_parent(pid) {
            Some((_, parent)) if parent != pid => pid = parent,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{descends_from, is_stopped, parse, recording_into, state};

    #[test]
    fn names_may_hold_anything() {
        assert_eq!(parse(b"12 (a) R 1) S 34 12 0"), Some(('S', 34)));
        assert_eq!(parse(b"12 (\xff)) T 5 1"), Some(('T', 5)));
        assert_eq!(parse(b"12 (cut"), None);
        assert_eq!((state(b"12 (a) R 1) T 3"), state(b"12 (cut")), (Some('T'), None));
    }

    #[test]
    fn who_records_where() {
        let place = format!("/nowhere/{}", std::process::id());
        let mut child =
            Command::new("sleep").arg("100").env("MEMSCOPE_OUTPUT", &place).spawn().expect("sleep");
        // While a process is being replaced by another program, its environment reads as empty.
        let deadline = Instant::now() + Duration::from_secs(60);
        while recording_into(Path::new(&place), Path::new("/none")).is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(recording_into(Path::new(&place), Path::new("/none")), [child.id()]);
        assert!(recording_into(Path::new("/nowhere"), Path::new("/none")).is_empty());
        child.kill().expect("killed");
        child.wait().expect("waited");
        assert!(recording_into(Path::new(&place), Path::new("/none")).is_empty());
    }

    #[test]
    fn descent() {
        let own = std::process::id().cast_signed();
        assert!(descends_from(own, own));
        assert!(!descends_from(own, i32::MAX));
        assert!(!descends_from(0, own));
        let mut child = Command::new("sleep").arg("100").spawn().expect("sleep");
        assert!(descends_from(child.id().cast_signed(), own));
        assert!(!is_stopped(own));
        child.kill().expect("killed");
        child.wait().expect("waited");
    }
}
