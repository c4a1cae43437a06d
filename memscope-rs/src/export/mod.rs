//! Exports: [`files`] writes them, [`auto`] does when the program ends, on its [`panic`]s and on [`signals`].

mod auto;
mod files;
mod panics;
mod paths;
mod signals;

pub use auto::{enable_auto_export, init, snapshot};
pub use files::{write_html, write_json};
pub use signals::export_on_signals;
