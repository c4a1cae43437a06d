//! An allocator that tracks every block by hand: the library's own allocations come back into it. The argument is the path
//! of the export.

use memscope_rs::get_global_tracker;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

struct Tracking;

static STARTS: AtomicU64 = AtomicU64::new(0);
static ENDS: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Tracking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        let block = unsafe { System.alloc(layout) };
        STARTS.fetch_add(1, Ordering::Relaxed);
        get_global_tracker().track_allocation(block as usize, layout.size()).expect("never fails");
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ENDS.fetch_add(1, Ordering::Relaxed);
        get_global_tracker().track_deallocation(block as usize).expect("it was tracked");
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(block, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Tracking = Tracking;

fn main() {
    let path = std::env::args().nth(1).expect("a path");
    memscope_rs::capture_stacks(true);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                for n in 0..2_000 {
                    let _scope = memscope_rs::ScopeGuard::enter(format!("scope {}", n % 7));
                    drop(std::hint::black_box(memscope_rs::track_var!(vec![n; 5])));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    // One thread is left, so the numbers hold still but for what the snapshot itself allocates.
    let (starts, ends) = (STARTS.load(Ordering::Relaxed), ENDS.load(Ordering::Relaxed));
    get_global_tracker().export_to_json(&path).expect("the export");
    println!("{starts} {ends}");
}
