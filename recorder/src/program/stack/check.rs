//! The checker (feature `check`): every captured stack is compared with full unwinding, and a sample of them with
//! libgcc's unwinder. A difference is printed and ends the process.
//!
//! Nothing is stored: the id's nodes are followed from the leaf to the root while a second walk steps along. A
//! stack whose generation has ended meanwhile is not compared, nor one of a call that a signal handler has taken along into a
//! forked child: what differs there is the trie. Here, and only here, library code runs in a hook: libgcc's
//! unwinder neither allocates nor needs memory of its own.

use super::unwind::Step;
use super::{Entry, Sink, TRIE, find_rule, modules};
use crate::sys::file;
use core::sync::atomic::{AtomicU64, Ordering};
use memscope_shared::record::{head, kind, kind_of, operand};

/// One of so many stacks is compared with libgcc's.
const SAMPLE: u64 = 64;

static COMPARED: AtomicU64 = AtomicU64::new(0);
static SAMPLED: AtomicU64 = AtomicU64::new(0);

/// Numbers of stacks compared with full unwinding and with libgcc.
#[must_use]
pub fn counts() -> (u64, u64) {
    (COMPARED.load(Ordering::Relaxed), SAMPLED.load(Ordering::Relaxed))
}

/// Compares the stack `id` with what unwinding says now.
///
/// # Safety
/// `entry` must describe a hook of this thread that has not returned, whose stack was captured as `id`.
pub unsafe fn compare(entry: Entry, id: u32, sink: &mut impl Sink) {
    if id == 0 || generation_of(id, sink) != Some(modules::generation()) {
        return;
    }
    // SAFETY: passed on.
    unsafe { compare_walk(entry, id, sink) };
    if COMPARED.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE) {
        // SAFETY: passed on.
        unsafe { compare_libgcc(entry, id, sink) };
        SAMPLED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Nodes to follow before another look whether they are this process's.
const LOOK: u32 = 1 << 16;

fn generation_of(mut id: u32, sink: &impl Sink) -> Option<u32> {
    let mut steps = 0_u32;
    while id != 0 {
        // Else they may even lead in a circle.
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(LOOK) && sink.is_parents() {
            return None;
        }
        let (key, parent) = TRIE.get(id);
        if kind_of(key) == kind::NODE_ROOT {
            return Some(operand(key) as u32);
        }
        id = parent;
    }
    None
}

unsafe fn compare_walk(entry: Entry, id: u32, sink: &mut impl Sink) {
    let generation = modules::generation();
    let mut bounds = super::bounds::Bounds::default();
    // SAFETY: passed on.
    let mut frame = unsafe { entry.frame() };
    bounds.enter(frame.sp);
    let mut at = id;
    let mut depth = 0;
    let end = loop {
        let (key, parent) = TRIE.get(at);
        if key != frame.key {
            break Some((frame.key, key));
        }
        (at, depth) = (parent, depth + 1);
        let rule = find_rule(frame.rule_address(), generation, sink);
        match frame.step(rule, &mut bounds, |address| find_rule(address, generation, sink)) {
            Step::Caller(caller) => frame = caller.after(&frame),
            Step::End(_) => {
                // Of this generation: an old node means a module that is gone.
                let (key, expected) = (TRIE.get(at).0, head(kind::NODE_ROOT, u64::from(generation)));
                break (key != expected).then_some((expected, key));
            }
            Step::Truncated => break difference(at, kind::NODE_TRUNCATED),
        }
    };
    if let Some((expected, found)) = end
        && generation == modules::generation()
    {
        fail("full unwinding", depth, expected, found, sink);
    }
}

/// `None` if the node is of that kind.
fn difference(id: u32, kind: u8) -> Option<(u64, u64)> {
    let key = TRIE.get(id).0;
    (kind_of(key) != kind).then_some((u64::from(kind) << 56, key))
}

/// libgcc guesses nothing: where a frame was guessed, the comparison ends.
unsafe fn compare_libgcc(entry: Entry, id: u32, sink: &impl Sink) {
    // SAFETY: passed on.
    let first = unsafe { entry.frame() };
    let (mut at, mut depth, mut begun) = (id, 0, false);
    let each = |found: &backtrace::Frame| {
        let ip = found.ip() as usize;
        begun |= ip == first.pc() && found.sp() as usize == first.sp;
        if !begun {
            return true;
        }
        let (key, parent) = TRIE.get(at);
        match kind_of(key) {
            kind::NODE_GUESSED | kind::NODE_TRUNCATED => return false,
            kind::NODE | kind::NODE_EXACT if operand(key) == ip as u64 => {}
            kind::NODE_ROOT if ip == 0 => return false,
            _ => {
                fail("libgcc", depth, ip as u64, key, sink);
                return false;
            }
        }
        (at, depth) = (parent, depth + 1);
        true
    };
    // SAFETY: the lock of the synchronized form is for symbols, which are not asked for.
    unsafe { backtrace::trace_unsynchronized(each) };
    let rest = TRIE.get(at).0;
    if begun && !matches!(kind_of(rest), kind::NODE_ROOT | kind::NODE_GUESSED | kind::NODE_TRUNCATED) {
        fail("libgcc's end", depth, 0, rest, sink);
    }
}

/// A stack differs: the end, but for a call that is not this process's.
fn fail(what: &str, depth: usize, expected: u64, found: u64, sink: &impl Sink) {
    // Only now: whatever was compared, a handler may have forked between any two instructions of it.
    if sink.is_parents() {
        return;
    }
    file::complain(b"memscope: check: a stack differs from ");
    file::complain(what.as_bytes());
    for (name, value) in [(&b": frame "[..], depth as u64), (b", expected ", expected), (b", found ", found)]
    {
        file::complain(name);
        let mut digits = [b'0'; 18];
        for (i, digit) in digits.iter_mut().skip(2).enumerate() {
            *digit = b"0123456789abcdef"[(value >> (60 - 4 * i) & 15) as usize];
        }
        digits[1] = b'x';
        file::complain(&digits);
    }
    file::complain(b"\n");
    std::process::abort()
}
