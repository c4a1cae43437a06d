//! Deep call paths at random: next to nothing of a stack can be joined, so whole ones are unwound for a while.

use super::*;
use std::hint::black_box;

fn ask<T>(question: impl FnOnce(&Stack) -> T) -> T {
    STATE.with_borrow(|state| {
        // SAFETY: the state is this thread's, and not in use.
        question(unsafe { &(*state.as_ptr().cast::<StackState>()).stack })
    })
}

fn is_resting() -> bool {
    ask(Stack::is_resting)
}

/// Goes down by the path's lowest bits: frames of different sizes.
fn down(path: u64, left: u32) -> u64 {
    let next = if path & 1 == 0 { narrow } else { wide };
    if left == 0 { hook() } else { next(path >> 1, left - 1) }
}

#[inline(never)]
fn narrow(path: u64, left: u32) -> u64 {
    black_box(down(path, left)) | black_box(0)
}

#[inline(never)]
fn wide(path: u64, left: u32) -> u64 {
    let frame = black_box([path; 9]);
    black_box(down(path, left)) | (black_box(frame)[3] ^ path)
}

#[test]
fn random_paths_are_whole_and_repeated_ones_are_joined_again() {
    let (mut seed, mut rested) = (7_u64, 0);
    for _ in 0..2_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let path = seed >> 54;
        let captured = down(path.wrapping_mul(0x9e37_79b9_7f4a_7c15), 40);
        rested += u32::from(is_resting());
        assert!(depth(captured) > 40);
    }
    // Other tests unload libraries meanwhile, and then a thread begins anew.
    assert!(rested > 1_000, "{rested} of 2000 captures rested");
    // Of 1024 paths, half of the stacks were there before.
    let guided = ask(Stack::guided);
    assert!(guided > 200, "{guided} of 2000 stacks were known");
    for _ in 0..400 {
        assert!(depth(down(5, 40)) > 40);
    }
    assert!(!is_resting(), "what repeats is joined");
}
