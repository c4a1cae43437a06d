use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

const PID: u32 = 77;
const TICKS: u64 = 123_456;

/// A spool of `buffers` buffers: (stream, thread, position, committed, taken), words counting up from
/// the position.
fn spool(buffers: &[[u64; 5]]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES + buffers.len() * BUFFER_BYTES];
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(header::MAGIC, MAGIC);
    put(header::VERSION, VERSION);
    put(header::PID, u64::from(PID));
    put(header::START_TICKS, TICKS);
    put(header::BUFFERS, buffers.len() as u64);
    put(header::ENDED_AT, u64::MAX);
    put(header::EXIT_CODE, 9);
    for (i, values) in buffers.iter().enumerate() {
        let at = HEADER_BYTES + i * BUFFER_BYTES;
        let offsets = [buffer::STREAM, buffer::THREAD, buffer::POSITION, buffer::COMMITTED, buffer::TAKEN];
        for (offset, &value) in offsets.iter().zip(values) {
            put(at + offset, value);
        }
        for word in 0..BUFFER_WORDS {
            put(at + BUFFER_HEADER_BYTES + word * 8, values[2].wrapping_add(word as u64));
        }
    }
    bytes
}

fn write(dir: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("spool");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

fn open(path: &Path) -> Result<SpoolFile, SpoolError> {
    let uid = fs::symlink_metadata(path).map_or(0, |m| m.uid());
    SpoolFile::open(path, uid, PID, TICKS)
}

#[test]
fn buffers_and_words_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, &spool(&[[3, 1, 100, 8, 2], [0, 0, 0, 5, 0], [4, 2, 0, BUFFER_WORDS as u64, 0]]));
    let spool = open(&path).unwrap();
    assert_eq!(spool.header().exit_code, 9);
    assert_eq!(spool.header().ended_at, u64::MAX);
    let buffers = spool.buffers().unwrap();
    let expected = SpoolBuffer { index: 0, stream: 3, thread: 1, position: 100, committed: 8, taken: 2 };
    assert_eq!(buffers.len(), 2);
    assert_eq!(buffers[0], expected);
    let mut words = vec![1];
    spool.read_words(&buffers[0], &mut words).unwrap();
    assert_eq!(words, (100..108).collect::<Vec<_>>());
    spool.read_words(&buffers[1], &mut words).unwrap();
    assert_eq!(words.len(), BUFFER_WORDS);
}

#[test]
fn senseless_buffers_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(
        &dir,
        &spool(&[
            [1, 1, 0, BUFFER_WORDS as u64 + 1, 0],
            [1 << 32, 1, 0, 1, 0],
            [1, 1, u64::MAX, 1, 0],
            [1, 1, 0, u64::MAX, 0],
            [1, 1, 7, 4, u64::MAX],
        ]),
    );
    let buffers = open(&path).unwrap().buffers().unwrap();
    assert_eq!(buffers.len(), 1);
    assert_eq!((buffers[0].position, buffers[0].committed, buffers[0].taken), (7, 4, 4));
}

#[test]
fn a_cut_spool_gives_its_whole_buffers() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = spool(&[[1, 1, 0, 4, 0], [1, 1, 4, 4, 0]]);
    let path = write(&dir, &bytes[..bytes.len() - 1]);
    assert_eq!(open(&path).unwrap().buffers().unwrap().len(), 1);
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = spool(&[[1, 1, 0, 4, 0]]);
    let path = write(&dir, &good);
    let uid = fs::metadata(&path).unwrap().uid();

    assert!(matches!(SpoolFile::open(&path, uid + 1, PID, TICKS), Err(SpoolError::Owner)));
    assert!(matches!(SpoolFile::open(&path, uid, PID + 1, TICKS), Err(SpoolError::OtherProcess)));
    assert!(matches!(SpoolFile::open(&path, uid, PID, TICKS + 1), Err(SpoolError::OtherProcess)));
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(open(&path), Err(SpoolError::NotPrivate)));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();

    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(open(&link), Err(SpoolError::Io(_))));
    assert!(open(&dir.path().join("none")).unwrap_err().is_missing());
    assert!(matches!(open(dir.path()), Err(SpoolError::NotPrivate)));

    for (offset, value) in [(header::MAGIC, 0), (header::VERSION, 9)] {
        let mut bytes = good.clone();
        bytes[offset] = value;
        let path = write(&dir, &bytes);
        assert!(matches!(open(&path), Err(SpoolError::NotASpool | SpoolError::Version(9))));
    }
    let path = write(&dir, &good[..100]);
    assert!(matches!(open(&path), Err(SpoolError::NotASpool)));
}
