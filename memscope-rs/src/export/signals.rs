//! Exports at signals, where they are asked for.

use crate::error::TrackingResult;

/// Exports on SIGTERM and SIGINT too, and then lets happen what would have happened without us: the program ends by
/// the signal, or its own handler runs, if it was installed before this call. A signal that is ignored stays ignored.
///
/// A thread of ours waits for them, so the export may do whatever exports do. Where to it exports says
/// [`enable_auto_export`](crate::enable_auto_export).
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("analysis.json");
/// # let path = path.to_str();
/// memscope_rs::enable_auto_export(path); // Some("analysis.json")
/// memscope_rs::export_on_signals()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TrackingError::Setup`](crate::TrackingError::Setup) where the system gives no pipe or thread, or has no signals.
pub fn export_on_signals() -> TrackingResult<()> {
    watch()
}

#[cfg(unix)]
fn watch() -> TrackingResult<()> {
    use super::auto;
    use crate::error::TrackingError;
    use crate::snapshot::Ending;
    use crate::sys;
    use std::sync::atomic::{AtomicBool, Ordering};

    static WATCHED: AtomicBool = AtomicBool::new(false);
    if WATCHED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    let ended = |signal| {
        if let Some(paths) = auto::paths() {
            auto::export(&paths.at_end(), Ending::Signal(signal));
        }
    };
    sys::watch_signals(&[libc::SIGTERM, libc::SIGINT], ended)
        .map_err(|source| TrackingError::Setup { what: "watch signals", source })
}

#[cfg(not(unix))]
fn watch() -> TrackingResult<()> {
    let source = std::io::ErrorKind::Unsupported.into();
    Err(crate::error::TrackingError::Setup { what: "watch signals", source })
}
