//! The first use of the library, and all that most programs need.
//!
//! Writes `my_memory_analysis.json` into the current directory.
#![allow(unused_variables)]

use memscope_rs::track_var;

fn main() {
    memscope_rs::init();
    memscope_rs::enable_auto_export(Some("my_memory_analysis.json"));
    let my_vec = vec![1, 2, 3];
    let tracked_vec = track_var!(my_vec); // takes ownership, derefs to the Vec
    // the end of the program exports, with exact lifetimes
}
