//! Programs that were started but could not be recorded: the notes about them beside the traces.
//!
//! `PID-N.unrecorded` holds strings, each with a NUL behind it: the parent's process id, the time in ns since the Unix
//! epoch, why, the path of the image, and the arguments. An empty one is all that a full disk has taken.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::model::Unrecorded;

/// Larger files are none of ours.
const MOST: u64 = 1 << 20;

/// The notes of the recording in `dir`, in order of time. What cannot be read is left out.
pub fn notes_in(dir: &Path) -> Vec<Unrecorded> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut notes: Vec<Unrecorded> = entries.filter_map(|path| note_at(&path)).collect();
    notes.sort_by_key(|note| (note.start_time, note.pid));
    notes
}

fn note_at(path: &Path) -> Option<Unrecorded> {
    let name = path.file_name()?.to_str()?.strip_suffix(".unrecorded")?;
    let (pid, number) = name.split_once('-')?;
    let (pid, _) = (pid.parse().ok()?, number.parse::<u32>().ok()?);
    let metadata = fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() {
        return None;
    }
    if metadata.len() == 0 {
        let made = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        return Some(of_number(pid, made.as_nanos() as u64));
    }
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(MOST).read_to_end(&mut text).ok()?;
    parse(pid, &text)
}

fn of_number(pid: u32, start_time: u64) -> Unrecorded {
    let reason = "nothing more is known; it seems that no space was left for it".into();
    Unrecorded { pid, parent_pid: 0, start_time, reason, exe: "unknown".into(), args: Vec::new() }
}

fn parse(pid: u32, text: &[u8]) -> Option<Unrecorded> {
    // What was cut short has no NUL behind it, but is shown all the same.
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    let mut strings = text.split(|&byte| byte == 0).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Some(Unrecorded {
        pid,
        parent_pid: strings.next()?.parse().ok()?,
        start_time: strings.next()?.parse().ok()?,
        reason: strings.next()?,
        exe: strings.next()?,
        args: strings.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_in_order_and_others_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
        write("7-1.unrecorded", b"5\x00200\0it is statically linked\0/bin/a b\0a\0\0\xff\0");
        write("9-0.unrecorded", b"7\x00100\0why\0\0");
        write("9-x.unrecorded", b"7\x00100\0why\0\0");
        write("9-1.unrecorded", b"seven\x00100\0why\0\0");
        write("9-2.unrecorded", b"");
        write("9-0.trace", b"7\x00100\0why\0\0");
        let notes = notes_in(dir.path());
        let [first, second, empty] = &notes[..] else { panic!("{notes:?}") };
        assert_eq!((first.pid, first.parent_pid, first.exe.as_str()), (9, 7, ""));
        assert!(first.args.is_empty());
        assert_eq!((second.pid, second.start_time, second.exe.as_str()), (7, 200, "/bin/a b"));
        assert_eq!(second.args, ["a", "", "\u{fffd}"]);
        assert_eq!(second.reason, "it is statically linked");
        assert!(empty.pid == 9 && empty.start_time > 200 && empty.reason.contains("no space"), "{empty:?}");
    }
}
