//! Faults in the memory that we share with a process.
//!
//! A shared mapping reaches no further than its file: who cuts a spool takes the pages away from under us, and the kernel
//! says so with SIGBUS. The program can do that by mistake, or anybody who cleans up; it must not be our end. So a
//! handler puts zeros in the place of the page that has gone and of all behind it, in one mapping: there is a limit to their number.
//! Zeros mean nothing to a drainer, which asks afterwards whether its memory is whole, and lets go where it isn't.
//!
//! The handler looks at a fixed table of atomics only. All other faults go on to whoever handled them before.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Mappings at a time: two for each image that is drained, with some to spare.
const MOST: usize = 512;
const PAGE: usize = 4096;

/// A watched mapping; free where both bounds are 0.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    broken: AtomicBool,
}

static SLOTS: [Slot; MOST] =
    [const { Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), broken: AtomicBool::new(false) } };
        MOST];

/// Who handled SIGBUS before us.
struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written once, before the handler that reads it is there.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::zeroed()));

/// A mapping that is watched until this is dropped, which must come before it is unmapped.
#[derive(Debug)]
pub struct Watched(usize);

impl Watched {
    /// Watches `bytes` from `start` on; `None` where too many are watched already.
    pub fn new(start: usize, bytes: usize) -> Option<Self> {
        install();
        unblock();
        let end = start + bytes;
        let is_taken =
            |slot: &Slot| slot.end.compare_exchange(0, end, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let index = SLOTS.iter().position(is_taken)?;
        SLOTS[index].broken.store(false, Ordering::Relaxed);
        SLOTS[index].start.store(start, Ordering::Release);
        Some(Self(index))
    }

    /// Whether a page of it has gone.
    pub fn is_broken(&self) -> bool {
        SLOTS[self.0].broken.load(Ordering::Acquire)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        SLOTS[self.0].start.store(0, Ordering::Release);
        SLOTS[self.0].end.store(0, Ordering::Release);
    }
}

/// For the calling thread, and for those that it makes: a fault whose signal is blocked is the end, whatever handler there is.
pub fn unblock() {
    // SAFETY: `set` is a set of signals before it is read.
    unsafe {
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGBUS);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: all zeros is a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: the handler does what a handler may; what was before is written before it is there to be read, since
        // the kernel writes it within this call and a fault of ours comes later.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const action, (*BEFORE.0.get()).as_mut_ptr()) };
    });
}

/// The handler. Only atomics and system calls; `errno` is as it was.
extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid `siginfo_t`, of a fault.
    let address = unsafe { (*info).si_addr() } as usize;
    if !replace(address) {
        pass_on(signal, info, context);
    }
}

/// Puts zeros in the place of a watched mapping from the page on that `address` lies in; false where it lies in none.
fn replace(address: usize) -> bool {
    let holds = |slot: &&Slot| {
        let start = slot.start.load(Ordering::Acquire);
        let end = slot.end.load(Ordering::Acquire);
        // Read again: the slot may have got another mapping in between.
        start != 0 && (start..end).contains(&address) && slot.start.load(Ordering::Acquire) == start
    };
    let Some(slot) = SLOTS.iter().find(holds) else { return false };
    let page = address & !(PAGE - 1);
    let bytes = (slot.end.load(Ordering::Acquire) - page).next_multiple_of(PAGE);
    slot.broken.store(true, Ordering::Release);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the page is of a mapping of ours that the interrupted code has a reference into, so it isn't unmapped; it is
    // used as atomics, for which any values are valid. The file ends before it, so nothing of what lies behind is there either.
    let mapped = unsafe { libc::mmap(page as *mut libc::c_void, bytes, access, how, -1, 0) };
    mapped != libc::MAP_FAILED
}

/// What would have been done without us.
fn pass_on(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: written when the handler was installed.
    let before = unsafe { (*BEFORE.0.get()).assume_init_ref() };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: all zeros is the default action; the instruction is tried again, and ends us.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
        function if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: such a handler has this type.
            let function: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(function) };
            function(signal, info, context);
        }
        function => {
            // SAFETY: such a handler has this type.
            let function: extern "C" fn(i32) = unsafe { std::mem::transmute(function) };
            function(signal);
        }
    }
}
