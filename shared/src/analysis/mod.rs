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
//!
//! With the feature `model` alone only sums and pairing are there, which know nothing of traces.

#[cfg(feature = "analysis")]
pub mod accounts;
#[cfg(feature = "analysis")]
pub mod blocks;
#[cfg(feature = "analysis")]
pub mod catalog;
#[cfg(feature = "analysis")]
pub mod cursor;
#[cfg(feature = "analysis")]
pub mod engine;
#[cfg(feature = "analysis")]
mod error;
#[cfg(feature = "analysis")]
pub mod event;
#[cfg(feature = "analysis")]
pub mod frames;
pub mod hash;
pub mod histogram;
pub mod lifetimes;
#[cfg(feature = "analysis")]
pub mod losses;
#[cfg(feature = "analysis")]
pub mod merge;
#[cfg(feature = "analysis")]
pub mod modules;
pub mod names;
#[cfg(feature = "analysis")]
pub mod owners;
pub mod pairing;
#[cfg(feature = "analysis")]
pub mod pipeline;
#[cfg(feature = "analysis")]
pub mod process;
#[cfg(feature = "analysis")]
pub mod recording;
pub mod sites;
#[cfg(feature = "analysis")]
pub mod source;
#[cfg(feature = "analysis")]
pub mod stacks;
pub mod table;
#[cfg(feature = "analysis")]
pub mod threads;
pub mod timeline;
#[cfg(feature = "analysis")]
pub mod tournament;
#[cfg(feature = "analysis")]
pub mod trace_source;
#[cfg(feature = "analysis")]
mod unrecorded;
pub mod variables;

#[cfg(test)]
mod testing;

#[cfg(feature = "analysis")]
pub use blocks::{Allocation, Allocations, Wanted};
#[cfg(feature = "analysis")]
pub use error::Error;
#[cfg(feature = "analysis")]
pub use frames::{Frame, Trace};
pub use names::Name;
#[cfg(feature = "analysis")]
pub use process::{Options, ProcessAnalysis, Site, analyze, analyze_trace};
#[cfg(feature = "analysis")]
pub use recording::{Recorded, Recording};
