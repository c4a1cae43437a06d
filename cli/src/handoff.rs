//! The folder by which children with an environment of their own find the recording's settings.
//!
//! The library makes it (`recorder/src/start/handoff.rs`): `.preload` in the recording, or where that points to. It is
//! taken away when no process of the recording runs any more.

use std::fs;
use std::path::{Path, PathBuf};

const FOLDER: &str = ".preload";
/// All that the library puts there.
const FILES: [&str; 2] = ["libmemscope.so", "settings"];

/// The folder of the recording in `directory`.
pub fn folder(directory: &Path) -> PathBuf {
    let folder = directory.join(FOLDER);
    fs::read_link(&folder).unwrap_or(folder)
}

/// Removes it. Where it holds something else, it stays.
pub fn remove(directory: &Path) {
    let folder = folder(directory);
    for name in FILES {
        let _ = fs::remove_file(folder.join(name));
    }
    let _ = fs::remove_dir(&folder);
    let _ = fs::remove_file(directory.join(FOLDER));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{folder, remove};

    #[test]
    fn it_goes_and_what_it_points_to() {
        let root = tempfile::tempdir().expect("a directory");
        let (plain, linked) = (root.path().join("plain"), root.path().join("linked"));
        let elsewhere = root.path().join("elsewhere");
        for made in [&plain, &plain.join(".preload"), &linked, &elsewhere] {
            fs::create_dir(made).expect("made");
        }
        symlink(&elsewhere, linked.join(".preload")).expect("linked");
        assert_eq!((folder(&plain), folder(&linked)), (plain.join(".preload"), elsewhere.clone()));
        for place in [&plain.join(".preload"), &elsewhere] {
            fs::write(place.join("settings"), "").expect("written");
            symlink("/nowhere", place.join("libmemscope.so")).expect("linked");
        }
        remove(&plain);
        remove(&linked);
        remove(root.path());
        assert_eq!(fs::read_dir(&plain).expect("there").count(), 0);
        assert_eq!(fs::read_dir(&linked).expect("there").count(), 0);
        assert!(!elsewhere.exists());
    }
}
