//! One step of unwinding: from a frame to its caller.
//!
//! A frame's state is (pc, rsp, rbp, whether pc is exact). A *return address* points behind its call, which may be the
//! last instruction of a function: the rule is that of `pc - 1`. Only the frame that a signal interrupted has an
//! *exact* pc. The other registers don't matter: compilers describe frames by rsp and rbp alone, and what doesn't
//! fit is left to [`super::slow`].
//!
//! **The end.** A frame whose return address is undefined (`_start`, a thread's start), or a return address of 0.
//!
//! **Code without tables.** If rbp could be a frame pointer (aligned, on this stack, and the word above what it
//! points to is a pc in executable memory), the step is taken and its frame marked as guessed. Otherwise the walk
//! ends there, truncated.
//!
//! **Sanity.** The stack only ever ends further out: a step that does not move rsp upwards ends the walk, unless a
//! signal frame led to another stack. And no word is read that might not be there, see [`super::bounds`].

use super::bounds::Bounds;
use super::rule::{self, Kind, Rule};
use super::slow;

/// How a pc was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pc {
    /// A return address.
    Return,
    /// The pc of an interrupted instruction.
    Exact,
    /// A return address that a frame pointer led to.
    Guessed,
}

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it goes on.
    pub pc: usize,
    /// rsp at that point.
    pub sp: usize,
    /// rbp at that point.
    pub bp: usize,
    /// How `pc` was found.
    pub kind: Pc,
    /// Behind a signal frame: the address of its `ucontext`, with all registers; else 0.
    pub context: usize,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The caller.
    Caller(Frame),
    /// This was the outermost frame.
    End,
    /// There is a caller, but it can't be found.
    Truncated,
}

impl Frame {
    /// The address whose rule applies.
    #[inline(always)]
    #[must_use]
    pub const fn rule_address(&self) -> usize {
        match self.kind {
            Pc::Exact => self.pc,
            Pc::Return | Pc::Guessed => self.pc.wrapping_sub(1),
        }
    }

    /// Steps to the caller. `rules` finds rules, for the plausibility of guesses.
    #[inline(always)]
    #[must_use]
    pub fn step(&self, rule: Rule, bounds: &mut Bounds, rules: impl FnMut(usize) -> Rule) -> Step {
        let cfa = match rule.kind() {
            Kind::Rsp => self.sp.wrapping_add(rule.cfa_offset()),
            Kind::Rbp => self.bp.wrapping_add(rule.cfa_offset()),
            _ => return self.rare_step(rule, bounds, rules),
        };
        if cfa <= self.sp {
            return Step::Truncated;
        }
        let Some(pc) = bounds.read(cfa.wrapping_sub(8)) else { return Step::Truncated };
        let bp = match rule.bp_below_cfa() {
            0 => self.bp,
            below => match bounds.read(cfa.wrapping_sub(below)) {
                Some(bp) => bp,
                None => return Step::Truncated,
            },
        };
        returned(pc, cfa, bp)
    }

    #[cold]
    #[inline(never)]
    fn rare_step(&self, rule: Rule, bounds: &mut Bounds, rules: impl FnMut(usize) -> Rule) -> Step {
        match rule.kind() {
            Kind::End => Step::End,
            Kind::Drap => self.drap_step(rule, bounds).unwrap_or(Step::Truncated),
            Kind::Signal => self.signal_step(bounds).unwrap_or(Step::Truncated),
            Kind::Unknown => self.guess(bounds, rules).map_or(Step::Truncated, Step::Caller),
            Kind::Slow => slow::step(self, bounds).unwrap_or(Step::Truncated),
            Kind::NotCode | Kind::Rsp | Kind::Rbp => Step::Truncated,
        }
    }

    fn drap_step(&self, rule: Rule, bounds: &mut Bounds) -> Option<Step> {
        let cfa = bounds.read(self.bp.wrapping_add_signed(rule.drap_cfa_offset()))?;
        let bp = bounds.read(self.bp.wrapping_add_signed(rule.drap_bp_offset()))?;
        if cfa <= self.sp {
            return None;
        }
        Some(returned(bounds.read(cfa.wrapping_sub(8))?, cfa, bp))
    }

    fn signal_step(&self, bounds: &mut Bounds) -> Option<Step> {
        let register = |bounds: &mut Bounds, offset| bounds.read(self.sp.wrapping_add(offset));
        let pc = register(bounds, rule::SIGNAL_RIP)?;
        let sp = register(bounds, rule::SIGNAL_RSP)?;
        let bp = register(bounds, rule::SIGNAL_RBP)?;
        bounds.enter(sp);
        Some(Step::Caller(Frame { pc, sp, bp, kind: Pc::Exact, context: self.sp }))
    }

    /// The caller by rbp, where that is plausible.
    fn guess(&self, bounds: &mut Bounds, mut rules: impl FnMut(usize) -> Rule) -> Option<Frame> {
        const FARTHEST: usize = 1 << 20;
        if !self.bp.is_multiple_of(8) || self.bp < self.sp || self.bp - self.sp > FARTHEST {
            return None;
        }
        let bp = bounds.read(self.bp)?;
        let pc = bounds.read(self.bp + 8)?;
        if pc == 0 || rules(pc.wrapping_sub(1)).kind() == Kind::NotCode {
            return None;
        }
        Some(Frame { pc, sp: self.bp + 16, bp, kind: Pc::Guessed, context: 0 })
    }
}

#[inline(always)]
fn returned(pc: usize, sp: usize, bp: usize) -> Step {
    if pc == 0 {
        return Step::End;
    }
    Step::Caller(Frame { pc, sp, bp, kind: Pc::Return, context: 0 })
}
