//! What the recorder and the command line have in common: the shape of everything that is written
//! and read.
//!
//! The folders follow the way of an event: [`record`] (rows in a thread's buffer) -> [`spool`] (the
//! buffers' shared memory) -> [`trace`] (frames in a file) -> `analysis` (merge, pairing, sites) ->
//! `model` (what the snapshot says).
//!
//! This crate parses files that may be cut, damaged or hostile, so it holds no `unsafe` and its
//! readers allocate in proportion to what the input really holds, never to what it claims.
#![forbid(unsafe_code)]

pub mod record;
pub mod rhythm;
pub mod spool;
pub mod stat;
pub mod trace;

#[cfg(feature = "model")]
pub mod analysis;
#[cfg(feature = "model")]
pub mod model;
