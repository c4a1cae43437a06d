//! Where exports go.

use crate::settings::{self, Format};
use std::path::{Path, PathBuf};

/// Name of the export at the end, without its extension.
const FINAL: &str = "memscope_final_snapshot";
/// Name of the export at a panic, in the same folder.
const PANIC: &str = "memscope_panic_snapshot";

/// Where the exports of a process go, and in which formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The final export, without its extension.
    base: PathBuf,
    format: Format,
}

impl Paths {
    /// The paths for what the program asks for, else what the environment does, else the defaults. They are made
    /// absolute now: the program may change its directory.
    pub fn new(asked: Option<&Path>) -> Self {
        let path = asked.map(Path::to_owned).or_else(settings::export_path).unwrap_or_else(|| FINAL.into());
        let html = path.extension().is_some_and(|extension| extension == "html");
        let format = settings::format().unwrap_or(Format { json: !html, html });
        let path = std::path::absolute(&path).unwrap_or(path);
        Self { base: without_extension(&path), format }
    }

    /// Files of the export at the end.
    pub fn at_end(&self) -> Files {
        Files { base: self.base.clone(), format: self.format }
    }

    /// Files of the export at a panic.
    pub fn at_panic(&self) -> Files {
        self.named(PANIC)
    }

    /// Files of a snapshot by this name.
    pub fn named(&self, name: &str) -> Files {
        let name: String =
            name.chars().map(|c| if matches!(c, '/' | '\\' | '\0') { '_' } else { c }).collect();
        Files { base: self.base.with_file_name(without_extension(Path::new(&name))), format: self.format }
    }
}

fn without_extension(path: &Path) -> PathBuf {
    match path.extension() {
        Some(extension) if extension == "json" || extension == "html" => path.with_extension(""),
        _ => path.to_owned(),
    }
}

/// The files of one export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    base: PathBuf,
    format: Format,
}

impl Files {
    /// The snapshot JSON, where one is wanted.
    pub fn json(&self) -> Option<PathBuf> {
        self.format.json.then(|| self.with("json"))
    }

    /// The report, where one is wanted.
    pub fn html(&self) -> Option<PathBuf> {
        self.format.html.then(|| self.with("html"))
    }

    /// All of them, the JSON first.
    pub fn all(&self) -> impl Iterator<Item = PathBuf> {
        self.json().into_iter().chain(self.html())
    }

    fn with(&self, extension: &str) -> PathBuf {
        let mut path = self.base.clone().into_os_string();
        path.push(".");
        path.push(extension);
        path.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &Files) -> Vec<String> {
        files.all().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    fn paths(base: &str, json: bool, html: bool) -> Paths {
        Paths { base: without_extension(Path::new(base)), format: Format { json, html } }
    }

    #[test]
    fn extensions_are_added_where_missing() {
        assert_eq!(names(&paths("/a/b", true, false).at_end()), ["/a/b.json"]);
        assert_eq!(names(&paths("/a/b.json", true, true).at_end()), ["/a/b.json", "/a/b.html"]);
        assert_eq!(names(&paths("/a/v1.2", true, false).at_end()), ["/a/v1.2.json"]);
        assert_eq!(names(&paths("/a/b.html", false, true).at_end()), ["/a/b.html"]);
    }

    #[test]
    fn others_lie_beside_the_final_one() {
        let paths = paths("/a/b.json", true, false);
        assert_eq!(names(&paths.at_panic()), ["/a/memscope_panic_snapshot.json"]);
        assert_eq!(names(&paths.named("phase 1")), ["/a/phase 1.json"]);
        assert_eq!(names(&paths.named("phase.json")), ["/a/phase.json"]);
        assert_eq!(names(&paths.named("../x/y")), ["/a/.._x_y.json"]);
    }

    #[test]
    fn paths_are_absolute() {
        let end = Paths::new(Some(Path::new("here.json"))).at_end();
        assert_eq!(end.json(), Some(std::env::current_dir().unwrap().join("here.json")));
    }
}
