//! From a trace to numbers.
//!
//! ```text
//! trace -> source -> catalog (stacks, modules, threads)
//!                 -> cursor -> merge -> engine -> pairing -> accounts -> process
//! ```
//!
//! | step | module |
//! |---|---|
//! | streams of blocks of records, read in any order | [`source`], [`trace_source`] |
//! | first pass: what is no event | [`catalog`]: [`stacks`], [`modules`], [`threads`], [`owners`] |
//! | second pass: all events by time | [`cursor`], [`merge`], [`tournament`], [`pipeline`] |
//! | which end belongs to which start | [`pairing`], [`table`] |
//! | sums | [`accounts`]: [`sites`], [`timeline`], [`lifetimes`], [`histogram`], [`blocks`] |
//! | all of it for one trace | [`engine`], [`frames`], [`losses`], [`process`] |
//! | all traces of a recording | [`recording`], `unrecorded` |
//!
//! Memory grows with live blocks and distinct stacks, not with events.

pub mod accounts;
pub mod blocks;
pub mod catalog;
pub mod cursor;
pub mod engine;
mod error;
pub mod event;
pub mod frames;
pub mod hash;
pub mod histogram;
pub mod lifetimes;
pub mod losses;
pub mod merge;
pub mod modules;
pub mod names;
pub mod owners;
pub mod pairing;
pub mod pipeline;
pub mod process;
pub mod recording;
pub mod sites;
pub mod source;
pub mod stacks;
pub mod table;
pub mod threads;
pub mod timeline;
pub mod tournament;
pub mod trace_source;
mod unrecorded;
pub mod variables;

#[cfg(test)]
mod testing;

pub use blocks::{Allocation, Allocations, Wanted};
pub use error::Error;
pub use frames::{Frame, Trace};
pub use names::Name;
pub use process::{Options, ProcessAnalysis, Site, analyze, analyze_trace};
pub use recording::{Recorded, Recording};
