//! Frames without tables whose rbp is no frame pointer: what a guess has read may be gone at the next call.

use super::exotic::frames;
use super::*;
use crate::sys::memory::{self, PAGE};

const STACK: usize = 16 * PAGE;

/// Without tables: calls `then` on the stack that ends at `top`, with this rbp.
#[unsafe(naked)]
extern "C" fn with(_top: usize, _bp: usize, _then: extern "C" fn() -> u64) -> u64 {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "mov rbx, rsp",
        "mov rsp, rdi",
        "mov rbp, rsi",
        "call rdx",
        "mov rsp, rbx",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// As [`with`], on the stack that runs.
#[unsafe(naked)]
extern "C" fn with_bp(_bp: usize, _then: extern "C" fn() -> u64) -> u64 {
    naked_asm!("push rbp", "mov rbp, rdi", "call rsi", "pop rbp", "ret")
}

/// Returns from here lead nowhere: an outermost frame.
#[unsafe(naked)]
extern "C" fn outermost() {
    naked_asm!(".cfi_startproc", ".cfi_undefined rip", "nop", "nop", "nop", "nop", "ud2", ".cfi_endproc")
}

fn in_outermost() -> usize {
    outermost as *const () as usize + 2
}

/// Where handlers return to: an address with the rule of a signal frame.
fn in_signal_return() -> usize {
    extern "C" fn ignored(_signal: i32) {}
    let mut kernels = [0_usize; 4];
    // SAFETY: a handler that does nothing; the kernel writes its own four words of that signal's action.
    unsafe {
        assert_ne!(libc::signal(libc::SIGURG, ignored as *const () as usize), libc::SIG_ERR);
        let got = libc::syscall(libc::SYS_rt_sigaction, libc::SIGURG, 0_usize, kernels.as_mut_ptr(), 8_usize);
        assert_eq!(got, 0);
    }
    kernels[2] + 1
}

fn map(pages: usize) -> usize {
    memory::map_private(pages * PAGE).unwrap() as usize
}

fn unmap(base: usize, bytes: usize) {
    // SAFETY: the tests' own mappings, which nobody runs on.
    unsafe { memory::unmap(base as *mut u8, bytes).unwrap() };
}

fn put(address: usize, words: &[usize]) {
    for (index, word) in words.iter().enumerate() {
        // SAFETY: the tests' own memory.
        unsafe { ((address + 8 * index) as *mut usize).write(*word) };
    }
}

/// Kinds of the frames, and whether the stack is truncated.
fn kinds(id: u64) -> (Vec<u8>, bool) {
    let (frames, truncated) = resolve(id as u32);
    (frames.iter().map(|frame| frame.0).collect(), truncated)
}

#[test]
fn what_lies_above_a_stack_may_go() {
    let base = map(2 * STACK / PAGE);
    let bp = base + STACK + 256;
    put(bp, &[0, in_outermost()]);
    let call = || core::hint::black_box(with(base + STACK - 64, bp, signals::bare_hook));
    for _ in 0..3 {
        assert_eq!(kinds(call()), (vec![kind::NODE, kind::NODE_GUESSED], false));
    }
    unmap(base + STACK, STACK);
    for _ in 0..3 {
        assert_eq!(kinds(call()), (vec![kind::NODE], true));
    }
    unmap(base, STACK);
}

/// The same where only the guess after next leads there, and the next on the stack itself.
#[test]
fn what_a_second_guess_has_read_may_go() {
    let base = map(2 * STACK / PAGE);
    let (first, second) = (base + STACK - 32, base + STACK + 512);
    put(first, &[second, with_bp as *const () as usize + 6]);
    put(second, &[0, in_outermost()]);
    let call = || core::hint::black_box(with(base + STACK - 64, first, signals::bare_hook));
    for _ in 0..3 {
        assert_eq!(kinds(call()), (vec![kind::NODE, kind::NODE_GUESSED, kind::NODE_GUESSED], false));
    }
    unmap(base + STACK, STACK);
    for _ in 0..3 {
        assert_eq!(kinds(call()), (vec![kind::NODE, kind::NODE_GUESSED], true));
    }
    unmap(base, STACK);
}

/// A wrong guess on the thread's own stack meets what looks like a signal frame, and that leads to memory that goes.
#[test]
fn where_a_guess_leads_by_a_signal_frame_may_go() {
    #[inline(never)]
    fn call(bp: usize) -> u64 {
        core::hint::black_box(with_bp(core::hint::black_box(bp), signals::bare_hook))
    }
    let base = map(4);
    let other = base + 3 * PAGE;
    put(other, &[in_outermost()]);
    let mut words = [0_usize; 64];
    let at = &raw mut words as usize;
    let interrupted = frames::untabled as *const () as usize;
    for (leaf, place) in [(in_signal_return(), 1), (interrupted, 2 + 168 / 8), (other, 2 + 160 / 8)] {
        put(at + 8 * place, &[leaf]);
    }
    let expected = [kind::NODE, kind::NODE_GUESSED, kind::NODE_EXACT, kind::NODE_GUESSED];
    // rbp of the interrupted frame, which has no tables either.
    put(at + 8 * (2 + 120 / 8), &[other + 16]);
    put(other + 16, &[0, in_outermost()]);
    for _ in 0..3 {
        assert_eq!(kinds(call(at)), (expected.to_vec(), false));
    }
    unmap(other, PAGE);
    for _ in 0..3 {
        assert_eq!(kinds(call(at)), (expected[..3].to_vec(), true));
    }
    unmap(base, 3 * PAGE);
}

/// On the thread's own stack a guess is kept like other steps, and every word that it has read counts.
#[test]
fn guesses_on_the_own_stack_are_kept() {
    let mut words = [0_usize; 64];
    let at = &raw mut words as usize;
    put(at, &[0, in_outermost()]);
    let mut ids = Vec::new();
    for round in 0..6_usize {
        if round == 4 {
            put(at + 8, &[in_outermost() + 1]);
        }
        ids.push(core::hint::black_box(with_bp(core::hint::black_box(at), signals::bare_hook)));
    }
    let generation = modules::generation();
    assert!(ids.iter().all(|id| kinds(*id) == (vec![kind::NODE, kind::NODE_GUESSED], false)));
    if generation == modules::generation() {
        assert!(ids[..4].iter().all(|id| *id == ids[0]) && ids[4] == ids[5] && ids[4] != ids[0]);
    }
    let empty = STATE.with_borrow_mut(|state| {
        // SAFETY: the state of a capture that has ended.
        unsafe { (*state.as_mut_ptr().cast::<StackState>()).stack.is_empty() }
    });
    assert!(!empty, "the last stack was not kept");
}
