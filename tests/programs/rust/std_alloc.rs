//! Rust's global allocator, used directly: one JSON line per block, as `say.h` writes them.

use std::alloc::{alloc, alloc_zeroed, dealloc, realloc, Layout};

fn block(ptr: usize, size: usize, end: &str) {
    println!("{{\"block\":{{\"ptr\":{ptr},\"size\":{size},\"end\":\"{end}\"}}}}");
}

fn tally(a: usize, ab: usize, d: usize, db: usize, r: usize) {
    println!(
        "{{\"tally\":{{\"total_allocations\":{a},\"total_allocated\":{ab},\"total_deallocations\":{d},\
         \"total_deallocated\":{db},\"reallocations\":{r},\"failed_allocations\":0,\"unknown_frees\":0}}}}"
    );
}

fn main() {
    // Standard output's own buffer comes first, in the baseline too.
    println!("{{\"answer\":{{\"started\":1}}}}");
    if std::env::args().nth(1).as_deref() != Some("blocks") {
        return tally(0, 0, 0, 0, 0);
    }
    let plain = Layout::from_size_align(10007, 1).unwrap();
    let aligned = Layout::from_size_align(10240, 256).unwrap();
    // SAFETY: each block is freed once with the layout that it has.
    let blocks = unsafe {
        let a = alloc(plain);
        let b = alloc_zeroed(plain);
        let c = alloc(aligned);
        assert_eq!(c as usize % 256, 0);
        let d = realloc(a, plain, 20011);
        dealloc(b, plain);
        dealloc(c, aligned);
        dealloc(d, Layout::from_size_align(20011, 1).unwrap());
        [(a as usize, 10007, "realloc"), (b as usize, 10007, "free"), (c as usize, 10240, "free"), (d as usize, 20011, "free")]
    };
    let kept = Box::leak(Box::new([7_u8; 10009]));
    for (ptr, size, end) in blocks {
        block(ptr, size, end);
    }
    block(kept.as_ptr() as usize, 10009, "exit");
    tally(5, 10007 * 2 + 10240 + 20011 + 10009, 4, 10007 * 2 + 10240 + 20011, 1);
}
