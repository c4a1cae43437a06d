//! Prints what one capture of a stack costs, in ns, by depth of the stack and by what changes between captures:
//! nothing, the last frames in turn (one of a few paths, or of many), or every frame. And what the `backtrace` crate takes.
//!
//!     cargo run --release --example capture -p memscope-recorder
//!
//! With three numbers (depth, frames that vary, paths), a number of rounds, and 0 (a hook that captures nothing), 1 or 2
//! (full unwinding) it runs that case alone, for a profiler.

use core::arch::naked_asm;
use memscope_recorder::program::stack::{self, Entry, Sink, StackState};
use memscope_shared::record::Module;
use std::hint::black_box;

struct Count(u64);

impl Sink for Count {
    fn node(&mut self, _kind: u8, _operand: u64, _id: u32, _parent: u32) {
        self.0 += 1;
    }
    fn module(&mut self, _module: &Module<'_>) {}
    fn modules_gone(&mut self, _new_generation: u32, _start: u64) {}
}

static mut STATE: [u64; 64] = [0; 64];
static mut NODES: Count = Count(0);

#[unsafe(naked)]
extern "C" fn hook() -> u64 {
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
        inner = sym captured,
    )
}

unsafe extern "C" fn captured(sp: usize, bp: usize) -> u64 {
    // SAFETY: this program has one thread, and `entry` comes from the stub above.
    u64::from(unsafe {
        let nodes = &raw mut NODES;
        StackState::capture((&raw mut STATE).cast(), Entry { sp, bp }, &mut *nodes)
    })
}

#[unsafe(naked)]
extern "C" fn forgetting_hook() -> u64 {
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
        inner = sym captured_anew,
    )
}

unsafe extern "C" fn captured_anew(sp: usize, bp: usize) -> u64 {
    // SAFETY: as above.
    unsafe {
        StackState::forget((&raw mut STATE).cast());
        captured(sp, bp)
    }
}

#[unsafe(naked)]
extern "C" fn empty_hook() -> u64 {
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
        inner = sym nothing,
    )
}

unsafe extern "C" fn nothing(sp: usize, bp: usize) -> u64 {
    black_box(sp ^ bp) as u64
}

type Hook = extern "C" fn() -> u64;

/// Two functions, two call sites each: the bits of `path` choose among 2^levels call paths.
#[inline(never)]
fn left(levels: u32, path: u64, hook: Hook) -> u64 {
    match (levels, path & 1) {
        (0, _) => black_box(hook()).wrapping_add(1),
        (_, 0) => black_box(left(levels - 1, path >> 1, hook)).wrapping_add(2),
        _ => black_box(right(levels - 1, path >> 1, hook)).wrapping_add(3),
    }
}

#[inline(never)]
fn right(levels: u32, path: u64, hook: Hook) -> u64 {
    match (levels, path & 1) {
        (0, _) => black_box(hook()).wrapping_add(4),
        (_, 0) => black_box(left(levels - 1, path >> 1, hook)).wrapping_add(5),
        _ => black_box(right(levels - 1, path >> 1, hook)).wrapping_add(6),
    }
}

/// `depth` frames, then `run`.
#[inline(never)]
fn descend(depth: u32, run: &mut dyn FnMut()) {
    if depth == 0 {
        run();
    } else {
        descend(depth - 1, run);
    }
    black_box(depth);
}

/// CPU time of this thread in ns.
fn cpu_time() -> u64 {
    memscope_recorder::sys::time::clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn time(rounds: u32, paths: &[u64], varying: u32, hook: Hook) -> f64 {
    let start = cpu_time();
    for round in 0..rounds {
        let path = paths[round as usize % paths.len()];
        black_box(left(varying, path, hook));
    }
    (cpu_time() - start) as f64 / f64::from(rounds)
}

/// Best of many: other work on the machine only ever adds.
fn best(paths: &[u64], varying: u32, hook: Hook) -> f64 {
    (0..40).map(|_| time(200_000, paths, varying, hook)).fold(f64::MAX, f64::min)
}

/// Random paths out of a pool, in random order.
fn paths(pool: usize) -> Vec<u64> {
    let mut seed = 12345_u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let pool: Vec<u64> = (0..pool).map(|_| random()).collect();
    (0..pool.len().max(4096)).map(|_| pool[random() as usize % pool.len()]).collect()
}

/// Depth of the stack that `main` was called on.
fn outer_frames() -> u32 {
    let mut outer = 0;
    backtrace::trace(|_| {
        outer += 1;
        true
    });
    outer
}

fn main() {
    stack::start();
    let outer = outer_frames();
    let run = |depth: u32, varying: u32, body: &mut dyn FnMut()| {
        descend(depth.saturating_sub(varying + outer), body);
    };
    let numbers: Vec<u32> = std::env::args().skip(1).map_while(|arg| arg.parse().ok()).collect();
    if let [depth, varying, pool, rounds, what] = numbers[..] {
        let order = paths(pool as usize);
        let hook = [empty_hook, hook, forgetting_hook][what as usize];
        return run(depth, varying, &mut || println!("{:.1}", time(rounds, &order, varying, hook)));
    }
    println!("depth/varying/paths   ns a capture   by full unwinding");
    for (depth, varying, pool) in [
        (8, 0, 1),
        (25, 0, 1),
        (60, 0, 1),
        (25, 4, 4),
        (25, 4, 16),
        (25, 8, 256),
        (25, 18, 32),
        (25, 18, 65536),
    ] {
        let order = paths(pool);
        run(depth, varying, &mut || {
            let [native, with, full] =
                [empty_hook, hook, forgetting_hook].map(|hook| best(&order, varying, hook));
            println!("{depth:3} {varying:3} {pool:6}   {:8.1}   {:8.1}", with - native, full - native);
        });
    }
    for depth in [8, 25, 60] {
        run(depth, 0, &mut || {
            let start = cpu_time();
            for _ in 0..2_000 {
                backtrace::trace(|frame| !black_box(frame.ip()).is_null());
            }
            println!("{depth:3} backtrace crate {:8.1}", (cpu_time() - start) as f64 / 2_000.0);
        });
    }
    let nodes = &raw const NODES;
    // SAFETY: one thread.
    println!("nodes: {}", unsafe { (*nodes).0 });
}
