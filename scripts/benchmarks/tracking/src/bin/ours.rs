//! memscope-rs of this repository.

use std::hint::black_box;
use tracking::{make, measure, row};

fn main() {
    memscope_rs::init();
    let plain = measure(|| drop(make()));
    memscope_rs::capture_stacks(false);
    let tracked = || {
        let vec = make();
        drop(black_box(memscope_rs::track_var!(vec)));
    };
    row("a Vec made and dropped", plain);
    row("memscope-rs: tracked as well", measure(tracked) - plain);
    memscope_rs::capture_stacks(true);
    row("memscope-rs: tracked with its stack", measure(tracked) - plain);
}
