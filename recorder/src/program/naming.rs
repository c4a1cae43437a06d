//! Names of blocks, as a program tells them that uses the Rust library.
//!
//! A name is defined once and then known by an id. An id is good for the process image that it was made in: a forked child has a
//! trace of its own, in which its parent's names are not. So an id has two parts, the number of forks
//! that led to the process and a number of its own.

use super::op::Op;
use crate::process;
use core::sync::atomic::{AtomicU32, Ordering};
use memscope_shared::record::{NAMED_UNIT, Name};

/// How many forks lie between the first process and this one. Not wiped by a fork.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// A forked child begins: its parent's ids mean nothing in it.
pub fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// What became of [`name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is recorded, or nothing is.
    Done,
    /// The id is not known in this process: the name is to be defined again.
    Unknown,
}

/// Records a name and gives its id; 0 where nothing is recorded.
///
/// # Safety
/// `sp` and `bp` are those with which the program entered the exported function, as for [`Op::begin`].
#[must_use]
pub unsafe fn define(name: &[u8], type_name: &[u8], scope: &[u8], sp: usize, bp: usize) -> u64 {
    // SAFETY: as promised.
    let Some(op) = (unsafe { Op::begin(sp, bp) }) else { return 0 };
    if !op.ready() {
        return 0;
    }
    let Some(process) = process::get() else { return 0 };
    let id = process.names.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    if id != 0 && op.define(&Name { id, name, type_name, scope }) {
        u64::from(FORKS.load(Ordering::Relaxed)) << 32 | u64::from(id)
    } else {
        0
    }
}

/// Records that the block at `address` belongs to the variable with this id; with `reach` it is the block around the
/// address, which begins at most so many bytes before. Id 0: the variable is gone, its block keeps the name.
///
/// # Safety
/// As for [`define`].
#[must_use]
pub unsafe fn name(address: usize, reach: usize, id: u64, sp: usize, bp: usize) -> Outcome {
    // SAFETY: as promised.
    let Some(op) = (unsafe { Op::begin(sp, bp) }) else { return Outcome::Done };
    // First: in a forked child this makes the child's own state.
    if !op.ready() {
        return Outcome::Done;
    }
    if id != 0 && (id >> 32) as u32 != FORKS.load(Ordering::Relaxed) {
        return Outcome::Unknown;
    }
    let reach = (reach as u64).div_ceil(NAMED_UNIT).min(u64::from(u32::MAX)) as u32;
    op.named(address, reach, id as u32);
    Outcome::Done
}
