//! Stacks that were made by hand, as coroutines' are: the outermost return address was never pushed by a call.

use super::super::bounds::Bounds;
use super::super::rule::{Kind, Rule};
use super::super::unwind::{Bp, Frame, Step};
use super::super::{cfi, modules};
use super::*;
use crate::sys::memory::PAGE;

/// Where made stacks return to: from the second byte on a function with tables, that goes back to the stack of [`switch`].
#[unsafe(naked)]
extern "C" fn before_root() {
    naked_asm!(
        "int3",
        ".cfi_startproc",
        ".cfi_undefined rip",
        "mov rsp, rbx",
        "pop rbp",
        "pop rbx",
        "ret",
        ".cfi_endproc"
    )
}

fn root() -> usize {
    before_root as *const () as usize + 1
}

/// Goes to a function, with this rsp and this rbp.
#[unsafe(naked)]
extern "C" fn switch(_sp: usize, _then: extern "C" fn() -> u64, _bp: usize) -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbx, -16",
        "push rbp",
        ".cfi_def_cfa_offset 24",
        ".cfi_offset rbp, -24",
        "mov rbx, rsp",
        "mov rsp, rdi",
        "mov rbp, rdx",
        "jmp rsi",
        ".cfi_endproc"
    )
}

extern "C" fn entry() -> u64 {
    core::hint::black_box(hook())
}

/// Another stack lies right above, and rbp points into it: that is not followed.
#[test]
fn a_made_stack_ends_where_it_begins() {
    const PAGES: usize = 64;
    let base = crate::sys::memory::map_private((PAGES + 1) * PAGE).unwrap() as usize;
    let (top, other) = (base + PAGES * PAGE, base + PAGES * PAGE + 256);
    // SAFETY: both are ours, and nobody else uses them.
    unsafe {
        ((top - 8) as *mut usize).write(root());
        (other as *mut [usize; 2]).write([0, switch as *const () as usize + 20]);
    }
    STATE.with(|_| LOG.with(|_| ()));
    let ids: Vec<u32> = (0..3).map(|_| switch(top - 8, entry, other) as u32).collect();
    let (found, truncated) = resolve(ids[0]);
    assert_eq!(found.iter().map(|frame| frame.0).collect::<Vec<_>>(), [kind::NODE; 2], "{found:#x?}");
    assert_eq!((found[1].1, truncated), (root() as u64, false));
    assert_eq!(ids, [ids[0]; 3]);
}

/// An instruction that was interrupted there may be any code's.
#[test]
fn an_interrupted_instruction_before_a_function_is_no_root() {
    let before = root() - 1;
    let rule = cfi::find_rule(before, modules::generation(), None);
    assert_eq!(rule.kind(), Kind::BeforeRoot);
    let words = [[0, 0], [0, root()]];
    let (sp, bp) = (&raw const words[0] as usize, Bp::known(&raw const words[1] as usize));
    let step = |frame: Frame| {
        let mut bounds = Bounds::default();
        bounds.enter(sp);
        frame.step(rule, &mut bounds, |_| Rule::plain(Kind::Unknown))
    };
    let returned = Frame::returned(root(), sp, bp);
    assert_eq!(step(returned), Step::End(0));
    let interrupted = Frame { key: record::head(kind::NODE_EXACT, before as u64), ..returned };
    let Step::Caller(caller) = step(interrupted) else { panic!("no caller") };
    assert_eq!(caller.key, record::head(kind::NODE_GUESSED, root() as u64));
}
