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
        Some("fork") => forked(|| drop(allocate(6007))),
        Some("large") => std::thread::spawn(large).join().map(|()| large()).unwrap(),
        Some("fork_large") => forked(large),
        Some("wait") => wait(),
        _ => {}
    }
    assert_eq!(kept.len(), 1009);
}

/// Does it in a child as well.
fn forked(work: impl Fn()) {
    // SAFETY: the child only does what the parent could do.
    let child = unsafe { libc::fork() };
    work();
    if child != 0 {
        let mut status = 0;
        // SAFETY: the status is ours.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "the child ends well");
    }
}

/// MiB of memory that the process has.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    (pages * 4096) >> 20
}

/// A block that is larger than any of the recorder's own: had and given back as without it.
fn large() {
    let before = resident();
    let mut block: Vec<u8> = black_box(Vec::with_capacity(1100 << 20));
    block.resize(64 << 20, 1);
    assert!(resident() >= before + 60, "{before} {}", resident());
    drop(black_box(block));
    assert!(resident() <= before + 20, "{before} {}", resident());
    // One size of many blocks, whose memory is as they need it and not twice as much.
    let blocks: Vec<Vec<u8>> = (0..32).map(|_| black_box(vec![1; (1 << 20) + 1])).collect();
    assert!(resident() <= before + 20 + 32, "{before} {}", resident());
    drop(blocks);
    assert!(resident() <= before + 20, "{before} {}", resident());
}

/// Says that all of the above is done, and waits to be killed.
fn wait() {
    println!("waiting");
    loop {
        std::thread::park();
    }
}
