//! DWARF expressions, as far as unwind tables use them.
//!
//! Compilers and assemblers write only a handful: the PLT's (a comparison of the pc), the realigned stack's (a load
//! through rbp), the signal frame's, and those of hand-written cryptography (a load through rsp). The evaluator here
//! knows constants, registers, arithmetic and loads; it holds its stack in place and gives up on anything else.

use super::row::reg;

const DEPTH: usize = 8;

/// Where an expression's inputs come from. Both answer `None` for what is not known.
pub struct Inputs<'a> {
    /// Value of a register, by DWARF number.
    pub register: &'a dyn Fn(usize) -> Option<usize>,
    /// The word at an address.
    pub memory: &'a dyn Fn(usize) -> Option<usize>,
}

struct Code<'a>(&'a [u8]);

impl Code<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn little_endian(&mut self, bytes: u32) -> Option<u64> {
        let mut value = 0;
        for i in 0..bytes {
            value |= u64::from(self.byte()?) << (8 * i);
        }
        Some(value)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
    }

    fn signed(&mut self) -> Option<i64> {
        let (mut value, mut shift) = (0_i64, 0);
        loop {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                let negative = byte & 0x40 != 0 && shift < 64;
                return Some(if negative { value | (-1_i64 << shift) } else { value });
            }
        }
    }
}

struct Stack {
    values: [usize; DEPTH],
    len: usize,
}

impl Stack {
    fn push(&mut self, value: usize) -> Option<()> {
        *self.values.get_mut(self.len)? = value;
        self.len += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<usize> {
        self.len = self.len.checked_sub(1)?;
        self.values.get(self.len).copied()
    }

    fn peek(&self, below: usize) -> Option<usize> {
        self.values.get(self.len.checked_sub(below + 1)?).copied()
    }
}

/// Evaluates an expression; `initial` is what lies on its stack at the start (the CFA, for a register's rule).
#[must_use]
pub fn evaluate(code: &[u8], initial: Option<usize>, inputs: &Inputs<'_>) -> Option<usize> {
    let mut code = Code(code);
    let mut stack = Stack { values: [0; DEPTH], len: 0 };
    if let Some(value) = initial {
        stack.push(value)?;
    }
    while let Some(op) = code.byte() {
        match op {
            0x06 => {
                let address = stack.pop()?;
                stack.push((inputs.memory)(address)?)?;
            }
            0x08..=0x11 => stack.push(constant(op, &mut code)?)?,
            0x12 => stack.push(stack.peek(0)?)?,
            0x13 => drop(stack.pop()?),
            0x14 => stack.push(stack.peek(1)?)?,
            0x16 => {
                let (b, a) = (stack.pop()?, stack.pop()?);
                stack.push(b)?;
                stack.push(a)?;
            }
            0x1f => {
                let value = stack.pop()?.wrapping_neg();
                stack.push(value)?;
            }
            0x23 => {
                let value = stack.pop()?.wrapping_add(code.unsigned()? as usize);
                stack.push(value)?;
            }
            0x1a | 0x1c | 0x1e | 0x21 | 0x22 | 0x24..=0x27 | 0x29..=0x2e => {
                let (b, a) = (stack.pop()?, stack.pop()?);
                stack.push(binary(op, a, b)?)?;
            }
            0x30..=0x4f => stack.push(usize::from(op - 0x30))?,
            0x70..=0x8f => {
                let base = (inputs.register)(usize::from(op - 0x70))?;
                stack.push(base.wrapping_add_signed(code.signed()? as isize))?;
            }
            0x96 => {}
            _ => return None,
        }
    }
    stack.pop()
}

fn constant(op: u8, code: &mut Code<'_>) -> Option<usize> {
    Some(match op {
        0x08 | 0x0a | 0x0c | 0x0e => code.little_endian(1 << ((op - 0x08) / 2))? as usize,
        0x09 | 0x0b | 0x0d | 0x0f => {
            let bytes = 1 << ((op - 0x09) / 2);
            let unused = 64 - 8 * bytes;
            ((code.little_endian(bytes)? as i64) << unused >> unused) as usize
        }
        0x10 => code.unsigned()? as usize,
        0x11 => code.signed()? as usize,
        _ => return None,
    })
}

fn binary(op: u8, a: usize, b: usize) -> Option<usize> {
    let (signed_a, signed_b) = (a as isize, b as isize);
    let shift = u32::try_from(b).unwrap_or(u32::MAX);
    Some(match op {
        0x1a => a & b,
        0x1c => a.wrapping_sub(b),
        0x1e => a.wrapping_mul(b),
        0x21 => a | b,
        0x22 => a.wrapping_add(b),
        0x24 => a.checked_shl(shift).unwrap_or(0),
        0x25 => a.checked_shr(shift).unwrap_or(0),
        0x26 => signed_a.checked_shr(shift).unwrap_or(signed_a >> 63) as usize,
        0x27 => a ^ b,
        0x29 => usize::from(signed_a == signed_b),
        0x2a => usize::from(signed_a >= signed_b),
        0x2b => usize::from(signed_a > signed_b),
        0x2c => usize::from(signed_a <= signed_b),
        0x2d => usize::from(signed_a < signed_b),
        0x2e => usize::from(signed_a != signed_b),
        _ => return None,
    })
}

/// For an expression of the form "register + offset", with or without a final load: (register, offset, loaded).
#[must_use]
pub fn base_offset(code: &[u8]) -> Option<(usize, i64, bool)> {
    let mut code = Code(code);
    let register = usize::from(code.byte()?.checked_sub(0x70)?);
    if register >= reg::COUNT {
        return None;
    }
    let offset = code.signed()?;
    match code.0 {
        [] => Some((register, offset, false)),
        [0x06] => Some((register, offset, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(code: &[u8]) -> Option<usize> {
        let register = |register: usize| (register < 17).then_some(1000 * register);
        evaluate(code, None, &Inputs { register: &register, memory: &|address| Some(address + 1) })
    }

    #[test]
    fn arithmetic() {
        assert_eq!(run(&[0x77, 0x08]), Some(7008));
        assert_eq!(run(&[0x77, 0x78]), Some(6992));
        assert_eq!(run(&[0x77, 0x28, 0x06, 0x23, 0x08]), Some(7049));
        assert_eq!(run(&[0x77, 0x08, 0x79, 0x00, 0x38, 0x1e, 0x22]), Some(7008 + 72_000));
        assert_eq!(run(&[0x09, 0xff, 0x31, 0x2d]), Some(1));
        assert_eq!(run(&[0x31, 0x08, 70, 0x24]), Some(0));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(run(&[]), None);
        assert_eq!(run(&[0x22]), None);
        assert_eq!(run(&[0xff]), None);
        assert_eq!(run(&[0x70 + 20, 0]), None);
        assert_eq!(run(&[0x30; 20]), None);
        assert_eq!(run(&[0x10, 0x80, 0x80]), None);
    }

    #[test]
    fn simple_shapes() {
        assert_eq!(base_offset(&[0x76, 0x78, 0x06]), Some((6, -8, true)));
        assert_eq!(base_offset(&[0x77, 0xa0, 0x01]), Some((7, 160, false)));
        assert_eq!(base_offset(&[0x77, 0x00, 0x22]), None);
        assert_eq!(base_offset(&[0x12]), None);
    }
}
