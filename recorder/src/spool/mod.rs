//! The memory between the program's threads and the writer: 64 KiB buffers, shared with a file.
//!
//! [`buffer`] is one buffer, [`pool`] hands them out and takes them back, [`mod@file`] makes the shared
//! memory. The layout is `memscope_shared::spool`'s.

pub mod buffer;
pub mod file;
pub mod notes;
pub mod pool;
