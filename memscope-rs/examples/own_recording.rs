//! A program that records every allocation of its Rust code by itself, without `memscope-cli run`: for programs that cannot be
//! preloaded.
//!
//!     cargo run --release -p memscope-rs --features allocator --example own_recording
//!     memscope-cli analyze memscope-own_recording-PID report.html

use memscope_rs::track_var;

#[global_allocator]
static ALLOCATOR: memscope_rs::MemscopeAllocator = memscope_rs::MemscopeAllocator;

fn main() {
    memscope_rs::init();
    let words: Vec<String> = (0..1000).map(|n| format!("word {n}")).collect();
    let words = track_var!(words); // its block has this name in the recording
    println!("{} words of {} bytes", words.len(), words.iter().map(String::len).sum::<usize>());
}
