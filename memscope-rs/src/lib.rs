//! Names the variables that matter and records how long each of them lives.
#![deny(unsafe_code)]

#[cfg(feature = "allocator")]
mod allocator;
mod clock;
mod error;
mod export;
mod interposer;
mod macros;
mod names;
mod registry;
mod say;
mod scope;
mod settings;
mod snapshot;
mod stacks;
mod store;
mod sys;
mod threads;
mod trackable;
mod tracker;
mod variable;

#[cfg(feature = "allocator")]
pub use allocator::MemscopeAllocator;
pub use error::{TrackingError, TrackingResult};
pub use export::{enable_auto_export, export_on_signals, init, snapshot};
pub use memscope_derive::Trackable;
pub use memscope_shared::model::{AllocationInfo, FreedBy, StackFrame, Stats as MemoryStats};
#[doc(hidden)]
pub use names::Site;
pub use registry::{VariableInfo, VariableRegistry};
pub use scope::ScopeGuard;
pub use stacks::capture_stacks;
pub use trackable::Trackable;
pub use tracker::{MemoryTracker, get_global_tracker};
pub use variable::TrackedVariable;
