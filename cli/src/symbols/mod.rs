//! Symbols: what the addresses of a recording mean.
//!
//! ```text
//! stacks of a process -> distinct addresses -> by module -> resolver -> frame table -> snapshot
//! ```
//!
//! [`table`] gives each process its distinct frames; [`resolver`] looks addresses up, each once for all
//! processes; [`mod@file`] decides which files may be believed; [`mangled`] reads
//! what the demangler can't. All of it happens when the program is done.

mod file;
mod mangled;
mod resolver;
mod table;

pub use file::ModuleFile;
pub use resolver::Resolver;
pub use table::{FrameTable, Mapped};

#[cfg(test)]
mod tests;
