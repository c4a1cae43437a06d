//! Stacks of the places where variables are tracked: captured as addresses, resolved when a snapshot is made.

use crate::store::{Busy, Interner, hash_words};
use crate::{interposer, settings};
use memscope_shared::model::StackFrame;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

/// Frames of a stack at most; outer ones are left out.
const DEPTH: u8 = 128;

/// The environment has not been asked yet. Every other value is the number of frames that are captured.
const UNKNOWN: u8 = u8::MAX;

static FRAMES: AtomicU8 = AtomicU8::new(UNKNOWN);
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
/// Without a call of this function it does where the environment says so: `MEMSCOPE_STACKS=1` (or the least number of frames, from 2 on)
/// or `0`; else as the standard library's backtraces do, by `RUST_LIB_BACKTRACE` or `RUST_BACKTRACE`, unless the program is
/// recorded: a recording has the stack of every block anyway. Only addresses are captured; their names are looked up by
/// an export. It is still the dear part of tracking: unwinding costs 0.3 to 1 µs a frame. Without a capture a variable's
/// stack is the one place where it was tracked.
///
/// ```
/// memscope_rs::capture_stacks(true);
/// let _value = memscope_rs::track_var!(String::from("with its stack"));
/// ```
pub fn capture_stacks(capture: bool) {
    FRAMES.store(if capture { DEPTH } else { 0 }, Ordering::Relaxed);
}

/// How many frames are to be captured.
#[inline]
fn frames() -> u8 {
    match FRAMES.load(Ordering::Relaxed) {
        UNKNOWN => ask_environment(),
        frames => frames,
    }
}

#[cold]
fn ask_environment() -> u8 {
    // To read it allocates, and the program's allocator may come back here.
    let Some(_busy) = Busy::begin() else { return 0 };
    let frames = match settings::stacks() {
        Some(1) => DEPTH,
        Some(frames) => frames.min(DEPTH),
        None if settings::backtraces() && !interposer::is_there() => DEPTH,
        None => 0,
    };
    // A call of `capture_stacks` meanwhile counts more.
    match FRAMES.compare_exchange(UNKNOWN, frames, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => frames,
        Err(told) => told,
    }
}

/// Captures the stack, if that is wanted; its number, or 0.
#[inline]
pub fn capture() -> u32 {
    match frames() {
        0 => 0,
        frames => capture_now(frames as usize + OURS),
    }
}

/// Frames of the library's own, which a stack begins with and which are left out later.
const OURS: usize = 8;

#[cold]
fn capture_now(depth: usize) -> u32 {
    // Unwinding may allocate, and the program's allocator may come back here.
    let Some(_busy) = Busy::begin() else { return 0 };
    let mut addresses = [0; DEPTH as usize + OURS];
    let mut count = 0;
    let mut truncated = false;
    let each = |frame: &backtrace::Frame| {
        truncated = count == depth;
        if !truncated {
            addresses[count] = frame.ip() as usize;
            count += 1;
        }
        !truncated
    };
    trace(each);
    let addresses = &addresses[..count];
    let hash = hash_words(addresses.iter().map(|&address| address as u64));
    let same = |known: &Stack| *known.addresses == *addresses && known.truncated == truncated;
    STACKS.intern(hash, same, || Stack { addresses: addresses.into(), truncated })
}

/// Walks the stack. Threads do so at once: what the crate synchronizes by its lock is Windows's debug library, and a
/// thread must not wait for others just because it tracks a variable.
#[cfg(unix)]
#[allow(unsafe_code)]
fn trace(each: impl FnMut(&backtrace::Frame) -> bool) {
    // SAFETY: the unwinder of Unix systems may be used by several threads at once, as exceptions do.
    unsafe { backtrace::trace_unsynchronized(each) }
}

#[cfg(not(unix))]
fn trace(each: impl FnMut(&backtrace::Frame) -> bool) {
    backtrace::trace(each);
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
