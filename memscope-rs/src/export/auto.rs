//! Exports that the library makes by itself.

use super::paths::{Files, Paths};
use super::{files, panics};
use crate::error::TrackingResult;
use crate::snapshot::{Ending, View};
use crate::tracker::get_global_tracker;
use crate::{clock, interposer, say, settings, sys, threads};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What was asked for last.
struct Asked {
    paths: Paths,
    /// The process that asked. A forked child is another one, whose end is not the program's.
    pid: u32,
}

/// Held only to copy what is in it: whoever waits for it waits for no more than that.
static ASKED: Mutex<Option<Asked>> = Mutex::new(None);

/// Starts the library: reads the clocks, and the environment.
///
/// With `MEMSCOPE_AUTO_EXPORT=1` it does what [`enable_auto_export`]`(None)` does, unless the program runs with
/// `libmemscope.so`: then the recording is the export. Tracking works without this call too; times of a snapshot then
/// begin with the first variable.
///
/// ```
/// memscope_rs::init();
/// ```
pub fn init() {
    clock::start();
    threads::number();
    #[cfg(feature = "allocator")]
    crate::allocator::note().into_iter().for_each(say::note);
    if settings::auto_export() && !interposer::is_there() {
        enable_auto_export(None);
    }
}

/// Exports everything when the program ends: by a return from `main`, by `exit`, by `quick_exit`. What lives then is
/// flushed with its lifetime up to the end (`freed_by: "exit"`).
///
/// When a thread panics, a snapshot is exported beside it as `memscope_panic_snapshot`, in which everything that lives is
/// flushed as well; then the panic hook runs that was there before. If the program goes on, its variables do too,
/// and the final export has their real ends.
///
/// The path is `export_path`, else `MEMSCOPE_EXPORT_PATH`, else `memscope_final_snapshot`; the extension is added where it is
/// missing. `MEMSCOPE_EXPORT_FORMAT` (`json`, `html`, `both`) says what is made. Another call changes the path.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("my_memory_analysis.json");
/// # let path = path.to_str();
/// memscope_rs::init();
/// memscope_rs::enable_auto_export(path); // Some("my_memory_analysis.json")
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn enable_auto_export(export_path: Option<&str>) {
    clock::start();
    threads::number();
    let new = Paths::new(export_path.map(Path::new));
    // What was said before holds no more.
    let instead = if paths().is_some() { " instead" } else { "" };
    for path in new.at_end().all() {
        say::note(&format!("exporting to {} when the program ends{instead}", path.display()));
    }
    *ASKED.lock().unwrap_or_else(PoisonError::into_inner) =
        Some(Asked { paths: new, pid: std::process::id() });
    panics::watch();
    sys::at_exit(at_exit);
}

/// The paths of this process; `None` where it has not asked for exports.
pub fn paths() -> Option<Paths> {
    let asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    asked.as_ref().filter(|asked| asked.pid == std::process::id()).map(|asked| asked.paths.clone())
}

fn at_exit(status: Option<i32>) {
    if let Some(paths) = paths() {
        export(&paths.at_end(), Ending::Exit(status));
    }
}

/// Writes the files and says so.
pub fn export(files: &Files, ending: Ending) {
    let view = get_global_tracker().view(ending);
    match write(&view, files) {
        Ok(()) => {
            let count = view.len();
            let plural = if count == 1 { "" } else { "s" };
            for path in files.all() {
                say::note(&format!("exported {count} variable{plural} to {}", path.display()));
            }
        }
        Err(error) => say::error(&error.to_string()),
    }
}

fn write(view: &View<'_>, files: &Files) -> TrackingResult<()> {
    files.json().map_or(Ok(()), |path| files::write_json(view, &path))?;
    files.html().map_or(Ok(()), |path| files::write_html(view, &path))
}

/// Exports a snapshot of this moment by a name, beside the final export; live variables have their lifetime so far. Returns
/// the path of the JSON, or of the report where only that is made.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("final.json");
/// # memscope_rs::enable_auto_export(path.to_str());
/// let value = memscope_rs::track_var!(vec![1, 2, 3]);
/// let path = memscope_rs::snapshot("lifecycle_snapshot_1_all_alive")?;
/// assert!(path.ends_with("lifecycle_snapshot_1_all_alive.json"));
/// # drop(value);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TrackingError::Export`](crate::TrackingError::Export).
pub fn snapshot(name: &str) -> TrackingResult<PathBuf> {
    let files = paths().unwrap_or_else(|| Paths::new(None)).named(name);
    write(&get_global_tracker().view(Ending::Running), &files)?;
    Ok(files.all().next().unwrap_or_default())
}
