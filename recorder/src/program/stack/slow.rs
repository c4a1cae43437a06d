//! Steps that no packed rule describes: evaluated from the tables, each time.
//!
//! That is hand-written assembly (a CFA in another register, or loaded from the stack) and frames too large for a
//! packed rule. Known registers are rsp, rbp and pc; in the frame that a signal interrupted, all of them,
//! from the signal frame. A rule that needs another one further out, as the loader's lazy binder does, is evaluated
//! after a second walk: from the interrupted frame, with all callee-saved registers. Without a signal frame on the way
//! there is nothing to begin such a walk with, and the stack is truncated.

use super::bounds::Bounds;
use super::cfi::Tables;
use super::expression::{self, Inputs};
use super::modules;
use super::row::{Cfa, Place, Register, Row, reg};
use super::unwind::{Bp, Context, Frame, Step};
use core::cell::RefCell;
use memscope_shared::record::{self, kind};

/// Places of the registers in a `ucontext`, by DWARF number.
const CONTEXT: [usize; reg::COUNT] =
    [144, 136, 152, 128, 112, 104, 120, 160, 40, 48, 56, 64, 72, 80, 88, 96, 168];

/// Registers that a called function leaves as they are, or saves.
const CALLEE_SAVED: [usize; 6] = [reg::RBX, reg::RBP, 12, 13, 14, 15];

/// Longest second walk, in frames. What a signal interrupts in the lazy binder is a few frames further in.
const LONGEST: usize = 256;

/// What is known of a frame's registers, by DWARF number; `RA` is the pc.
type Registers = [Option<usize>; reg::COUNT];

/// A frame with its registers.
struct Machine<'a> {
    registers: Registers,
    is_exact: bool,
    bounds: RefCell<&'a mut Bounds>,
}

/// What the tables say about a frame.
struct Described {
    row: Row,
    section: &'static [u8],
    is_signal: bool,
}

/// Steps to the caller.
#[cold]
#[must_use]
pub fn step(frame: &Frame, bounds: &mut Bounds) -> Option<Step> {
    let mut registers: Registers = [None; reg::COUNT];
    registers[reg::RSP] = Some(frame.sp);
    registers[reg::RBP] = frame.bp.load(bounds);
    registers[reg::RA] = Some(frame.pc());
    if frame.context.sp == frame.sp {
        registers = frame.context.registers().unwrap_or(registers);
    }
    let mut machine = Machine { registers, is_exact: frame.is_exact(), bounds: RefCell::new(bounds) };
    let described = machine.described()?;
    machine.step(&described).or_else(|| {
        machine.walk_to(frame)?;
        machine.step(&described)
    })
}

impl Context {
    /// All registers of the interrupted frame.
    fn registers(self) -> Option<Registers> {
        let mut bounds = Bounds::default();
        bounds.enter(self.address);
        let mut registers = CONTEXT.map(|offset| self.address.checked_add(offset));
        for register in &mut registers {
            *register = Some(bounds.read((*register)?)?);
        }
        Some(registers)
    }
}

impl Machine<'_> {
    fn register(&self, register: usize) -> Option<usize> {
        self.registers.get(register).copied().flatten()
    }

    fn memory(&self, address: usize) -> Option<usize> {
        self.bounds.try_borrow_mut().ok()?.read(address)
    }

    fn described(&self) -> Option<Described> {
        let address = self.register(reg::RA)?.wrapping_sub(usize::from(!self.is_exact));
        let (module, _) = modules::find(address, None)?;
        let tables = Tables::of(&module)?;
        let fde = tables.fde(address)?;
        let row = tables.row(&fde, address)?;
        Some(Described { row, section: tables.section(), is_signal: fde.is_signal_trampoline() })
    }

    fn evaluate(&self, place: Place, section: &[u8], initial: Option<usize>) -> Option<usize> {
        let inputs =
            Inputs { register: &|register| self.register(register), memory: &|address| self.memory(address) };
        expression::evaluate(place.of(section)?, initial, &inputs)
    }

    fn cfa(&self, described: &Described) -> Option<usize> {
        match described.row.cfa {
            Cfa::Register { register, offset } => {
                Some(self.register(usize::from(register))?.wrapping_add_signed(offset as isize))
            }
            Cfa::Expression(place) => self.evaluate(place, described.section, None),
            Cfa::Unset => None,
        }
    }

    /// The caller's value of a register.
    fn caller(&self, described: &Described, register: usize, cfa: usize) -> Option<usize> {
        match described.row.register(register) {
            Register::Unspecified if register == reg::RSP => Some(cfa),
            Register::Unspecified | Register::Same => self.register(register),
            Register::Undefined => None,
            Register::Offset(offset) => self.memory(cfa.wrapping_add_signed(offset as isize)),
            Register::ValOffset(offset) => Some(cfa.wrapping_add_signed(offset as isize)),
            Register::Expression(place) => self.memory(self.evaluate(place, described.section, Some(cfa))?),
            Register::ValExpression(place) => self.evaluate(place, described.section, Some(cfa)),
            Register::Register(other) => self.register(usize::from(other)),
        }
    }

    fn step(&self, described: &Described) -> Option<Step> {
        let cfa = self.cfa(described)?;
        if described.row.register(reg::RA) == Register::Undefined {
            return Some(Step::End(0));
        }
        let pc = self.caller(described, reg::RA, cfa)?;
        let sp = self.caller(described, reg::RSP, cfa)?;
        let bp = Bp::known(self.caller(described, reg::RBP, cfa).unwrap_or(0));
        if pc == 0 {
            return Some(Step::End(0));
        }
        if described.is_signal {
            self.bounds.try_borrow_mut().ok()?.enter(sp);
        } else if sp <= self.register(reg::RSP)? {
            return None;
        }
        if pc as u64 > record::OPERAND_MASK {
            return None;
        }
        let kind = if described.is_signal { kind::NODE_EXACT } else { kind::NODE };
        Some(Step::Caller(Frame { key: record::head(kind, pc as u64), sp, bp, context: Context::NONE }))
    }

    /// Walks from the interrupted frame to `frame`, with all registers that can be known.
    fn walk_to(&mut self, frame: &Frame) -> Option<()> {
        if frame.context.address == 0 || frame.context.sp >= frame.sp {
            return None;
        }
        (self.registers, self.is_exact) = (frame.context.registers()?, true);
        for _ in 0..LONGEST {
            let before = self.register(reg::RSP)?;
            if before == frame.sp {
                return (self.register(reg::RA)? == frame.pc()).then_some(());
            }
            self.go_to_caller()?;
            let after = self.register(reg::RSP)?;
            if after <= before || after > frame.sp {
                return None;
            }
        }
        None
    }

    fn go_to_caller(&mut self) -> Option<()> {
        let described = self.described()?;
        let cfa = self.cfa(&described)?;
        let mut registers: Registers = [None; reg::COUNT];
        for register in CALLEE_SAVED.into_iter().chain([reg::RSP, reg::RA]) {
            registers[register] = self.caller(&described, register, cfa);
        }
        (self.registers, self.is_exact) = (registers, false);
        Some(())
    }
}
