//! The work that all programs measure: a small vector is made, tracked, and dropped.

use std::hint::black_box;
use std::time::Instant;

/// Variables of one round. A round is short, so that most are not interrupted by other programs.
const COUNT: usize = 2_000;
const ROUNDS: usize = 200;

/// The variable's memory.
#[inline(never)]
pub fn make() -> Vec<u8> {
    black_box(vec![7; 16])
}

/// Ns for each call of `work`: the lower quartile of the rounds.
pub fn measure(mut work: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..COUNT).for_each(|_| work());
            start.elapsed().as_nanos() as f64 / COUNT as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 4]
}

/// Prints a row.
pub fn row(what: &str, ns: f64) {
    println!("{what:<44} {ns:>9.1} ns");
}
