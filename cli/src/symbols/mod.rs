//! Symbols: what the addresses of a recording mean.
//!
//! ```text
//! stacks of a process -> distinct addresses -> by module -> resolver -> frame table -> snapshot
//! ```
//!
//! [`table`] gives each process its distinct frames; [`resolver`] looks addresses up, each once for all
//! processes; [`mod@file`] decides which files may be believed; [`demangle`] makes their names
//! readable. All of it happens when the program is done.

mod demangle;
mod file;
mod resolver;
mod table;

pub use file::ModuleFile;
pub use resolver::Resolver;
pub use table::{FrameTable, Mapped};

#[cfg(test)]
mod tests;
