//! One row of the unwind tables: where the caller's registers are, at one pc.
//!
//! gimli decodes the entries and their instructions; the small machine here executes them. It keeps a row in 160 bytes
//! (gimli's own context has room for every register of every architecture, 10 KB and more, too much for a signal
//! stack) and knows the 17 registers that matter on x86-64.

use gimli::{
    CallFrameInstruction, CallFrameInstructionIter, EhFrame, EndianSlice, FrameDescriptionEntry,
    LittleEndian, UnwindExpression,
};

/// The bytes of a section.
pub type Bytes = EndianSlice<'static, LittleEndian>;
/// `.eh_frame` of a module.
pub type Frames = EhFrame<Bytes>;
/// A function's entry.
pub type Fde = FrameDescriptionEntry<Bytes>;

/// DWARF numbers of the registers of x86-64.
pub mod reg {
    /// Callee-saved.
    pub const RBX: usize = 3;
    /// Frame pointer.
    pub const RBP: usize = 6;
    /// Stack pointer.
    pub const RSP: usize = 7;
    /// Return address, and as the input of an expression the pc.
    pub const RA: usize = 16;
    /// How many there are.
    pub const COUNT: usize = 17;
}

/// How many states `DW_CFA_remember_state` can nest. Compilers nest one, assembly two.
const NESTED: usize = 4;

/// Where an expression lies in its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    length: u16,
    /// The low half first: aligned to 2 bytes, so that a [`Register`] takes 8.
    offset: [u16; 2],
}

impl Place {
    fn new(expression: UnwindExpression<usize>) -> Option<Self> {
        let offset = u32::try_from(expression.offset).ok()?;
        Some(Self {
            length: u16::try_from(expression.length).ok()?,
            offset: [offset as u16, (offset >> 16) as u16],
        })
    }

    /// The expression's bytes.
    #[must_use]
    pub fn of(self, section: &[u8]) -> Option<&[u8]> {
        let [low, high] = self.offset;
        let start = usize::from(low) | usize::from(high) << 16;
        section.get(start..start + usize::from(self.length))
    }
}

/// Where the caller's value of a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Nothing is said: as it is, if it is callee-saved.
    Unspecified,
    /// Lost.
    Undefined,
    /// As it is.
    Same,
    /// At CFA + offset.
    Offset(i32),
    /// Is CFA + offset.
    ValOffset(i32),
    /// At the address that an expression gives.
    Expression(Place),
    /// Is what an expression gives.
    ValExpression(Place),
    /// In another register.
    Register(u8),
}

/// How the CFA is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cfa {
    /// Nothing was said.
    Unset,
    /// Register + offset.
    Register {
        /// DWARF number.
        register: u8,
        /// Bytes.
        offset: i32,
    },
    /// What an expression gives.
    Expression(Place),
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The CFA.
    pub cfa: Cfa,
    registers: [Register; reg::COUNT],
}

const _: () = assert!(size_of::<Row>() <= 160);

impl Row {
    const EMPTY: Self = Self { cfa: Cfa::Unset, registers: [Register::Unspecified; reg::COUNT] };

    /// Where the caller's value of `register` is.
    #[must_use]
    pub fn register(&self, register: usize) -> Register {
        self.registers.get(register).copied().unwrap_or(Register::Undefined)
    }

    fn set(&mut self, register: gimli::Register, rule: Register) {
        if let Some(slot) = self.registers.get_mut(usize::from(register.0)) {
            *slot = rule;
        }
    }
}

/// Executes a function's entry up to `pc`. `None` where the tables are malformed or beyond this machine.
#[must_use]
pub fn at(frames: &Frames, bases: &gimli::BaseAddresses, fde: &Fde, pc: usize) -> Option<Row> {
    let cie = fde.cie();
    let mut machine = Machine {
        row: Row::EMPTY,
        initial: Row::EMPTY,
        saved: [Row::EMPTY; NESTED],
        depth: 0,
        location: fde.initial_address(),
        pc: pc as u64,
        code_factor: cie.code_alignment_factor(),
        data_factor: cie.data_alignment_factor(),
    };
    machine.execute(cie.instructions(frames, bases))?;
    machine.initial = machine.row;
    machine.location = fde.initial_address();
    machine.execute(fde.instructions(frames, bases))?;
    Some(machine.row)
}

struct Machine {
    row: Row,
    initial: Row,
    saved: [Row; NESTED],
    depth: usize,
    location: u64,
    pc: u64,
    code_factor: u64,
    data_factor: i64,
}

impl Machine {
    fn execute(&mut self, mut instructions: CallFrameInstructionIter<'_, Bytes>) -> Option<()> {
        while let Some(instruction) = instructions.next().ok()? {
            match instruction {
                CallFrameInstruction::SetLoc { address } => self.location = address,
                CallFrameInstruction::AdvanceLoc { delta } => {
                    let bytes = u64::from(delta).wrapping_mul(self.code_factor);
                    self.location = self.location.wrapping_add(bytes);
                }
                other => self.apply(other)?,
            }
            if self.location > self.pc {
                break;
            }
        }
        Some(())
    }

    fn factored(&self, offset: i64) -> Option<i32> {
        i32::try_from(offset.checked_mul(self.data_factor)?).ok()
    }

    fn apply(&mut self, instruction: CallFrameInstruction<usize>) -> Option<()> {
        use CallFrameInstruction as I;
        match instruction {
            I::DefCfa { register, offset } => self.row.cfa = cfa(register, i32::try_from(offset).ok()?)?,
            I::DefCfaSf { register, factored_offset } => {
                self.row.cfa = cfa(register, self.factored(factored_offset)?)?;
            }
            I::DefCfaRegister { register } => {
                let Cfa::Register { offset, .. } = self.row.cfa else { return None };
                self.row.cfa = cfa(register, offset)?;
            }
            I::DefCfaOffset { offset } => self.set_cfa_offset(i32::try_from(offset).ok()?)?,
            I::DefCfaOffsetSf { factored_offset } => {
                self.set_cfa_offset(self.factored(factored_offset)?)?;
            }
            I::DefCfaExpression { expression } => self.row.cfa = Cfa::Expression(Place::new(expression)?),
            I::RememberState => {
                *self.saved.get_mut(self.depth)? = self.row;
                self.depth += 1;
            }
            I::RestoreState => {
                self.depth = self.depth.checked_sub(1)?;
                self.row = *self.saved.get(self.depth)?;
            }
            other => self.apply_register(other)?,
        }
        Some(())
    }

    fn apply_register(&mut self, instruction: CallFrameInstruction<usize>) -> Option<()> {
        use CallFrameInstruction as I;
        let (register, rule) = match instruction {
            I::Undefined { register } => (register, Register::Undefined),
            I::SameValue { register } => (register, Register::Same),
            I::Offset { register, factored_offset } => {
                (register, Register::Offset(self.factored(i64::try_from(factored_offset).ok()?)?))
            }
            I::OffsetExtendedSf { register, factored_offset } => {
                (register, Register::Offset(self.factored(factored_offset)?))
            }
            I::ValOffset { register, factored_offset } => {
                (register, Register::ValOffset(self.factored(i64::try_from(factored_offset).ok()?)?))
            }
            I::ValOffsetSf { register, factored_offset } => {
                (register, Register::ValOffset(self.factored(factored_offset)?))
            }
            I::Register { dest_register, src_register } => {
                (dest_register, Register::Register(u8::try_from(src_register.0).ok()?))
            }
            I::Expression { register, expression } => {
                (register, Register::Expression(Place::new(expression)?))
            }
            I::ValExpression { register, expression } => {
                (register, Register::ValExpression(Place::new(expression)?))
            }
            I::Restore { register } => (register, self.initial.register(usize::from(register.0))),
            // Sizes of pushed arguments and padding say nothing about where registers are.
            _ => return Some(()),
        };
        self.row.set(register, rule);
        Some(())
    }

    fn set_cfa_offset(&mut self, new: i32) -> Option<()> {
        let Cfa::Register { register, .. } = self.row.cfa else { return None };
        self.row.cfa = Cfa::Register { register, offset: new };
        Some(())
    }
}

fn cfa(register: gimli::Register, offset: i32) -> Option<Cfa> {
    Some(Cfa::Register { register: u8::try_from(register.0).ok()?, offset })
}
