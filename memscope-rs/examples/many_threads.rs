//! Many threads that track many variables at once: every one is recorded.
//!
//!     cargo run --release -p memscope-rs --example many_threads -- 8 1000000
//!
//! The arguments are the number of threads and the variables of each. Ends with an error if a single one is missing.

use memscope_rs::{get_global_tracker, track_var};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let (threads, each) = (arguments.next().unwrap_or(8), arguments.next().unwrap_or(100_000));
    memscope_rs::init();
    memscope_rs::capture_stacks(false);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // Some live through the whole thread, most for a moment.
                let mut kept = Vec::new();
                for n in 0..each {
                    let variable = track_var!(n);
                    if n % 10 == 0 {
                        kept.push(variable);
                    } else {
                        drop(black_box(variable));
                    }
                }
            });
        }
    });
    let took = start.elapsed();
    let stats = get_global_tracker().get_stats();
    println!(
        "{} variables in {} threads, {:.0} ns each; {} ended, {} live, {} lost",
        stats.total_allocations,
        stats.threads,
        took.as_nanos() as f64 / (threads * each) as f64,
        stats.total_deallocations,
        stats.active_allocations,
        stats.lost_events,
    );
    let all = stats.total_allocations == threads * each && stats.total_deallocations == threads * each;
    if all && stats.lost_events == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
