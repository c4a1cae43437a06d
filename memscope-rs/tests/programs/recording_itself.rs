//! A program that records itself by its allocator. Prints the size and address of what it allocates.

use memscope_rs::track_var;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: memscope_rs::MemscopeAllocator = memscope_rs::MemscopeAllocator;

#[inline(never)]
fn allocate(size: usize) -> Vec<u8> {
    black_box(vec![1; size])
}

/// Allocates, and ends as its argument says.
pub fn main() {
    memscope_rs::init();
    let kept = allocate(1009);
    let mut grown = allocate(2003);
    grown.reserve_exact(2011);
    drop(grown);
    drop(black_box(vec![0_u8; 3001]));
    let mut tracked = track_var!(Vec::with_capacity(4001));
    tracked.resize(4001, 7_u8);
    tracked.reserve_exact(4003);
    drop(tracked);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                for _ in 0..3_000 {
                    drop(allocate(5003));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    match std::env::args().nth(1).as_deref() {
        Some("abort") => std::process::abort(),
        Some("exit") => std::process::exit(7),
        Some("fork") => forked(),
        _ => {}
    }
    assert_eq!(kept.len(), 1009);
}

fn forked() {
    // SAFETY: the child only does what the parent could do.
    let child = unsafe { libc::fork() };
    drop(allocate(6007));
    if child != 0 {
        // SAFETY: no status is wanted.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
}
