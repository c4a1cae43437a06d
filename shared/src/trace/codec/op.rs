//! Operations: one byte a record, which says its kind and where the rest of it comes from.
//!
//! | bytes | record | its address |
//! |---|---|---|
//! | 0 | any; whole in the column `OTHER` | |
//! | 1 | any with a stamp in word 1; the other words in `OTHER` | |
//! | 2, 3 | `ALLOC` | `MISS`, in units of 16 bytes or single ones |
//! | 4 | `ALLOC` | `UNNAMED` |
//! | 5 | `ALLOC_LARGE` | `MISS`, single bytes |
//! | 6, 7 | `REALLOC_MOVED` | `MISS`, in units of 16 bytes or single ones |
//! | 8 | `REALLOC_MOVED` | `UNNAMED` |
//! | 9 | `REALLOC_MOVED_LARGE` | `MISS`, single bytes |
//! | 10 | `REALLOC_MOVED` | that of the block ended last |
//! | 11 | `REALLOC_FREED` | `FREE` |
//! | 12 | `REALLOC_FAILED` | `FREE` |
//! | 13 | `FAILED` | `FREE` |
//! | 14 to 17 | `NODE`, `NODE_EXACT`, `NODE_GUESSED`, `NODE_TRUNCATED` | `NODE_PC` |
//! | 20 to 25 | `FREE` | see below |
//! | 30 to 35 | `REALLOC_BEGIN` | see below |
//! | 64 to 95 | `ALLOC` | the (n-64)th of its class's freed blocks |
//! | 96 to 127 | `REALLOC_MOVED` | the (n-96)th |
//! | 128 to 159 | `FREE` | that of the allocation n-127 ago |
//! | 160 to 191 | `REALLOC_BEGIN` | that of the allocation n-159 ago |
//!
//! The blocks that `FREE` and `REALLOC_BEGIN` end, from their bases 20 and 30: +0 the allocation behind that
//! of the block ended last; +1 the one before that; +2 `AGO` allocations ago; +3 `STEP` allocations from that of
//! the block ended last; +4 `FREE`, in units of 16 bytes; +5 `FREE`, single bytes.

/// A whole record in `OTHER`.
pub const OTHER: u8 = 0;
/// A record in `OTHER` but for its stamp.
pub const OTHER_STAMPED: u8 = 1;
/// `ALLOC` at a predicted place plus units of 16 bytes.
pub const ALLOC_MISS: u8 = 2;
/// `ALLOC_LARGE`.
pub const ALLOC_LARGE: u8 = 5;
/// `REALLOC_MOVED` at a predicted place plus units of 16 bytes.
pub const MOVED_MISS: u8 = 6;
/// `REALLOC_MOVED_LARGE`.
pub const MOVED_LARGE: u8 = 9;
/// `REALLOC_MOVED` to where the block was.
pub const MOVED_SAME: u8 = 10;
/// `REALLOC_FREED`.
pub const REALLOC_FREED: u8 = 11;
/// `REALLOC_FAILED`.
pub const REALLOC_FAILED: u8 = 12;
/// `FAILED`.
pub const FAILED: u8 = 13;
/// `NODE`; the next three are its kin.
pub const NODE: u8 = 14;
/// `FREE`, plus one of [`end`].
pub const FREE: u8 = 20;
/// `REALLOC_BEGIN`, plus one of [`end`].
pub const BEGIN: u8 = 30;
/// `ALLOC` of a freed block, plus how many of its class were freed later.
pub const ALLOC_HIT: u8 = 64;
/// The same for `REALLOC_MOVED`.
pub const MOVED_HIT: u8 = 96;
/// `FREE` of a recent allocation, plus how many allocations ago, less one.
pub const FREE_NEAR: u8 = 128;
/// The same for `REALLOC_BEGIN`.
pub const BEGIN_NEAR: u8 = 160;

/// Added to [`ALLOC_MISS`] and [`MOVED_MISS`].
pub mod miss {
    /// The difference is in single bytes.
    pub const BYTES: u8 = 1;
    /// It is one of the freed blocks whose allocations were not seen.
    pub const UNNAMED: u8 = 2;
}

/// Added to [`FREE`] and [`BEGIN`].
pub mod end {
    /// The allocation behind that of the block ended last.
    pub const NEXT: u8 = 0;
    /// The allocation in front of that of the block ended last.
    pub const PREVIOUS: u8 = 1;
    /// By the number of allocations since.
    pub const AGO: u8 = 2;
    /// By the difference to the allocation of the block ended last.
    pub const STEP: u8 = 3;
    /// By the difference to the address ended last, in units of 16 bytes.
    pub const UNITS: u8 = 4;
    /// The same in single bytes.
    pub const BYTES: u8 = 5;
}

/// Ways to say how near something is that fit into an operation.
pub const NEAR: usize = 32;

const _: () = assert!(ALLOC_HIT as usize + NEAR == MOVED_HIT as usize);
const _: () = assert!(MOVED_HIT as usize + NEAR == FREE_NEAR as usize);
const _: () = assert!(FREE_NEAR as usize + NEAR == BEGIN_NEAR as usize);
