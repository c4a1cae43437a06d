//! Files that appear whole or not at all.

use crate::error::{TrackingError, TrackingResult};
use crate::snapshot::{Made, View};
use memscope_report::html;
use memscope_report::json::{SnapshotWriter, Stacks, Style};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Writes the snapshot JSON of a view.
pub fn write_json(view: &View<'_>, path: &Path) -> TrackingResult<()> {
    let made = Made::of(view);
    write(path, |out| json(&made, out))
}

/// Writes the HTML report of a view.
pub fn write_html(view: &View<'_>, path: &Path) -> TrackingResult<()> {
    let made = Made::of(view);
    write(path, |out| html::write(&made.snapshot, out))
}

fn json(made: &Made<'_, '_>, out: &mut impl Write) -> io::Result<()> {
    let mut writer = SnapshotWriter::new(out, &made.snapshot, Style::default())?;
    for process in &made.snapshot.processes {
        let stacks = Stacks::of(process);
        writer.begin_process(process)?;
        for row in made.rows() {
            writer.allocation(&row, &stacks)?;
        }
        writer.end_process(process)?;
    }
    writer.finish().map(drop)
}

/// Writes beside the place first, under a name that no other export uses.
fn write(path: &Path, contents: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> TrackingResult<()> {
    let failed = |error| TrackingError::export(path, error);
    let part = part_of(path).ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
    let written = write_part(&part, contents).and_then(|()| fs::rename(&part, path));
    written.map_err(|error| {
        let _it_may_not_be_there = fs::remove_file(&part);
        failed(error)
    })
}

fn write_part(part: &Path, contents: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 18, File::create_new(part)?);
    contents(&mut out)?;
    out.flush()
}

fn part_of(path: &Path) -> Option<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(format!(".memscope-{}-{number}-", std::process::id()));
    name.push(path.file_name()?);
    name.push(".part");
    Some(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Ending;
    use crate::store::Store;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new();
        let view = View::new(&store, Ending::Running);
        let path = folder.path().join("snapshot.json");
        write_json(&view, &path).unwrap();
        write_json(&view, &path).unwrap();
        write_html(&view, &folder.path().join("report.html")).unwrap();
        let failed = write(&path, |_| Err(io::ErrorKind::StorageFull.into()));
        assert!(matches!(failed, Err(TrackingError::Export { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(serde_json::from_slice::<serde_json::Value>(&fs::read(&path).unwrap()).is_ok());
        assert!(write_json(&view, &folder.path().join("missing/snapshot.json")).is_err());
        assert!(write_json(&view, Path::new("/")).is_err());
    }
}
