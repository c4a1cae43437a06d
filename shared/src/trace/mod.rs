//! The trace file: frames that hold a process image's records.
//!
//! One file belongs to one process image. It is a file header and a run of frames, each with a
//! 64-byte header of its own that says what follows and how to check it; `FORMAT.md` beside this
//! file describes every byte.
//!
//! | side | modules |
//! |---|---|
//! | both | [`frame`] (headers), [`meta`] (small payloads: process, clock, end ...), [`codec`] (columns) |
//! | writer | [`encode`], [`written`] |
//! | reader (feature `analysis`) | `read`, `decode`, `clock`, `complete`, `process`, `pack` |

pub mod codec;
pub mod encode;
pub mod frame;
pub mod meta;
pub mod written;

#[cfg(feature = "analysis")]
pub mod clock;
#[cfg(feature = "analysis")]
pub mod complete;
#[cfg(feature = "analysis")]
pub mod decode;
#[cfg(feature = "analysis")]
mod drafts;
#[cfg(feature = "analysis")]
mod namespace;
#[cfg(feature = "analysis")]
pub mod pack;
#[cfg(feature = "analysis")]
pub mod process;
#[cfg(feature = "analysis")]
pub mod read;
#[cfg(feature = "analysis")]
mod salvage;
#[cfg(feature = "analysis")]
pub mod streams;

#[cfg(test)]
mod testing;
#[cfg(all(test, feature = "analysis"))]
mod tests;

pub use encode::{Block, Compress, Encoder};
pub use frame::{FrameHeader, Kind};
pub use meta::{ClockKind, ClockSample, End, EndKind, MemorySample, Process, ThreadName};
pub use written::Written;

#[cfg(feature = "analysis")]
pub use clock::{Clock, ClockCursor};
#[cfg(feature = "analysis")]
pub use complete::{Ending, Outcome, complete};
#[cfg(feature = "analysis")]
pub use decode::{DecodeError, EventBuf};
#[cfg(feature = "analysis")]
pub use drafts::adopt_drafts;
#[cfg(feature = "analysis")]
pub use pack::Zstd;
#[cfg(feature = "analysis")]
pub use process::{ImageState, image_state};
#[cfg(feature = "analysis")]
pub use read::{Damage, DamageKind, FrameInfo, TraceError, TraceFile};
#[cfg(feature = "analysis")]
pub use streams::{Gap, StreamIndex};
