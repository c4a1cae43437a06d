//! Names the variables that matter and records how long each of them lives.
//!
//! ```no_run
//! use memscope_rs::track_var;
//!
//! fn main() {
//!     memscope_rs::init();
//!     memscope_rs::enable_auto_export(Some("my_memory_analysis.json"));
//!     let my_vec = vec![1, 2, 3];
//!     let tracked_vec = track_var!(my_vec); // takes ownership, derefs to the Vec
//!     assert_eq!(tracked_vec.len(), 3);
//!     // the end of the program exports, with exact lifetimes
//! }
//! ```
//!
//! `memscope-cli report my_memory_analysis.json` shows the result in the terminal, `memscope-cli analyze my_memory_analysis.json
//! report.html` makes a page of it. It is the same format as that of the recordings of `memscope-cli run`.
//!
//! # Tracking
//!
//! [`track_var!`] takes a value and gives a [`TrackedVariable`] that behaves like it. From then until it is dropped is the variable's
//! lifetime, to the nanosecond; moved to other threads or tasks it stays the same variable. Whatever is [`Trackable`] can be
//! tracked: the standard library's containers and owners, plain values, and your own types by `#[derive(Trackable)]`.
//! Clones of a tracked `Rc` or `Arc` share one record, which the last owner ends. A [`track_scope!`] guard names the scope of what is
//! tracked while it lives. Memory that is no Rust variable can be tracked by hand: see [`MemoryTracker`].
//!
//! ```
//! use memscope_rs::{Trackable, get_global_tracker, track_scope, track_var};
//!
//! #[derive(Trackable)]
//! struct Session {
//!     user: String,
//! }
//!
//! let _scope = track_scope!("login");
//! let session = track_var!(Session { user: "ann".into() });
//! let live = get_global_tracker().get_active_allocations();
//! assert_eq!(live[0].scope_name.as_deref(), Some("login"));
//! assert_eq!(live[0].size, session.user.len());
//! ```
//!
//! # Exports
//!
//! [`enable_auto_export`] (or `MEMSCOPE_AUTO_EXPORT=1` and [`init`]) exports when the program returns from `main`, calls
//! `std::process::exit` or `quick_exit`, and when a thread panics; [`export_on_signals`] adds SIGTERM and SIGINT. What still lives then is
//! flushed with its lifetime up to that moment (`freed_by: "exit"`): no lifetime is null. [`snapshot()`] exports a moment of the running
//! program. What cannot be exported by the library is the end by SIGKILL, `abort` or `_exit`: record the program with
//! `memscope-cli run` for that.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `MEMSCOPE_AUTO_EXPORT` | `1`: as [`enable_auto_export`]`(None)` | off |
//! | `MEMSCOPE_EXPORT_PATH` | path of the export; the extension is added | `memscope_final_snapshot` |
//! | `MEMSCOPE_EXPORT_FORMAT` | `json`, `html` or `both` | `json` |
//! | `MEMSCOPE_STACKS` | whether variables have their stacks: see [`capture_stacks`] | as `RUST_BACKTRACE` |
//! | `MEMSCOPE_QUIET` | `1`: nothing on standard error but errors | off |
//!
//! # Together with `memscope-cli run`
//!
//! In a program that runs with `libmemscope.so` the recording has every real allocation. The library finds the recorder and
//! tells it which blocks belong to which variable: they have `var_name`, `type_name` and `scope_name` in the recording's
//! snapshot. A name follows its block through `realloc`; where a container takes a new block, that is named at the next borrow of the
//! variable, or at the latest when it is dropped. In between a block may have no name, but never a wrong one: also where two threads
//! hand an address on so fast that their clocks can't tell whose it was, there is none.
//!
//! A block keeps its name to its end. What [`TrackedVariable::into_inner`] gives out, or `std::mem::take` takes away, is named as long
//! as it remains in the block that the variable had; a block that it takes later has no name. Of a `BTreeMap` or a `LinkedList`, which have
//! many blocks, one is named.
//!
//! The recording is the export then: the library makes its own only where the program calls [`enable_auto_export`].
//!
//! # Programs that cannot be preloaded
//!
//! With the feature `allocator` there is `MemscopeAllocator`, a global allocator that records every Rust allocation of a program, with
//! stacks, names and lifetimes, as `memscope-cli run` does from outside: also in a statically linked program.
//!
//! # What it costs
//!
//! Tracking a variable with its drop takes well under 300 ns, most of it the two readings of the clock; a borrow some 20 ns. With its stack
//! (off by default) it is about 10 µs. A tracked variable takes 64 bytes for good, so that its history can be exported. No call
//! waits for a lock of another thread, and nothing is ever skipped. Figures are in the package's README.
//!
//! # Systems
//!
//! Variables are tracked and exported on Linux, macOS, the BSDs and Windows. Ends by `quick_exit`, the exit status and thread names are only
//! there on Linux, [`export_on_signals`] not on Windows, and recordings (`memscope-cli run`, `MemscopeAllocator`) only on Linux with glibc on x86-64:
//! elsewhere they say so. It was compiled for `aarch64-apple-darwin`, `x86_64-pc-windows-gnu`, `x86_64-unknown-freebsd`,
//! `x86_64-unknown-linux-musl` and `aarch64-unknown-linux-gnu`; it was run on Linux, on x86-64 and (under qemu) on arm64.
//!
//! # Safety
//!
//! The code that tracks has two uses of `unsafe`: it reads a value out of a `TrackedVariable` that is never used again (`into_inner`), and
//! it walks the stack. Others call the C library at a program's end, and the recorder.
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
