//! Frames that are not plain: realigned, of variable size, very large, without tables.

use super::*;

pub mod frames {
    //! Functions in assembly, as compilers write them.
    use super::hook;
    use core::arch::naked_asm;

    /// A realigned stack, as gcc does it (`DRAP`): the CFA is loaded through rbp.
    #[unsafe(naked)]
    pub extern "C" fn realigned() -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "lea r10, [rsp + 8]",
            ".cfi_def_cfa r10, 0",
            "and rsp, -64",
            "push qword ptr [r10 - 8]",
            "push rbp",
            "mov rbp, rsp",
            ".cfi_escape 0x10, 0x06, 0x02, 0x76, 0x00", // rbp at rbp + 0
            "push r10",
            ".cfi_escape 0x0f, 0x03, 0x76, 0x78, 0x06", // CFA = *(rbp - 8)
            "sub rsp, 104",
            "call {hook}",
            "add rsp, 104",
            "pop r10",
            ".cfi_def_cfa r10, 0",
            "pop rbp",
            "lea rsp, [r10 - 8]",
            ".cfi_def_cfa rsp, 8",
            "ret",
            ".cfi_endproc",
            hook = sym hook,
        )
    }

    /// A frame of variable size: the CFA is counted from rbp.
    #[unsafe(naked)]
    pub extern "C" fn variable(bytes: usize) -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "push rbp",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset rbp, -16",
            "mov rbp, rsp",
            ".cfi_def_cfa_register rbp",
            "sub rsp, rdi",
            "and rsp, -16",
            "call {hook}",
            "leave",
            ".cfi_def_cfa rsp, 8",
            "ret",
            ".cfi_endproc",
            hook = sym hook,
        )
    }

    /// Calls [`variable`] from a frame of variable size itself, such that the inner one's rsp is always the same.
    #[unsafe(naked)]
    pub extern "C" fn shifted_first(bytes: usize) -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "push rbp",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset rbp, -16",
            "mov rbp, rsp",
            ".cfi_def_cfa_register rbp",
            "sub rsp, rdi",
            "neg rdi",
            "add rdi, 1024",
            "call {inner}",
            "leave",
            ".cfi_def_cfa rsp, 8",
            "ret",
            ".cfi_endproc",
            inner = sym variable_or_leaf,
        )
    }

    /// The same again, elsewhere.
    #[unsafe(naked)]
    pub extern "C" fn shifted_second(bytes: usize) -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "push rbp",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset rbp, -16",
            "mov rbp, rsp",
            ".cfi_def_cfa_register rbp",
            "sub rsp, rdi",
            "neg rdi",
            "add rdi, 1024",
            "nop",
            "call {inner}",
            "leave",
            ".cfi_def_cfa rsp, 8",
            "ret",
            ".cfi_endproc",
            inner = sym variable_or_leaf,
        )
    }

    /// As [`variable`], with the hook called twice: from here, and from a frame between that leaves rbp alone.
    #[unsafe(naked)]
    extern "C" fn variable_or_leaf(bytes: usize) -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "push rbp",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset rbp, -16",
            "mov rbp, rsp",
            ".cfi_def_cfa_register rbp",
            "sub rsp, rdi",
            "call {hook}",
            "call {leaf}",
            "leave",
            ".cfi_def_cfa rsp, 8",
            "ret",
            ".cfi_endproc",
            hook = sym hook,
            leaf = sym leaf,
        )
    }

    #[unsafe(naked)]
    extern "C" fn leaf() -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "sub rsp, 8",
            ".cfi_def_cfa_offset 16",
            "call {hook}",
            "add rsp, 8",
            ".cfi_def_cfa_offset 8",
            "ret",
            ".cfi_endproc",
            hook = sym hook,
        )
    }

    /// rbp as a general register, saved far from the CFA, around a large frame.
    #[unsafe(naked)]
    pub extern "C" fn large(_bytes: usize) -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "push rbx",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset rbx, -16",
            "push rbp",
            ".cfi_def_cfa_offset 24",
            ".cfi_offset rbp, -24",
            "sub rsp, 70000",
            ".cfi_def_cfa_offset 70024",
            "mov rbp, 12345",
            "call {variable}",
            "add rsp, 70000",
            ".cfi_def_cfa_offset 24",
            "pop rbp",
            ".cfi_restore rbp",
            ".cfi_def_cfa_offset 16",
            "pop rbx",
            ".cfi_def_cfa_offset 8",
            "ret",
            ".cfi_endproc",
            variable = sym variable,
        )
    }

    /// Larger than a packed rule can say: evaluated from the tables each time.
    #[unsafe(naked)]
    pub extern "C" fn huge() -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "sub rsp, 400008",
            ".cfi_def_cfa_offset 400016",
            "call {realigned}",
            "add rsp, 400008",
            ".cfi_def_cfa_offset 8",
            "ret",
            ".cfi_endproc",
            realigned = sym realigned,
        )
    }

    /// The CFA loaded from the stack, as in hand-written cryptography.
    #[unsafe(naked)]
    pub extern "C" fn loaded() -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "mov rax, rsp",
            ".cfi_def_cfa_register rax",
            "push rbp",
            ".cfi_offset rbp, -16",
            "sub rsp, 128",
            "and rsp, -64",
            "mov [rsp + 40], rax",
            ".cfi_escape 0x0f, 0x05, 0x77, 40, 0x06, 0x23, 8", // CFA = *(rsp + 40) + 8
            "mov rbp, 7",
            "call {hook}",
            "mov rdx, [rsp + 40]",
            ".cfi_def_cfa rdx, 8",
            "mov rbp, [rdx - 8]",
            ".cfi_restore rbp",
            "mov rsp, rdx",
            ".cfi_def_cfa_register rsp",
            "ret",
            ".cfi_endproc",
            hook = sym hook,
        )
    }

    /// No tables at all, but a frame pointer.
    #[unsafe(naked)]
    pub extern "C" fn untabled(_then: extern "C" fn() -> u64) -> u64 {
        naked_asm!("push rbp", "mov rbp, rsp", "call rdi", "pop rbp", "ret")
    }

    /// Everything above without a hook inside, for single steps.
    pub fn stepped() {
        core::hint::black_box(stepped_realigned());
    }

    #[unsafe(naked)]
    extern "C" fn stepped_realigned() -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "lea r10, [rsp + 8]",
            ".cfi_def_cfa r10, 0",
            "and rsp, -64",
            "push qword ptr [r10 - 8]",
            "push rbp",
            "mov rbp, rsp",
            ".cfi_escape 0x10, 0x06, 0x02, 0x76, 0x00",
            "push r10",
            ".cfi_escape 0x0f, 0x03, 0x76, 0x78, 0x06",
            "sub rsp, 104",
            "nop",
            "add rsp, 104",
            "pop r10",
            ".cfi_def_cfa r10, 0",
            "pop rbp",
            "lea rsp, [r10 - 8]",
            ".cfi_def_cfa rsp, 8",
            "ret",
            ".cfi_endproc",
        )
    }
}

#[test]
fn realigned_frames() {
    assert!(depth(frames::realigned()) > 3);
}

#[test]
fn frames_of_variable_size() {
    for bytes in [0, 24, 5000, 300_000] {
        assert!(depth(frames::variable(bytes)) > 3);
    }
}

/// pc and rsp of the inner frames are always the same here, only rbp tells where their callers are; and where the
/// caller of another round was, its return address still lies.
#[test]
fn frames_that_only_rbp_tells_apart() {
    #[inline(never)]
    fn call(outer: extern "C" fn(usize) -> u64, bytes: usize) -> u64 {
        core::hint::black_box(core::hint::black_box(outer)(core::hint::black_box(bytes)))
    }
    let mut seed = 1_u32;
    for _ in 0..500 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let outer = if seed >> 31 == 0 { frames::shifted_first } else { frames::shifted_second };
        assert!(depth(call(outer, 256 + (seed >> 28 & 3) as usize * 128)) > 4);
    }
}

#[test]
fn large_frames() {
    assert!(depth(frames::large(64)) > 4);
    assert!(depth(frames::huge()) > 4);
}

#[test]
fn assembly_that_loads_its_frame_address() {
    assert!(depth(frames::loaded()) > 3);
}

#[test]
fn frame_pointers_where_there_are_no_tables() {
    extern "C" fn inner() -> u64 {
        core::hint::black_box(signals::bare_hook())
    }
    let id = core::hint::black_box(frames::untabled(inner)) as u32;
    let (found, truncated) = resolve(id);
    assert!(!truncated);
    let guessed: Vec<_> = found.iter().filter(|frame| frame.0 == kind::NODE_GUESSED).collect();
    assert_eq!(guessed.len(), 1);
    assert!(found.len() > 5);
}

/// Code that nobody has tables for, made at run time, called with rbp as a general register: there is no way on.
#[test]
fn walks_that_are_lost_say_so() {
    let page = crate::sys::memory::map_private(4096).unwrap();
    // push rbp; mov ebp, 1; call rdi; pop rbp; ret
    let code = [0x55, 0xbd, 1, 0, 0, 0, 0xff, 0xd7, 0x5d, 0xc3];
    // SAFETY: the page is ours; the code keeps the calling convention.
    let id = unsafe {
        core::ptr::copy_nonoverlapping(code.as_ptr(), page, code.len());
        assert_eq!(libc::mprotect(page.cast(), 4096, libc::PROT_READ | libc::PROT_EXEC), 0);
        let made: extern "C" fn(extern "C" fn() -> u64) -> u64 = core::mem::transmute(page);
        made(signals::bare_hook)
    };
    let (found, truncated) = resolve(id as u32);
    assert!(truncated);
    assert_eq!(found.len(), 1);
    assert!((page as u64..page as u64 + 4096).contains(&found[0].1));
}

/// The same with a frame pointer, as a just-in-time compiler makes it.
#[test]
fn generated_code_with_a_frame_pointer() {
    let page = crate::sys::memory::map_private(4096).unwrap();
    // push rbp; mov rbp, rsp; call rdi; pop rbp; ret
    let code = [0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3];
    // SAFETY: as above.
    let id = unsafe {
        core::ptr::copy_nonoverlapping(code.as_ptr(), page, code.len());
        assert_eq!(libc::mprotect(page.cast(), 4096, libc::PROT_READ | libc::PROT_EXEC), 0);
        let made: extern "C" fn(extern "C" fn() -> u64) -> u64 = core::mem::transmute(page);
        core::hint::black_box(made(signals::bare_hook))
    };
    let (found, truncated) = resolve(id as u32);
    assert!(!truncated && found.len() > 4);
    assert_eq!(found[1].0, kind::NODE_GUESSED);
}

/// A stack without a marked end (a coroutine's): the walk must not run over its top.
#[test]
fn a_stack_that_just_ends() {
    #[unsafe(naked)]
    extern "C" fn switch(_top: usize, _then: extern "C" fn() -> u64) -> u64 {
        naked_asm!(
            ".cfi_startproc",
            "push rbx",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset rbx, -16",
            "mov rbx, rsp",
            "mov rsp, rdi",
            // From here on the tables say that the frame goes on above: it doesn't.
            "call rsi",
            "mov rsp, rbx",
            "pop rbx",
            ".cfi_restore rbx",
            ".cfi_def_cfa_offset 8",
            "ret",
            ".cfi_endproc",
        )
    }
    let base = crate::sys::memory::map_private(8 * 4096).unwrap() as usize;
    // SAFETY: the last page is unmapped so that reading above the stack would fault; nobody uses it.
    unsafe { crate::sys::memory::unmap((base + 7 * 4096) as *mut u8, 4096).unwrap() };
    STATE.with(|_| LOG.with(|_| ()));
    let id = switch(base + 7 * 4096, signals::bare_hook);
    let (found, truncated) = resolve(id as u32);
    assert!(truncated);
    assert_eq!(found.len(), 1);
}
