//! Harness of the end-to-end tests.
//!
//! The tests see memscope as a user does: they run the built `memscope-cli` and `libmemscope.so`,
//! read the snapshot JSON with types of their own, and compare it with what the recorded program
//! says that it did ([`said`]) or with another tool's count ([`oracle`]).
//!
//! Every snapshot that is loaded is checked against the schema ([`schema`]) and against what must hold
//! in any snapshot ([`consistent`]), so each test checks that too.

pub mod artifacts;
pub mod command;
pub mod consistent;
pub mod elf;
pub mod folder;
pub mod oracle;
pub mod program;
pub mod recording;
pub mod said;
pub mod schema;
pub mod snapshot;
pub mod text;
pub mod things;

pub use command::{Cmd, Ran};
pub use folder::TempDir;
pub use recording::{Record, Recorded};
pub use snapshot::{Process, Snapshot};
