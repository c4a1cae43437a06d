//! Unwind rules: what `.eh_frame` says about one pc, packed into 33 bits.
//!
//! A rule tells how to get from a frame to its caller. Nearly all code is described by three facts: where
//! the CFA (the value of rsp before the call) lies, that the return address is the word below it, and
//! where the caller's rbp was saved. [`Rule`] holds them, [`super::cache`] keeps them by pc:
//!
//! ```text
//!  63                        33 32    26 25      18 17          4 3    0
//! +----------------------------+--------+----------+-------------+------+
//! | tag (pc >> 16)             | gener. | rbp slot | CFA offset  | kind |
//! +----------------------------+--------+----------+-------------+------+
//!      the cache's                        the rule's own bits
//! ```
//!
//! The CFA offset is in words. The rbp slot k means "saved at CFA - 8k", 0 "not saved here". Large frames give
//! five bits of the slot to the offset ([`Kind::LargeRsp`]: up to 4 MiB). A frame with a realigned stack ([`Kind::Drap`]) counts both from rbp, with a bias. What does not fit is [`Kind::Slow`] and
//! is evaluated from the tables each time it is met.

use super::expression::{self, Inputs};
use super::row::{Cfa, Register, Row, reg};

/// Number of bits of a packed rule.
pub const BITS: u32 = 26;
const KIND_BITS: u32 = 4;
const OFFSET_BITS: u32 = 14;
const SLOT_SHIFT: u32 = KIND_BITS + OFFSET_BITS;
const OFFSET_BIAS: i64 = 1 << (OFFSET_BITS - 1);
const SLOT_BIAS: i64 = 1 << 7;
const LARGE_OFFSET_BITS: u32 = OFFSET_BITS + 5;

/// Offset of the saved rbp from the rsp of a signal frame (`ucontext` of x86-64 Linux).
pub const SIGNAL_RBP: usize = 120;
/// Offset of the interrupted rsp.
pub const SIGNAL_RSP: usize = 160;
/// Offset of the interrupted pc.
pub const SIGNAL_RIP: usize = 168;

/// How a frame's caller is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// CFA = rsp + offset.
    Rsp = 1,
    /// CFA = rbp + offset.
    Rbp = 2,
    /// The outermost frame: the return address is undefined.
    End = 3,
    /// CFA = *(rbp + offset), rbp = *(rbp + slot): the function has realigned its stack.
    Drap = 4,
    /// Return from a signal handler: the interrupted registers lie above rsp.
    Signal = 5,
    /// Executable memory without unwind tables.
    Unknown = 6,
    /// No executable memory: a pc here is no pc.
    NotCode = 7,
    /// Anything else: evaluate the tables.
    Slow = 8,
    /// As [`Kind::Rsp`], for a large frame: 5 bits of the slot's 8 belong to the offset.
    LargeRsp = 9,
    /// As [`Kind::Unknown`], right before a function that has tables. A return address that is the function's first byte was never
    /// pushed by a call: a stack that was made by hand begins there, as those of `makecontext` do.
    BeforeRoot = 10,
}

/// A packed rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule(u32);

const _: () = assert!(SLOT_SHIFT + 8 == BITS && BITS <= 32);

impl Rule {
    const fn new(kind: Kind, offset: u32, slot: u32) -> Self {
        Self(kind as u32 | offset << KIND_BITS | slot << SLOT_SHIFT)
    }

    /// A rule without operands.
    #[must_use]
    pub const fn plain(kind: Kind) -> Self {
        Self::new(kind, 0, 0)
    }

    /// From the bits of [`Rule::bits`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The [`BITS`] bits of this rule; never 0.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether the kind is [`Kind::Rsp`], that of most rules.
    #[inline(always)]
    #[must_use]
    pub const fn is_rsp(self) -> bool {
        self.0 & ((1 << KIND_BITS) - 1) == Kind::Rsp as u32
    }

    /// Whether the kind is [`Kind::Rbp`], that of nearly all others.
    #[inline(always)]
    #[must_use]
    pub const fn is_rbp(self) -> bool {
        self.0 & ((1 << KIND_BITS) - 1) == Kind::Rbp as u32
    }

    /// The kind.
    #[inline(always)]
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self.0 & ((1 << KIND_BITS) - 1) {
            1 => Kind::Rsp,
            2 => Kind::Rbp,
            3 => Kind::End,
            4 => Kind::Drap,
            5 => Kind::Signal,
            6 => Kind::Unknown,
            7 => Kind::NotCode,
            9 => Kind::LargeRsp,
            10 => Kind::BeforeRoot,
            _ => Kind::Slow,
        }
    }

    /// [`Rule::cfa_offset`] of [`Kind::Rsp`] and [`Kind::Rbp`].
    #[inline(always)]
    #[must_use]
    pub const fn small_cfa_offset(self) -> usize {
        ((self.0 >> KIND_BITS & ((1 << OFFSET_BITS) - 1)) as usize) << 3
    }

    /// [`Rule::bp_below_cfa`] of [`Kind::Rsp`] and [`Kind::Rbp`].
    #[inline(always)]
    #[must_use]
    pub const fn small_bp_below_cfa(self) -> usize {
        ((self.0 >> SLOT_SHIFT) as usize) << 3
    }

    const fn offset_bits(self) -> u32 {
        if matches!(self.kind(), Kind::LargeRsp) { LARGE_OFFSET_BITS } else { OFFSET_BITS }
    }

    /// CFA offset in bytes, for [`Kind::Rsp`], [`Kind::LargeRsp`] and [`Kind::Rbp`].
    #[inline(always)]
    #[must_use]
    pub const fn cfa_offset(self) -> usize {
        ((self.0 >> KIND_BITS & ((1 << self.offset_bits()) - 1)) as usize) << 3
    }

    /// Distance from the CFA down to the saved rbp in bytes, for the same kinds; 0 where it is not saved.
    #[inline(always)]
    #[must_use]
    pub const fn bp_below_cfa(self) -> usize {
        ((self.0 >> (KIND_BITS + self.offset_bits())) as usize) << 3
    }

    /// Offset from rbp of the word that holds the CFA, for [`Kind::Drap`].
    #[inline(always)]
    #[must_use]
    pub const fn drap_cfa_offset(self) -> isize {
        (((self.0 >> KIND_BITS & ((1 << OFFSET_BITS) - 1)) as i64 - OFFSET_BIAS) * 8) as isize
    }

    /// Offset from rbp of the word that holds the caller's rbp, for [`Kind::Drap`].
    #[inline(always)]
    #[must_use]
    pub const fn drap_bp_offset(self) -> isize {
        (((self.0 >> SLOT_SHIFT & 0xff) as i64 - SLOT_BIAS) * 8) as isize
    }

    /// Packs a row of the tables. `pc` is where it applies; `signal` says that its CIE is marked as a signal frame.
    #[must_use]
    pub fn pack(row: &Row, section: &[u8], pc: usize, signal: bool) -> Self {
        let slow = Self::plain(Kind::Slow);
        if signal {
            return if is_standard_signal_frame(row, section) { Self::plain(Kind::Signal) } else { slow };
        }
        match row.register(reg::RA) {
            Register::Undefined => return Self::plain(Kind::End),
            Register::Offset(-8) => {}
            _ => return slow,
        }
        if !matches!(row.register(reg::RSP), Register::Unspecified) {
            return slow;
        }
        let packed = match row.cfa {
            Cfa::Register { register, offset } => Self::pack_offset(row, register, offset),
            Cfa::Expression(bytes) => match bytes.of(section) {
                Some(code) => Self::pack_drap(row, section, code).or_else(|| Self::pack_plt(row, code, pc)),
                None => None,
            },
            Cfa::Unset => None,
        };
        packed.unwrap_or(slow)
    }

    fn pack_offset(row: &Row, register: u8, offset: i32) -> Option<Self> {
        let kind = match usize::from(register) {
            reg::RSP => Kind::Rsp,
            reg::RBP => Kind::Rbp,
            _ => return None,
        };
        let (words, slot) = (words(offset)?, slot_below_cfa(row)?);
        if words < 1 << OFFSET_BITS {
            return Some(Self::new(kind, words, slot));
        }
        let fits = kind == Kind::Rsp && words < 1 << LARGE_OFFSET_BITS && slot < 8;
        let bits = Kind::LargeRsp as u32 | words << KIND_BITS;
        if fits { Some(Self(bits | slot << (KIND_BITS + LARGE_OFFSET_BITS))) } else { None }
    }

    /// A PLT entry's CFA depends on nothing but pc and rsp: so, for one pc, on rsp alone.
    fn pack_plt(row: &Row, code: &[u8], pc: usize) -> Option<Self> {
        let cfa = |rsp: usize| {
            let known = |register: usize| match register {
                reg::RSP => Some(rsp),
                reg::RA => Some(pc),
                _ => None,
            };
            expression::evaluate(code, None, &Inputs { register: &known, memory: &|_| None })
        };
        let offset = cfa(1 << 20)?.wrapping_sub(1 << 20);
        if offset != cfa(1 << 21)?.wrapping_sub(1 << 21) {
            return None;
        }
        Self::pack_offset(row, reg::RSP as u8, i32::try_from(offset).ok()?)
    }

    fn pack_drap(row: &Row, section: &[u8], code: &[u8]) -> Option<Self> {
        let (reg::RBP, offset, true) = expression::base_offset(code)? else { return None };
        let Register::Expression(bytes) = row.register(reg::RBP) else { return None };
        let (reg::RBP, slot, false) = expression::base_offset(bytes.of(section)?)? else { return None };
        if offset % 8 != 0 || slot % 8 != 0 {
            return None;
        }
        let (offset, slot) = (offset / 8 + OFFSET_BIAS, slot / 8 + SLOT_BIAS);
        let fits = (0..1 << OFFSET_BITS).contains(&offset) && (0..1 << 8).contains(&slot);
        fits.then(|| Self::new(Kind::Drap, offset as u32, slot as u32))
    }
}

fn words(bytes: i32) -> Option<u32> {
    (bytes >= 0 && bytes % 8 == 0).then_some(bytes as u32 / 8)
}

fn slot_below_cfa(row: &Row) -> Option<u32> {
    match row.register(reg::RBP) {
        Register::Unspecified | Register::Same => Some(0),
        Register::Offset(offset) => words(-offset).filter(|slot| (1..1 << 8).contains(slot)),
        _ => None,
    }
}

/// Whether the row is what the kernel's `rt_sigframe` needs: rip, rsp and rbp at their places in the `ucontext`
/// that rsp points to.
fn is_standard_signal_frame(row: &Row, section: &[u8]) -> bool {
    let at = |register: usize, offset: usize| match row.register(register) {
        Register::Expression(bytes) => {
            bytes.of(section).and_then(expression::base_offset) == Some((reg::RSP, offset as i64, false))
        }
        _ => false,
    };
    let cfa = match row.cfa {
        Cfa::Expression(bytes) => bytes.of(section).and_then(expression::base_offset),
        _ => None,
    };
    cfa == Some((reg::RSP, SIGNAL_RSP as i64, true))
        && at(reg::RA, SIGNAL_RIP)
        && at(reg::RBP, SIGNAL_RBP)
        && at(reg::RSP, SIGNAL_RSP)
}
