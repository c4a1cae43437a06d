//! Signal handlers, on the same and on an alternate stack, and nested hooks.

use super::*;

/// A hook that captures without the comparison with libgcc: for handlers.
#[unsafe(naked)]
pub extern "C" fn bare_hook() -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "mov rdi, rsp",
        "mov rsi, rbp",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {inner}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
        inner = sym bare_captured,
    )
}

unsafe extern "C" fn bare_captured(sp: usize, bp: usize) -> u64 {
    u64::from(capture(Entry { sp, bp }))
}

/// Runs a function with a hook's entry, for tests of what happens inside of one.
#[unsafe(naked)]
pub extern "C" fn with_entry(then: extern "C" fn(usize, usize)) {
    naked_asm!(
        ".cfi_startproc",
        "mov rax, rdi",
        "mov rdi, rsp",
        "mov rsi, rbp",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call rax",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
    )
}

static RESULT: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

extern "C" fn handler(_signal: i32) {
    let result = core::hint::black_box(hook());
    RESULT.lock().unwrap().push(result);
}

fn install(handler: extern "C" fn(i32), flags: i32) {
    // SAFETY: the handler is called for a signal that tests raise themselves.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, core::ptr::null_mut()), 0);
    }
}

fn raise() {
    // SAFETY: a handler is installed.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGUSR1) };
}

fn alternate_stack() -> Vec<u8> {
    let mut stack = vec![0_u8; 256 << 10];
    let description = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the stack outlives its use: the test disables it again.
    assert_eq!(unsafe { libc::sigaltstack(&raw const description, core::ptr::null_mut()) }, 0);
    stack
}

fn handled(flags: i32) -> (Vec<(u8, u64)>, bool) {
    install(handler, flags);
    RESULT.lock().unwrap().clear();
    raise();
    let results = RESULT.lock().unwrap().clone();
    assert_eq!(results.len(), 1);
    resolve(results[0] as u32)
}

#[test]
fn a_handler_on_the_same_stack() {
    let _guard = ONE_AT_A_TIME.lock();
    let (frames, truncated) = handled(0);
    assert!(!truncated);
    assert_eq!(frames.iter().filter(|frame| frame.0 == kind::NODE_EXACT).count(), 1);
}

#[test]
fn a_handler_on_an_alternate_stack() {
    let _guard = ONE_AT_A_TIME.lock();
    let stack = alternate_stack();
    let (frames, truncated) = handled(libc::SA_ONSTACK);
    assert!(!truncated);
    assert_eq!(frames.iter().filter(|frame| frame.0 == kind::NODE_EXACT).count(), 1);
    let off = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: disables the stack that is about to be freed.
    unsafe { libc::sigaltstack(&raw const off, core::ptr::null_mut()) };
    drop(stack);
}

#[unsafe(naked)]
extern "C" fn set_trap_flag() {
    naked_asm!(
        ".cfi_startproc",
        "pushfq",
        ".cfi_adjust_cfa_offset 8",
        "or qword ptr [rsp], 0x100",
        "popfq",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
    )
}

#[unsafe(naked)]
extern "C" fn clear_trap_flag() {
    naked_asm!(
        ".cfi_startproc",
        "pushfq",
        ".cfi_adjust_cfa_offset 8",
        "and qword ptr [rsp], ~0x100",
        "popfq",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
    )
}

/// Steps over single instructions by the trap flag, so that the handler sees every pc of the code in between: prologues,
/// PLT entries, the return.
#[test]
fn every_instruction_can_be_interrupted() {
    static STEPS: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn trap(_signal: i32, _info: *mut libc::siginfo_t, _context: *mut core::ffi::c_void) {
        core::hint::black_box(hook());
        STEPS.fetch_add(1, Ordering::Relaxed);
    }
    let _guard = ONE_AT_A_TIME.lock();
    // SAFETY: the handler leaves everything as it was; the trap flag is cleared again below.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, core::ptr::null_mut()), 0);
        let mut buffer = [0_u8; 100];
        set_trap_flag();
        let mut small = [3_u32, 1, 2];
        small.sort_unstable();
        core::hint::black_box(&mut small);
        libc::snprintf(buffer.as_mut_ptr().cast(), 100, c"%d %s".as_ptr(), 42, c"text".as_ptr());
        exotic::frames::stepped();
        clear_trap_flag();
        assert!(buffer.starts_with(b"42 text\0"));
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGTRAP, &raw const action, core::ptr::null_mut());
    }
    assert!(STEPS.load(Ordering::Relaxed) > 500);
}

static OUTER: AtomicUsize = AtomicUsize::new(0);
static CLASSES: Mutex<Vec<Nested>> = Mutex::new(Vec::new());

extern "C" fn classify(sp: usize, bp: usize) {
    let outer = OUTER.load(Ordering::Relaxed);
    // SAFETY: called by a hook's stub.
    let class = unsafe { classify_nested(Entry { sp, bp }, outer, 0) };
    CLASSES.lock().unwrap().push(class);
}

extern "C" fn classify_in_handler(_signal: i32) {
    with_entry(classify);
}

extern "C" fn outer(sp: usize, _bp: usize) {
    OUTER.store(sp, Ordering::Relaxed);
    with_entry(classify);
    raise();
}

#[test]
fn nested_calls_are_told_apart() {
    let _guard = ONE_AT_A_TIME.lock();
    let stack = alternate_stack();
    for flags in [0, libc::SA_ONSTACK] {
        install(classify_in_handler, flags);
        CLASSES.lock().unwrap().clear();
        with_entry(outer);
        // The outer hook has returned (or was left): a guard that still names it is stale.
        with_entry(classify);
        assert_eq!(*CLASSES.lock().unwrap(), [Nested::Reentrant, Nested::Signal, Nested::Stale]);
    }
    let off = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: disables the stack that is about to be freed.
    unsafe { libc::sigaltstack(&raw const off, core::ptr::null_mut()) };
    drop(stack);
}
