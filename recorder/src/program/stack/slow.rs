//! Steps that no packed rule describes: evaluated from the tables, each time.
//!
//! That is hand-written assembly (a CFA in another register, or loaded from the stack) and frames too large for a
//! packed rule. Known registers are rsp, rbp and pc; in the frame that a signal interrupted, all of them,
//! from the signal frame. A rule that needs another one cannot be evaluated here.

use super::bounds::Bounds;
use super::cfi::Tables;
use super::expression::{self, Inputs};
use super::modules;
use super::row::{Cfa, Place, Register, Row, reg};
use super::unwind::{Bp, Frame, Step};
use core::cell::RefCell;
use memscope_shared::record::{self, kind};

/// Places of the registers in a `ucontext`, by DWARF number.
const CONTEXT: [usize; reg::COUNT] =
    [144, 136, 152, 128, 112, 104, 120, 160, 40, 48, 56, 64, 72, 80, 88, 96, 168];

struct Machine<'a> {
    frame: &'a Frame,
    section: &'a [u8],
    bounds: RefCell<&'a mut Bounds>,
    /// The bounds of the stack that the signal frame lies on.
    context_bounds: RefCell<Bounds>,
}

/// Steps to the caller.
#[cold]
#[must_use]
pub fn step(frame: &Frame, bounds: &mut Bounds) -> Option<Step> {
    let address = frame.rule_address();
    let (module, _) = modules::find(address, None)?;
    let tables = Tables::of(&module)?;
    let fde = tables.fde(address)?;
    let row = tables.row(&fde, address)?;
    let mut context_bounds = Bounds::default();
    context_bounds.enter(frame.context);
    let machine = Machine {
        frame,
        section: tables.section(),
        bounds: RefCell::new(bounds),
        context_bounds: RefCell::new(context_bounds),
    };
    machine.step(&row, fde.is_signal_trampoline())
}

impl Machine<'_> {
    fn register(&self, register: usize) -> Option<usize> {
        match register {
            reg::RSP => Some(self.frame.sp),
            reg::RBP => self.frame.bp.load(*self.bounds.try_borrow_mut().ok()?),
            reg::RA => Some(self.frame.pc()),
            _ if self.frame.context != 0 => {
                let place = self.frame.context.checked_add(*CONTEXT.get(register)?)?;
                self.context_bounds.try_borrow_mut().ok()?.read(place)
            }
            _ => None,
        }
    }

    fn memory(&self, address: usize) -> Option<usize> {
        self.bounds.try_borrow_mut().ok()?.read(address)
    }

    fn evaluate(&self, place: Place, initial: Option<usize>) -> Option<usize> {
        let inputs =
            Inputs { register: &|register| self.register(register), memory: &|address| self.memory(address) };
        expression::evaluate(place.of(self.section)?, initial, &inputs)
    }

    fn caller(&self, rule: Register, register: usize, cfa: usize) -> Option<usize> {
        match rule {
            Register::Unspecified if register == reg::RSP => Some(cfa),
            Register::Unspecified | Register::Same => self.register(register),
            Register::Undefined => None,
            Register::Offset(offset) => self.memory(cfa.wrapping_add_signed(offset as isize)),
            Register::ValOffset(offset) => Some(cfa.wrapping_add_signed(offset as isize)),
            Register::Expression(place) => self.memory(self.evaluate(place, Some(cfa))?),
            Register::ValExpression(place) => self.evaluate(place, Some(cfa)),
            Register::Register(other) => self.register(usize::from(other)),
        }
    }

    fn step(&self, row: &Row, signal: bool) -> Option<Step> {
        let cfa = match row.cfa {
            Cfa::Register { register, offset } => {
                self.register(usize::from(register))?.wrapping_add_signed(offset as isize)
            }
            Cfa::Expression(place) => self.evaluate(place, None)?,
            Cfa::Unset => return None,
        };
        if row.register(reg::RA) == Register::Undefined {
            return Some(Step::End(0));
        }
        let pc = self.caller(row.register(reg::RA), reg::RA, cfa)?;
        let sp = self.caller(row.register(reg::RSP), reg::RSP, cfa)?;
        let bp = Bp::known(self.caller(row.register(reg::RBP), reg::RBP, cfa).unwrap_or(0));
        if pc == 0 {
            return Some(Step::End(0));
        }
        if signal {
            self.bounds.try_borrow_mut().ok()?.enter(sp);
        } else if sp <= self.frame.sp {
            return None;
        }
        if pc as u64 > record::OPERAND_MASK {
            return None;
        }
        let kind = if signal { kind::NODE_EXACT } else { kind::NODE };
        Some(Step::Caller(Frame { key: record::head(kind, pc as u64), sp, bp, context: 0 }))
    }
}
