//! A hook was called while the thread's guard says that another one is running. Which of three cases is it?
//!
//! Unwinding from the inner call tells. Walking outwards we come past either the outer hook's own frame (its return
//! address lies where the guard says) or the end of the stack:
//!
//! ```text
//! inner hook <- allocator               <- outer hook: the allocator called itself       Reentrant
//! inner hook <- handler <- signal frame <- outer hook: a handler interrupted our hook    Signal
//! inner hook <- ... <- main, no outer hook on the way: it was left by longjmp            Stale
//! ```
//!
//! An allocator's own `operator new` calls others as well where there is no memory: the program's handler, and the C++ library for
//! an exception. Their frames lie between its own and the inner hook's.
//!
//! This is rare, and writes nothing: rules of modules that are not recorded yet are not cached.

use super::bounds::Bounds;
use super::cache::CACHE;
use super::rule::{Kind, Rule};
use super::unwind::Step;
use super::{Entry, cfi, modules};

/// What a nested call of a hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nested {
    /// The allocator, called by the outer hook, has called a hooked function itself.
    Reentrant,
    /// Somebody else, whom the allocator has called, has.
    CalledOut,
    /// A signal handler runs that interrupted the outer hook.
    Signal,
    /// The outer hook does not run any more.
    Stale,
}

/// The code that an allocator's own `operator new` runs in, whatever it is busy with there.
#[derive(Debug)]
struct Inside {
    operator: usize,
}

impl Inside {
    /// Whether a pc lies in the allocator, in libraries that it may use, or in our hook.
    fn has(&self, pc: usize) -> bool {
        let libc = libc::gnu_get_libc_version as *const () as usize;
        let found = module(pc);
        super::is_loader(pc)
            || found.is_some()
                && [self.operator, libc, hook()].into_iter().any(|known| module(known) == found)
    }
}

fn module(address: usize) -> Option<usize> {
    modules::find(address, None).map(|(module, _)| module.start)
}

/// An address in the module of our hooks.
fn hook() -> usize {
    classify_nested as unsafe fn(Entry, usize, usize) -> Nested as usize
}

/// Whether a frame may be a hook's. Once one was left by longjmp, any other function may have been called from where it had been.
fn can_be_hook(pc: usize) -> bool {
    module(hook()).is_none_or(|ours| module(pc) == Some(ours))
}

/// Classifies a nested call. `outer_sp` is the [`Entry::sp`] of the outer hook, and `operator` the function that it has called
/// where that is an allocator's own `operator new`, else 0.
///
/// # Safety
/// `entry` must describe a hook of this thread that has not returned.
#[cold]
#[must_use]
pub unsafe fn classify_nested(entry: Entry, outer_sp: usize, operator: usize) -> Nested {
    // SAFETY: passed on.
    let mut frame = unsafe { entry.frame() };
    let generation = modules::generation();
    let find = |address| match CACHE.get(address, generation) {
        Some(rule) => rule,
        None => cfi::find_rule(address, generation, None),
    };
    let mut bounds = Bounds::default();
    bounds.enter(frame.sp);
    let (mut signal, mut called_out) = (false, false);
    let inside = (operator != 0).then_some(Inside { operator });
    loop {
        let rule: Rule = find(frame.rule_address());
        signal |= rule.kind() == Kind::Signal;
        called_out |= inside.as_ref().is_some_and(|inside| !inside.has(frame.rule_address()));
        match frame.step(rule, &mut bounds, find) {
            Step::Caller(caller)
                if caller.sp == outer_sp.wrapping_add(8) && can_be_hook(frame.rule_address()) =>
            {
                return match (signal, called_out) {
                    (true, _) => Nested::Signal,
                    (false, true) => Nested::CalledOut,
                    (false, false) => Nested::Reentrant,
                };
            }
            Step::Caller(caller) => frame = caller.after(&frame),
            Step::End(_) => return Nested::Stale,
            // Lost on the way. While the outer hook's frame is still ahead it may be running: to be taken for
            // the allocator's own call is the safe answer.
            Step::Truncated if frame.sp <= outer_sp => return Nested::Reentrant,
            Step::Truncated => return Nested::Stale,
        }
    }
}
