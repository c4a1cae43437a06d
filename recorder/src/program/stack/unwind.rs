//! One step of unwinding: from a frame to its caller.
//!
//! A frame's state is (pc, rsp, rbp, whether pc is exact). A *return address* points behind its call, which may be the
//! last instruction of a function: the rule is that of `pc - 1`. Only the frame that a signal interrupted has an
//! *exact* pc. The other registers don't matter: compilers describe frames by rsp and rbp alone, and what doesn't
//! fit is left to [`super::slow`].
//!
//! **The end.** A frame whose return address is undefined (`_start`, a thread's start), or a return address of 0. Or one
//! that no call has pushed, because it is a function's first byte and nothing covers the byte before: a coroutine's stack begins
//! with it, and what rbp says there is of whoever switched to it.
//!
//! **Code without tables.** If rbp could be a frame pointer (aligned, on this stack, and the word above what it
//! points to is a pc in executable memory), the step is taken and its frame marked as guessed. Otherwise the walk
//! ends there, truncated. rbp may as well be anything, so what such a step reads, and all steps behind it, is nothing that an
//! unwinder reads: it is asked for anew, see [`super::bounds`].
//!
//! **Sanity.** The stack only ever ends further out: a step that does not move rsp upwards ends the walk, unless a
//! signal frame led to another stack. And no word is read that might not be there, see [`super::bounds`].

use super::bounds::Bounds;
use super::rule::{self, Kind, Rule};
use super::slow;
use memscope_shared::record::{self, kind};

/// Where a frame's rbp is. Most frames don't need it, so it is loaded when one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bp {
    /// Address of the word that holds it; 0 where `value` is it.
    pub slot: usize,
    /// The value, if there is no slot; else anything.
    pub value: usize,
}

impl Bp {
    /// A known value.
    #[inline(always)]
    #[must_use]
    pub const fn known(value: usize) -> Self {
        Self { slot: 0, value }
    }

    /// Saved in the word at this address.
    #[inline(always)]
    #[must_use]
    pub const fn saved(slot: usize) -> Self {
        Self { slot, value: 0 }
    }

    /// That of a frame's caller, by a rule of the kind [`Kind::Rsp`] or [`Kind::Rbp`].
    #[inline(always)]
    #[must_use]
    pub const fn of_caller(self, rule: Rule, cfa: usize) -> Self {
        match rule.small_bp_below_cfa() {
            0 => self,
            below => Self { slot: cfa.wrapping_sub(below), ..self },
        }
    }

    /// The value.
    #[inline(always)]
    #[must_use]
    pub fn load(self, bounds: &mut Bounds) -> Option<usize> {
        if self.slot == 0 { Some(self.value) } else { bounds.read(self.slot) }
    }
}

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it goes on, and how that was found, as the first word of a node's record: `NODE` for a return address,
    /// `NODE_EXACT` for an interrupted instruction, `NODE_GUESSED` where a frame pointer led.
    pub key: u64,
    /// rsp at that point.
    pub sp: usize,
    /// rbp at that point.
    pub bp: Bp,
    /// What the walk has come through.
    pub context: Context,
}

/// How a walk has come to a frame, as far as that is not plain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Address of the `ucontext` of the last frame that a signal interrupted, 0 if there is none.
    pub address: usize,
    /// That frame's rsp.
    pub sp: usize,
    /// Whether a step was guessed on the way.
    pub guessed: bool,
}

impl Context {
    /// By plain steps.
    pub const NONE: Self = Self { address: 0, sp: 0, guessed: false };

    /// What is behind a frame of this context, for a frame of that one.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, inner: Self) -> Self {
        let last = if self.address == 0 { inner } else { self };
        Self { guessed: self.guessed | inner.guessed, ..last }
    }
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The caller.
    Caller(Frame),
    /// This was the outermost frame. The word at this address, if it isn't 0, said so: a return address of 0.
    End(usize),
    /// There is a caller, but it can't be found.
    Truncated,
}

impl Frame {
    /// A frame of a return address.
    #[inline(always)]
    #[must_use]
    pub const fn returned(pc: usize, sp: usize, bp: Bp) -> Self {
        Self { key: record::head(kind::NODE, pc as u64), sp, bp, context: Context::NONE }
    }

    /// This frame, reached through all that the walk has come through so far.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, inner: &Self) -> Self {
        Self { context: self.context.after(inner.context), ..self }
    }

    /// Where it goes on.
    #[inline(always)]
    #[must_use]
    pub const fn pc(&self) -> usize {
        record::operand(self.key) as usize
    }

    /// Whether `pc` is that of an interrupted instruction.
    #[inline(always)]
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        record::kind_of(self.key) == kind::NODE_EXACT
    }

    /// The address whose rule applies.
    #[inline(always)]
    #[must_use]
    pub const fn rule_address(&self) -> usize {
        self.pc().wrapping_sub(!self.is_exact() as usize)
    }

    /// The caller by a rule of the kind [`Kind::Rsp`] or [`Kind::Rbp`], of the frame at `sp`, where `base` is the register
    /// that the rule counts from: (return address, CFA). `None` for what [`Frame::step`] is to look at.
    #[inline(always)]
    #[must_use]
    pub fn plain_step(sp: usize, base: usize, rule: Rule, bounds: &Bounds) -> Option<(usize, usize)> {
        let cfa = Self::plain_cfa(sp, base, rule, bounds)?;
        // SAFETY: the word lies between rsp and the end of what is readable.
        let pc = unsafe { (cfa as *const usize).sub(1).read_unaligned() };
        is_plausible(pc).then_some((pc, cfa))
    }

    /// The CFA of [`Frame::plain_step`], where it is further out than `sp` and the word below it is readable.
    #[inline(always)]
    #[must_use]
    pub fn plain_cfa(sp: usize, base: usize, rule: Rule, bounds: &Bounds) -> Option<usize> {
        let cfa = base.wrapping_add(rule.small_cfa_offset());
        (cfa > sp && bounds.covers(cfa)).then_some(cfa)
    }

    /// Steps to the caller. `rules` finds rules, for the plausibility of guesses.
    ///
    /// Takes the frame by value, so that a walk's frame can stay in registers.
    #[cold]
    #[inline(never)]
    pub fn step(self, rule: Rule, bounds: &mut Bounds, rules: impl FnMut(usize) -> Rule) -> Step {
        let step = match rule.kind() {
            Kind::Rsp | Kind::LargeRsp => self.step_from(self.sp, rule, bounds),
            Kind::Rbp => self.bp.load(bounds).and_then(|bp| self.step_from(bp, rule, bounds)),
            Kind::Drap => self.drap_step(rule, bounds),
            Kind::Signal => self.signal_step(bounds),
            Kind::BeforeRoot if !self.is_exact() => Some(Step::End(0)),
            Kind::Unknown | Kind::BeforeRoot => self.guess(bounds, rules).map(Step::Caller),
            Kind::Slow => slow::step(&self, bounds),
            Kind::End => Some(Step::End(0)),
            Kind::NotCode => None,
        };
        step.unwrap_or(Step::Truncated)
    }

    fn step_from(self, base: usize, rule: Rule, bounds: &mut Bounds) -> Option<Step> {
        let cfa = base.wrapping_add(rule.cfa_offset());
        if cfa <= self.sp {
            return None;
        }
        let bp = match rule.bp_below_cfa() {
            0 => self.bp,
            below => Bp::saved(cfa.wrapping_sub(below)),
        };
        Some(returned(bounds.below(cfa)?, cfa, bp))
    }

    fn drap_step(&self, rule: Rule, bounds: &mut Bounds) -> Option<Step> {
        let bp = self.bp.load(bounds)?;
        let cfa = bounds.read(bp.wrapping_add_signed(rule.drap_cfa_offset()))?;
        if cfa <= self.sp {
            return None;
        }
        let pc = bounds.below(cfa)?;
        Some(returned(pc, cfa, Bp::saved(bp.wrapping_add_signed(rule.drap_bp_offset()))))
    }

    fn signal_step(&self, bounds: &mut Bounds) -> Option<Step> {
        let register = |bounds: &mut Bounds, offset| bounds.read(self.sp.wrapping_add(offset));
        let pc = register(bounds, rule::SIGNAL_RIP)?;
        let sp = register(bounds, rule::SIGNAL_RSP)?;
        let bp = Bp::known(register(bounds, rule::SIGNAL_RBP)?);
        bounds.enter(sp);
        let key = record::head(kind::NODE_EXACT, pc as u64);
        Some(Step::Caller(Frame { key, sp, bp, context: Context { address: self.sp, sp, guessed: false } }))
    }

    /// The caller by rbp, where that is plausible.
    fn guess(&self, bounds: &mut Bounds, mut rules: impl FnMut(usize) -> Rule) -> Option<Frame> {
        const FARTHEST: usize = 1 << 20;
        let base = self.bp.load(bounds)?;
        if !base.is_multiple_of(8) || base < self.sp || base - self.sp > FARTHEST {
            return None;
        }
        if !self.context.guessed {
            bounds.doubt(self.sp);
        }
        let bp = Bp::known(bounds.read(base)?);
        let pc = bounds.read(base + 8)?;
        if !is_plausible(pc) || rules(pc.wrapping_sub(1)).kind() == Kind::NotCode {
            return None;
        }
        Some(Frame {
            key: record::head(kind::NODE_GUESSED, pc as u64),
            sp: base + 16,
            bp,
            context: Context { guessed: true, ..Context::NONE },
        })
    }
}

/// Whether a return address can be one: not 0, and not more than a record can hold.
#[inline(always)]
#[must_use]
pub const fn is_plausible(pc: usize) -> bool {
    pc.wrapping_sub(1) < record::OPERAND_MASK as usize
}

/// The caller, by the return address below the CFA.
fn returned(pc: usize, cfa: usize, bp: Bp) -> Step {
    match pc {
        0 => Step::End(cfa.wrapping_sub(8)),
        pc if is_plausible(pc) => Step::Caller(Frame::returned(pc, cfa, bp)),
        _ => Step::Truncated,
    }
}
