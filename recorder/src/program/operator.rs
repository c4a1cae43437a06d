//! A call of an allocator's own `operator new`, which may throw, and call the program's handler before that.

use super::Op;

/// A call that is to be recorded. Dropped without a block, also by an exception, it has failed.
///
/// What the allocator itself calls meanwhile is not recorded again; what the handler does, and the memory that the C++ library
/// takes for an exception, is.
#[derive(Debug)]
pub struct OperatorNew {
    op: Op,
    failed: bool,
}

impl OperatorNew {
    /// Begins a call, as [`Op::begin`] does; `real` is the address of the operator.
    ///
    /// # Safety
    /// As for [`Op::begin`].
    #[inline(always)]
    #[must_use]
    pub unsafe fn begin(real: usize, sp: usize, bp: usize) -> Option<Self> {
        // SAFETY: as promised by the caller.
        let op = unsafe { Op::begin(sp, bp) }?;
        op.calls_operator(real);
        Some(Self { op, failed: true })
    }

    /// A block has come to life: `size` bytes at `address`.
    #[inline(always)]
    pub fn allocated(mut self, address: usize, size: usize) {
        self.failed = false;
        self.op.allocated(address, size);
    }
}

impl Drop for OperatorNew {
    #[inline(always)]
    fn drop(&mut self) {
        if self.failed {
            self.op.failed();
        }
        self.op.calls_operator(0);
    }
}
