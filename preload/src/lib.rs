//! `libmemscope.so`: the hooks, and nothing more.
//!
//! `list` names every hooked function once; `c`, `cxx` and `programs` say what a hook does; `sandbox` sees seccomp filters
//! come, `leaving` what takes the trace out of reach; `names` takes what the Rust library tells; `real` finds the functions behind the hooks; `arena` serves the dynamic
//! loader while it does so; `compat` and `unwinder` stand in front of functions that the library must not be linked to. All
//! recording is the recorder's ([`memscope_recorder::program::Op`]).

mod arena;
mod c;
mod compat;
mod cxx;
mod leaving;
mod list;
mod names;
mod programs;
mod real;
mod sandbox;
mod stacks;
mod unwinder;

use memscope_recorder::heap::OwnHeap;

/// What our own code allocates (on cold paths and on our own thread) never comes from the program's heap.
#[global_allocator]
static HEAP: OwnHeap = OwnHeap;

// SAFETY: runs once, in the loading thread; what it calls needs nothing that a constructor may not use.
#[ctor::ctor(unsafe)]
fn constructor() {
    real::resolve();
    sandbox::resolve();
    memscope_recorder::start::start();
}

/// Version of the library, for who finds it loaded.
#[unsafe(no_mangle)]
pub extern "C" fn memscope_version() -> *const core::ffi::c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
