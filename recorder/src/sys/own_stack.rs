//! A stack of our own for what is too deep for the program's: a hook may be called where hardly any is left.
//!
//! ```text
//!   guard (a page)  |            room             | top
//!                    <- grows                       call's frames begin here
//! ```
//!
//! It is mapped for one call and unmapped after it, so a `vfork`'s child leaves nothing behind in its parent, and nothing has
//! to be found again in a forked child. Signals are blocked meanwhile: a handler finds the stack that it would have found.
//! Unwinding passes the switch by its CFI.

use super::memory::{self, PAGE};
use super::signal::Blocked;
use core::arch::naked_asm;
use core::ffi::c_void;
use core::mem::{ManuallyDrop, MaybeUninit};

/// Address space for the stack; what is not touched costs nothing. A birth takes about 10 KiB of it.
const ROOM: usize = 256 << 10;

/// A call, and room for what it returns.
struct Task<F, R> {
    call: ManuallyDrop<F>,
    result: MaybeUninit<R>,
}

/// Calls on a stack of our own, with all signals blocked; on the caller's where there is no memory for one.
#[cold]
pub fn call<R>(call: impl FnOnce() -> R) -> R {
    let _undisturbed = Blocked::all();
    match Stack::map() {
        Some(stack) => stack.run(call),
        None => call(),
    }
}

struct Stack {
    base: *mut u8,
}

impl Stack {
    fn map() -> Option<Self> {
        let base = memory::map_private(PAGE + ROOM).ok()?;
        // SAFETY: the mapping is new and ours.
        let _ = unsafe { memory::forbid(base, PAGE) };
        Some(Self { base })
    }

    fn run<F: FnOnce() -> R, R>(&self, call: F) -> R {
        let mut task = Task { call: ManuallyDrop::new(call), result: MaybeUninit::uninit() };
        let top = self.base as usize + PAGE + ROOM;
        // SAFETY: the task outlives the call, which takes `call` and leaves a result; the stack is mapped, nobody
        // else's, and its top aligned.
        unsafe {
            switch((&raw mut task).cast(), run::<F, R>, top);
            task.result.assume_init()
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped here, and nothing runs on it any more.
        let _ = unsafe { memory::unmap(self.base, PAGE + ROOM) };
    }
}

/// # Safety
/// `task` is a task of these types that nobody else uses meanwhile, and that has not been run.
unsafe extern "C" fn run<F: FnOnce() -> R, R>(task: *mut c_void) {
    // SAFETY: as promised.
    unsafe {
        let task = &mut *task.cast::<Task<F, R>>();
        task.result.write(ManuallyDrop::take(&mut task.call)());
    }
}

/// Calls `run(task)` with the stack pointer at `top`.
///
/// # Safety
/// `top` is a multiple of 16 and the end of a stack that nobody uses; `run` may be called with `task`.
#[unsafe(naked)]
unsafe extern "C" fn switch(task: *mut c_void, run: unsafe extern "C" fn(*mut c_void), top: usize) {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rsp, rdx",
        "call rsi",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        ".cfi_restore rbp",
        "ret",
        ".cfi_endproc",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn depth() -> usize {
        let here = 0_u8;
        core::hint::black_box(&raw const here) as usize
    }

    #[test]
    fn a_call_has_room_of_its_own_and_returns() {
        let (outside, text) = (depth(), String::from("kept"));
        let (inside, length) = call(|| {
            let room = [7_u8; ROOM / 2];
            (depth(), core::hint::black_box(&room).len() + text.len())
        });
        assert!(outside.abs_diff(inside) > ROOM);
        assert_eq!(length, ROOM / 2 + 4);
        assert_eq!(call(|| call(|| 3)), 3);
    }

    #[test]
    fn unwinding_passes_the_switch() {
        let names = call(|| std::backtrace::Backtrace::force_capture().to_string());
        assert!(names.contains("unwinding_passes_the_switch"), "{names}");
    }
}
