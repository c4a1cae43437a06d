//! Stacks: from a hook's caller to the id of its stack.
//!
//! ```text
//! capture -> memo -> walk: unwind -> rule (cache, else modules + cfi) -> join recorded stack -> trie -> id
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
//! | [`incremental`] | walks that join the thread's last stack, and the proof that they may |
//! | [`memo`] | stacks that were captured lately, by the hook's caller |
//! | [`storage`] | the thread's memory for both |
//! | [`trie`] | stacks as numbers |
//! | `incremental::whole` | when nothing can be joined for a while: whole stacks |
//! | `incremental::guide` | whole stacks that were seen before: walked along a guess |
//! | `check` | compares every stack with full unwinding, in checking builds |
//! | [`nested`] | which of three kinds a nested hook call is |
//!
//! Everything here runs inside of `malloc` on the program's threads, possibly in a signal handler: nothing allocates,
//! locks, panics or touches thread-local storage.

pub mod bounds;
pub mod cache;
pub mod cfi;
#[cfg(feature = "check")]
pub mod check;
pub mod elf;
pub mod executable;
pub mod expression;
pub mod incremental;
pub mod loader;
pub mod maps;
pub mod memo;
pub mod modules;
pub mod nested;
pub mod row;
pub mod rule;
pub mod slow;
pub mod storage;
pub mod trie;
pub mod unwind;

#[cfg(test)]
mod tests;

use cache::{CACHE, Valid};
pub use incremental::Miss;
use incremental::{Stack, Whole};
use memscope_shared::record::{self, Module, kind};
pub use nested::{Nested, classify_nested};
use trie::{Emit, Trie};
use unwind::{Bp, Frame};

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
        Frame::returned(pc, self.sp.wrapping_add(8), Bp::known(self.bp))
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
    /// Whether the call has been its parent's: a handler that interrupted it has forked. This process's nodes are others.
    #[cfg(feature = "check")]
    fn is_parents(&self) -> bool {
        false
    }
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
    stack: Stack,
}

impl StackState {
    /// The id of the stack that a hook was called from; 0 where there is no memory for it.
    ///
    /// # Safety
    /// `this` must be valid (zero bytes at first) and used by nobody else meanwhile, not even by a signal handler that
    /// interrupts; `entry` must describe a hook of this thread that has not returned.
    #[inline(always)]
    pub unsafe fn capture(this: *mut Self, entry: Entry, sink: &mut impl Sink) -> u32 {
        // SAFETY: passed on.
        unsafe {
            match Self::recall(this, entry) {
                Ok(id) => Self::checked(id, entry, sink),
                Err(miss) => Self::capture_missed(this, entry, miss, sink),
            }
        }
    }

    /// The id of a stack that was captured lately, if the first look finds it. Nothing is recorded.
    ///
    /// # Safety
    /// As for [`StackState::capture`].
    #[inline(always)]
    pub unsafe fn recall(this: *mut Self, entry: Entry) -> Result<u32, Miss> {
        // SAFETY: nobody else uses the state meanwhile, as the caller promises, nor the hook's return address.
        unsafe {
            let pc = (entry.sp as *const usize).read();
            (*this).stack.recall(pc, entry.sp.wrapping_add(8), entry.bp, modules::generation())
        }
    }

    /// As [`StackState::capture`], where [`StackState::recall`] has just found nothing.
    ///
    /// # Safety
    /// As for [`StackState::capture`].
    #[inline(always)]
    pub unsafe fn capture_missed(this: *mut Self, entry: Entry, miss: Miss, sink: &mut impl Sink) -> u32 {
        // SAFETY: as in `recall`.
        unsafe {
            let pc = (entry.sp as *const usize).read();
            let id = match (*this).stack.recall_further(pc, entry.sp.wrapping_add(8), entry.bp, miss) {
                Ok(id) => id,
                Err(place) => Self::capture_new(this, entry, place, sink),
            };
            Self::checked(id, entry, sink)
        }
    }

    /// Passes an id on; a checking build compares its stack with full unwinding.
    ///
    /// # Safety
    /// It is that of the stack at this entry, as for [`StackState::capture`].
    #[cfg_attr(not(feature = "check"), expect(unused_variables, reason = "for checking builds"))]
    #[inline(always)]
    pub unsafe fn checked(id: u32, entry: Entry, sink: &mut impl Sink) -> u32 {
        #[cfg(feature = "check")]
        // SAFETY: passed on.
        unsafe {
            check::compare(entry, id, sink);
        }
        id
    }

    #[inline(never)]
    unsafe fn capture_new(this: *mut Self, entry: Entry, place: usize, sink: &mut impl Sink) -> u32 {
        // SAFETY: passed on.
        let (stack, leaf) = unsafe { (&mut (*this).stack, entry.frame()) };
        if stack.take_whole() {
            return Self::capture_whole(stack, leaf, sink);
        }
        loop {
            let generation = modules::generation();
            let valid = Valid::of(generation);
            let rules = |address| match CACHE.get_valid(address, valid) {
                Some(rule) => rule,
                None => cfi::find_rule(address, generation, Some(sink)),
            };
            let Some(walk) = stack.walk(leaf, generation, rules) else { return 0 };
            // A walk that found a module gone has mixed two generations.
            if generation == modules::generation() {
                let root = |emit: &mut Emitter<'_, _>| root(generation, emit.0).unwrap_or(0);
                return stack.record(walk, &TRIE, &mut Emitter(sink), root, place);
            }
        }
    }

    /// As [`StackState::capture_new`], by all of the stack.
    #[inline(never)]
    fn capture_whole(stack: &mut Stack, leaf: Frame, sink: &mut impl Sink) -> u32 {
        loop {
            let generation = modules::generation();
            let valid = Valid::of(generation);
            let known = &mut *sink;
            let rules = move |address| match CACHE.get_valid(address, valid) {
                Some(rule) => rule,
                None => cfi::find_rule(address, generation, Some(known)),
            };
            let Some(whole) = stack.walk_whole(leaf, generation, &TRIE, rules) else { return 0 };
            if generation == modules::generation() {
                let (walk, entries) = match whole {
                    Whole::Known(id) => return id,
                    Whole::Walked(walk, entries) => (walk, entries),
                };
                let root = |emit: &mut Emitter<'_, _>| root(generation, emit.0).unwrap_or(0);
                let id = stack.intern(walk, &TRIE, &mut Emitter(sink), root);
                entries.iter().for_each(|entry| entry.remember(id));
                return id;
            }
        }
    }

    /// Forgets the last stack: the next capture unwinds all of its own.
    ///
    /// # Safety
    /// As for [`StackState::capture`].
    pub unsafe fn forget(this: *mut Self) {
        // SAFETY: nobody else uses the state, as the caller promises.
        unsafe { (*this).stack.forget() };
    }

    /// The state of a thread that has ended is the calling thread's from now on.
    ///
    /// # Safety
    /// As for [`StackState::capture`].
    pub unsafe fn adopt(this: *mut Self) {
        // SAFETY: nobody else uses the state, as the caller promises.
        unsafe { (*this).stack.adopt() };
    }

    /// Start and size of the memory that the state has mapped; nothing where it has none.
    ///
    /// # Safety
    /// As for [`StackState::capture`].
    #[must_use]
    pub unsafe fn memory(this: *mut Self) -> (*mut u8, usize) {
        // SAFETY: nobody else uses the state, as the caller promises.
        unsafe { (*this).stack.memory() }
    }

    /// Gives the memory of a state back that nobody will use any more.
    ///
    /// # Safety
    /// As for [`StackState::capture`]. The state is as good as new after.
    pub unsafe fn release(this: *mut Self) {
        // SAFETY: nobody else uses the state, as the caller promises.
        let state = unsafe { &mut *this };
        state.stack.release();
    }
}

/// The rule for an address: from the cache, else from the tables.
#[cfg(feature = "check")]
fn find_rule(address: usize, generation: u32, sink: &mut impl Sink) -> rule::Rule {
    match CACHE.get(address, generation) {
        Some(rule) => rule,
        None => cfi::find_rule(address, generation, Some(sink)),
    }
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
