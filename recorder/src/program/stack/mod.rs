//! Stacks: from a hook's caller to the id of its stack.
//!
//! ```text
//! capture -> walk: unwind -> rule (cache, else modules + cfi) -> frames -> trie -> id
//! ```
//!
//! A hook passes where its return address lies and the caller's rbp ([`Entry`]); [`StackState::capture`] returns a u32
//! that names the stack. The parts, from the bottom:
//!
//! | module | what it does |
//! |---|---|
//! | [`loader`], [`elf`], [`maps`], [`executable`] | what is mapped where |
//! | [`modules`] | the mapped files that stacks have met, and their generations |
//! | [`row`], [`expression`], [`cfi`] | from `.eh_frame` to an unwind rule |
//! | [`rule`], [`cache`] | the rule in 26 bits, and the global table of rules |
//! | [`bounds`], [`unwind`], [`slow`] | one step from a frame to its caller |
//! | [`frames`] | a thread's array of frames |
//! | [`trie`] | stacks as numbers |
//! | [`nested`] | which of three kinds a nested hook call is |
//!
//! Everything here runs inside of `malloc` on the program's threads, possibly in a signal handler: nothing allocates,
//! locks, panics or touches thread-local storage.

pub mod bounds;
pub mod cache;
pub mod cfi;
pub mod elf;
pub mod executable;
pub mod expression;
pub mod frames;
pub mod loader;
pub mod maps;
pub mod modules;
pub mod nested;
pub mod row;
pub mod rule;
pub mod slow;
pub mod trie;
pub mod unwind;

#[cfg(test)]
mod tests;

use bounds::Bounds;
use cache::CACHE;
use frames::Frames;
use memscope_shared::record::{self, Module, kind};
pub use nested::{Nested, classify_nested};
use trie::{Emit, Trie};
use unwind::{Frame, Pc, Step};

/// Where a hook was called from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Address of the word that holds the hook's return address.
    pub sp: usize,
    /// The caller's rbp.
    pub bp: usize,
}

impl Entry {
    /// The caller's frame.
    ///
    /// # Safety
    /// `sp` must be what it says, for a hook of this thread that has not returned.
    #[inline(always)]
    unsafe fn frame(self) -> Frame {
        // SAFETY: the word below the caller's frame, as the caller promises.
        let pc = unsafe { (self.sp as *const usize).read() };
        Frame { pc, sp: self.sp.wrapping_add(8), bp: self.bp, kind: Pc::Return, context: 0 }
    }
}

/// Takes the records that ids refer to. A record must be in the thread's buffer when the function returns: the id is
/// published right after.
pub trait Sink {
    /// A new node. `kind` is one of `record::kind::NODE*`, `operand` its pc, generation or 0.
    fn node(&mut self, kind: u8, operand: u64, id: u32, parent: u32);
    /// A module was first seen.
    fn module(&mut self, module: &Module<'_>);
    /// A module was unloaded, a new generation begins.
    fn modules_gone(&mut self, new_generation: u32, start: u64);
}

static TRIE: Trie = Trie::new();

struct Emitter<'a, S: Sink>(&'a mut S);

impl<S: Sink> Emit for Emitter<'_, S> {
    fn emit(&mut self, id: u32, parent: u32, key: u64) {
        self.0.node(record::kind_of(key), record::operand(key), id, parent);
    }
}

/// What a thread keeps between captures. All zero bytes are a valid state; it maps memory when first used.
#[repr(C)]
#[derive(Debug)]
pub struct StackState {
    frames: Frames,
    bounds: Bounds,
}

impl StackState {
    /// The id of the stack that a hook was called from; 0 where there is no memory for it.
    ///
    /// # Safety
    /// `this` must be valid (zero bytes at first) and used by nobody else meanwhile, not even by a signal handler that
    /// interrupts; `entry` must describe a hook of this thread that has not returned.
    #[inline]
    pub unsafe fn capture(this: *mut Self, entry: Entry, sink: &mut impl Sink) -> u32 {
        // SAFETY: nobody else uses the state meanwhile, as the caller promises.
        let state = unsafe { &mut *this };
        // SAFETY: passed on.
        let leaf = unsafe { entry.frame() };
        loop {
            let generation = modules::generation();
            let Some(truncated) = state.walk(leaf, generation, sink) else { return 0 };
            // A walk that found a module gone has mixed two generations.
            if generation == modules::generation() {
                return state.intern(generation, truncated, sink);
            }
        }
    }

    /// Unwinds from the leaf into the array of frames; whether outer frames are missing. `None` without memory.
    fn walk(&mut self, leaf: Frame, generation: u32, sink: &mut impl Sink) -> Option<bool> {
        self.frames.clear();
        self.bounds.enter(leaf.sp);
        let mut frame = leaf;
        loop {
            self.frames.push(node_key(&frame))?;
            match frame.step(find_rule(frame.rule_address(), generation, sink), &mut self.bounds, |address| {
                find_rule(address, generation, sink)
            }) {
                Step::Caller(caller) => frame = caller,
                Step::End => return Some(false),
                Step::Truncated => return Some(true),
            }
        }
    }

    /// The id of the frames in the array.
    fn intern(&self, generation: u32, truncated: bool, sink: &mut impl Sink) -> u32 {
        let Some(mut id) = root(generation, sink) else { return 0 };
        let mut emitter = Emitter(sink);
        if truncated {
            id = TRIE.child(id, record::head(kind::NODE_TRUNCATED, 0), &mut emitter);
        }
        for &key in self.frames.outermost_first() {
            if id == 0 {
                return 0;
            }
            id = TRIE.child(id, key, &mut emitter);
        }
        id
    }

    /// Gives the memory of a state back that nobody will use any more.
    ///
    /// # Safety
    /// As for [`StackState::capture`]. The state is as good as new after.
    pub unsafe fn release(this: *mut Self) {
        // SAFETY: nobody else uses the state, as the caller promises.
        let state = unsafe { &mut *this };
        state.frames.release();
        state.bounds = Bounds::default();
    }
}

/// The rule for an address: from the cache, else from the tables.
#[inline(always)]
fn find_rule(address: usize, generation: u32, sink: &mut impl Sink) -> rule::Rule {
    match CACHE.get(address, generation) {
        Some(rule) => rule,
        None => cfi::find_rule(address, generation, Some(sink)),
    }
}

#[inline(always)]
const fn node_key(frame: &Frame) -> u64 {
    let kind = match frame.kind {
        Pc::Return => kind::NODE,
        Pc::Exact => kind::NODE_EXACT,
        Pc::Guessed => kind::NODE_GUESSED,
    };
    record::head(kind, frame.pc as u64)
}

/// The root of a generation's stacks. In a new process image all known modules are recorded first.
fn root(generation: u32, sink: &mut impl Sink) -> Option<u32> {
    if TRIE.prepare()? {
        modules::new_image();
        modules::announce_all(sink);
    }
    let id = TRIE.child(0, record::head(kind::NODE_ROOT, u64::from(generation)), &mut Emitter(sink));
    (id != 0).then_some(id)
}

/// Finds the loader. Captures do that themselves if they have to; earlier is cheaper.
pub fn start() {
    loader::start();
}

/// Records the modules that are loaded now. Takes the loader's lock: for the constructor.
pub fn startup_modules(sink: &mut impl Sink) {
    modules::meet_loaded(sink);
}

/// True for an address in the loader's code: who frees from there may be unloading a module.
#[inline(always)]
#[must_use]
pub fn is_loader(pc: usize) -> bool {
    loader::contains(pc)
}

/// Notices unloaded modules. To be called before the loader's own call of `free` is passed on.
///
/// # Safety
/// The caller must be in a hook that the loader has called.
pub unsafe fn check_unloaded(sink: &mut impl Sink) {
    modules::check_unloaded(sink);
}

/// A forked child starts with an empty trie and records its modules again; rules stay.
pub fn reset_after_fork() {
    TRIE.reset();
}
