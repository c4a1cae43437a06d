//! Drafts: traces that have no final name yet.
//!
//! A process writes the first frames of its trace under a name that ends in `.new`, so that what is called a trace is
//! never empty. One that is killed before it can rename the draft leaves it, and its shared memory, to us.

use std::fs;
use std::path::Path;

use super::meta::Process;
use super::process::{ImageState, image_state};
use super::read::TraceFile;

/// What a draft's name has more than its trace's.
const SUFFIX: &str = ".new";

/// Gives the drafts of processes that have ended their names, so that they can be completed; those in which nothing can
/// be read are removed. What fails is left as it is.
pub fn adopt_drafts(directory: &Path) {
    for draft in fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = draft.file_name().and_then(|name| name.to_str());
        let Some(trace) = name.and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        let Some((pid, _)) = trace.strip_suffix(".trace").and_then(|numbers| numbers.split_once('-')) else {
            continue;
        };
        let process = TraceFile::open(&draft).ok().and_then(|trace| trace.process().cloned());
        match process {
            Some(process) if !has_ended(&process, directory) => {}
            Some(_) => {
                let name = directory.join(trace);
                if !name.exists() {
                    let _ = fs::rename(&draft, name);
                }
            }
            None if Path::new("/proc").join(pid).exists() => {}
            None => {
                let _ = fs::remove_file(&draft);
            }
        }
    }
}

/// A process that lives may be about to make the shared memory that its draft names.
fn has_ended(process: &Process, directory: &Path) -> bool {
    image_state(process, Some(directory)) == ImageState::Gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_left_over_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let own = format!("{}-0.trace.new", std::process::id());
        for name in ["1073741824-0.trace.new", &own, "other.new", "x.trace.new"] {
            fs::write(path(name), "").unwrap();
        }
        adopt_drafts(folder.path());
        assert!(!path("1073741824-0.trace.new").exists(), "of no process, and empty");
        assert!(path(&own).exists() && path("other.new").exists() && path("x.trace.new").exists());
    }
}
