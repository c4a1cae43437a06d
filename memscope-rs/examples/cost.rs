//! What tracking costs: ns for a variable with its drop, beside the same without tracking.
//!
//!     cargo run --release -p memscope-rs --example cost
//!
//! The variables are small vectors that are made outside of the measured time, so that only tracking is measured.

use memscope_rs::{Trackable, track_var};
use std::hint::black_box;
use std::time::Instant;

/// Variables of one round. A round is short, so that most are not interrupted by other programs.
const COUNT: usize = 2_000;
const ROUNDS: usize = 200;

fn main() {
    memscope_rs::init();
    memscope_rs::capture_stacks(false);
    row(
        "two readings of the clock",
        added(|| timed(some_numbers(), two_readings), || timed(some_numbers(), untracked)),
    );
    row("a number", numbers());
    row("a Vec", vectors());
    row("a Vec, borrowed twice", borrowed());
    row("a Vec, from 4 threads at once", threads());
    memscope_rs::capture_stacks(true);
    row("a Vec, with its stack", vectors());
}

fn row(what: &str, ns: f64) {
    println!("{what:<32} {ns:>8.1} ns");
}

/// Ns a variable: the lower quartile of the rounds with tracking, less that of those without.
fn added(mut tracked: impl FnMut() -> f64, mut plain: impl FnMut() -> f64) -> f64 {
    let (mut with, mut without): (Vec<f64>, Vec<f64>) = (0..ROUNDS).map(|_| (tracked(), plain())).unzip();
    with.sort_by(f64::total_cmp);
    without.sort_by(f64::total_cmp);
    with[ROUNDS / 4] - without[ROUNDS / 4]
}

/// Ns for each value that `each` consumes.
fn timed<T>(values: Vec<T>, mut each: impl FnMut(T)) -> f64 {
    let count = values.len();
    let start = Instant::now();
    values.into_iter().for_each(&mut each);
    start.elapsed().as_nanos() as f64 / count as f64
}

fn some_vectors() -> Vec<Vec<u8>> {
    (0..COUNT).map(|n| vec![n as u8; 16]).collect()
}

fn some_numbers() -> Vec<u64> {
    (0..COUNT as u64).collect()
}

fn untracked<T>(value: T) {
    drop(black_box(value));
}

fn two_readings(_: u64) {
    black_box(black_box(Instant::now()).elapsed());
}

fn numbers() -> f64 {
    added(|| timed(some_numbers(), track), || timed(some_numbers(), untracked))
}

fn track<T: Trackable>(value: T) {
    drop(black_box(track_var!(value)));
}

fn vectors() -> f64 {
    added(|| timed(some_vectors(), track), || timed(some_vectors(), untracked))
}

fn borrowed() -> f64 {
    let tracked = |value: Vec<u8>| {
        let value = track_var!(value);
        black_box(value.len() + value.capacity());
    };
    let plain = |value: Vec<u8>| {
        black_box(value.len() + value.capacity());
    };
    added(|| timed(some_vectors(), tracked), || timed(some_vectors(), plain))
}

fn threads() -> f64 {
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(vectors)).collect();
    let all: Vec<f64> = threads.into_iter().map(|thread| thread.join().expect("a result")).collect();
    all.iter().sum::<f64>() / all.len() as f64
}
