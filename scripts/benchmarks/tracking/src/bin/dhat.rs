//! dhat records each allocation with its stack; it knows no variables.

use tracking::{make, measure, row};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() {
    let plain = measure(|| drop(make()));
    let profiler = dhat::Profiler::builder().testing().build();
    let recorded = measure(|| drop(make()));
    drop(profiler);
    row("dhat: each allocation, with its stack", recorded - plain);
}
