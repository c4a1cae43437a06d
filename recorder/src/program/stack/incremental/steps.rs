//! The words that steps have read, as they are recorded.

use super::{Kind, Place, Recorded, Rule, Trie, Word, operand};
use crate::program::stack::rule;

/// The frame outside of the one that is being recorded.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    pub pc: usize,
    pub sp: usize,
    pub bp: usize,
    pub needs_bp: bool,
    pub node: Place<'a>,
}

impl<'a> Next<'a> {
    pub fn of(frame: &Recorded, trie: &'a Trie) -> Self {
        Self {
            pc: operand(frame.key) as usize,
            sp: frame.sp,
            bp: frame.bp,
            needs_bp: frame.needs_bp(),
            node: trie.place(frame.id),
        }
    }
}

/// Writes the words of steps, each step's in such an order that what is compared first comes last. There is room for all:
/// three words a frame.
pub struct Steps {
    /// Behind the last word.
    pub end: *mut Word,
}

impl Steps {
    pub const fn after(words: *mut Word, frame: &Recorded) -> Self {
        Self { end: words.wrapping_add(frame.words()) }
    }

    #[inline(always)]
    pub fn count(&self, words: *const Word) -> usize {
        // SAFETY: both point into the storage.
        unsafe { self.end.cast_const().offset_from_unsigned(words) }
    }

    #[inline(always)]
    pub fn push(&mut self, at: usize, value: usize) {
        // SAFETY: there is room.
        unsafe { self.end.write(Word { at, value }) };
        self.end = self.end.wrapping_add(1);
    }

    /// A step by a CFA that is counted from rsp; the frame's rbp, if it matters.
    #[inline(always)]
    pub fn plain(&mut self, below: usize, next: &Next<'_>) -> Option<usize> {
        let mut bp = None;
        if next.needs_bp {
            if below == 0 {
                bp = Some(next.bp);
            } else {
                self.push(next.sp.wrapping_sub(below), next.bp);
            }
        }
        self.push(next.sp.wrapping_sub(8), next.pc);
        bp
    }

    /// Any other step, from the frame with this rsp and rbp: its rbp, if it matters, and whether words can tell. By value,
    /// so that the usual steps are worked out in registers.
    #[cold]
    #[inline(never)]
    pub fn rare(mut self, rule: Rule, sp: usize, bp: usize, next: Next<'_>) -> (Self, Option<usize>, bool) {
        match rule.kind() {
            Kind::LargeRsp => {
                let bp = self.plain(rule.bp_below_cfa(), &next);
                return (self, bp, true);
            }
            Kind::Drap => {
                if next.needs_bp {
                    self.push(bp.wrapping_add_signed(rule.drap_bp_offset()), next.bp);
                }
                self.push(next.sp.wrapping_sub(8), next.pc);
                self.push(bp.wrapping_add_signed(rule.drap_cfa_offset()), next.sp);
            }
            Kind::Signal => {
                if next.needs_bp {
                    self.push(sp.wrapping_add(rule::SIGNAL_RBP), next.bp);
                }
                self.push(sp.wrapping_add(rule::SIGNAL_RSP), next.sp);
                self.push(sp.wrapping_add(rule::SIGNAL_RIP), next.pc);
                return (self, None, true);
            }
            Kind::Unknown | Kind::BeforeRoot => {
                if next.needs_bp {
                    self.push(bp, next.bp);
                }
                self.push(bp.wrapping_add(8), next.pc);
            }
            Kind::Rsp | Kind::Rbp | Kind::End | Kind::NotCode | Kind::Slow => return (self, None, false),
        }
        (self, Some(bp), true)
    }
}
