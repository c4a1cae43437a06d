//! The published crate of the same name.

use predecessor::track_var;
use std::hint::black_box;
use tracking::{make, measure, row};

fn main() {
    predecessor::init();
    let plain = measure(|| drop(make()));
    let tracked = measure(|| {
        let vec = make();
        black_box(track_var!(vec));
        drop(vec);
    });
    row("memscope-rs 0.1.10: tracked as well", tracked - plain);
    let stats = predecessor::get_tracker().get_stats();
    println!("{stats:?}");
}
