//! Stacks of the places where variables are tracked: captured as addresses, resolved when a snapshot is made.

use crate::settings;
use crate::store::{Busy, Interner, hash_words};
use memscope_shared::model::StackFrame;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

/// Frames of a stack at most; outer ones are left out.
const DEPTH: usize = 128;

const UNKNOWN: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

static MODE: AtomicU8 = AtomicU8::new(UNKNOWN);
static STACKS: Interner<Stack> = Interner::new();

/// A captured stack.
#[derive(Debug)]
pub struct Stack {
    /// Return addresses, innermost first.
    addresses: Box<[usize]>,
    /// Whether outer frames are missing.
    pub truncated: bool,
}

/// Whether `track_var!` captures the stack from now on.
///
/// Without a call of this function it does where the environment says so: `MEMSCOPE_STACKS=1` or `0`, else as the
/// standard library's backtraces do, by `RUST_LIB_BACKTRACE` or `RUST_BACKTRACE`. A capture costs a microsecond or more; without one
/// a variable's stack is the one place where it was tracked.
///
/// ```
/// memscope_rs::capture_stacks(true);
/// let _value = memscope_rs::track_var!(String::from("with its stack"));
/// ```
pub fn capture_stacks(capture: bool) {
    MODE.store(if capture { ON } else { OFF }, Ordering::Relaxed);
}

#[inline]
fn is_on() -> bool {
    match MODE.load(Ordering::Relaxed) {
        UNKNOWN => ask_environment(),
        mode => mode == ON,
    }
}

#[cold]
fn ask_environment() -> bool {
    // To read it allocates, and the program's allocator may come back here.
    let Some(_busy) = Busy::begin() else { return false };
    let on = settings::stacks();
    // A call of `capture_stacks` meanwhile counts more.
    let mode = if on { ON } else { OFF };
    let _ = MODE.compare_exchange(UNKNOWN, mode, Ordering::Relaxed, Ordering::Relaxed);
    MODE.load(Ordering::Relaxed) == ON
}

/// Captures the stack, if that is wanted; its number, or 0.
#[inline]
pub fn capture() -> u32 {
    if is_on() { capture_now() } else { 0 }
}

#[cold]
fn capture_now() -> u32 {
    // Unwinding may allocate, and the program's allocator may come back here.
    let Some(_busy) = Busy::begin() else { return 0 };
    let mut addresses = [0; DEPTH];
    let mut count = 0;
    let mut truncated = false;
    backtrace::trace(|frame| {
        truncated = count == DEPTH;
        if !truncated {
            addresses[count] = frame.ip() as usize;
            count += 1;
        }
        !truncated
    });
    let addresses = &addresses[..count];
    let hash = hash_words(addresses.iter().map(|&address| address as u64));
    let same = |known: &Stack| *known.addresses == *addresses && known.truncated == truncated;
    STACKS.intern(hash, same, || Stack { addresses: addresses.into(), truncated })
}

/// A captured stack.
pub fn get(number: u32) -> Option<&'static Stack> {
    STACKS.get(number)
}

impl Stack {
    /// Its frames with their names, from the place where the variable was tracked on.
    pub fn resolve(&self, file: &str, line: u32) -> Vec<StackFrame> {
        let mut frames = Vec::new();
        for &address in &self.addresses {
            let call = address.saturating_sub(1);
            let first = frames.len();
            backtrace::resolve(call as *mut _, |symbol| frames.push(frame(call, symbol)));
            if frames.len() == first {
                frames.push(StackFrame { address: call as u64, ..StackFrame::default() });
            }
            // Several symbols at one address: all but the last were inlined into the next.
            let last = frames.len() - 1;
            frames[first..last].iter_mut().for_each(|frame| frame.inlined = true);
        }
        let here = |frame: &StackFrame| {
            frame.line == Some(line) && frame.file.as_deref().is_some_and(|f| f.ends_with(file))
        };
        let start = frames.iter().position(here).or_else(|| frames.iter().position(|frame| !is_ours(frame)));
        frames.drain(..start.unwrap_or(0));
        frames
    }
}

fn frame(address: usize, symbol: &backtrace::Symbol) -> StackFrame {
    StackFrame {
        function: symbol.name().map(|name| format!("{name:#}")),
        file: symbol.filename().map(Path::to_string_lossy).map(String::from),
        line: symbol.lineno(),
        column: symbol.colno(),
        module: None,
        address: address as u64,
        inlined: false,
    }
}

fn is_ours(frame: &StackFrame) -> bool {
    let ours = ["memscope_rs::", "<memscope_rs::", "backtrace::"];
    frame.function.as_deref().is_none_or(|name| ours.iter().any(|start| name.starts_with(start)))
}
