//! When and how much is written at a time, by whoever writes a trace: our thread in the program, or `memscope-cli`, which
//! drains it.

use core::time::Duration;

/// How often part-filled buffers are looked at.
pub const TICK: Duration = Duration::from_millis(80);
/// How often full ones are, where the program's threads can't wake the writer.
pub const POLL: Duration = Duration::from_millis(10);
/// Every how many ticks the clocks and the threads' names are read.
pub const TICKS_PER_SAMPLE: u64 = 10;
/// Most buffers that are written together.
pub const BATCH: usize = 32;
/// Full buffers that are let gather before the writer is woken: larger frames are smaller by up to a third. (At the next tick it
/// looks anyway.)
pub const GATHER: usize = 16;
/// Threads whose names are read in one go.
pub const NAMES_AT_ONCE: usize = 256;
/// Stamps are kept to 20 ns: the TSC of common processors steps by 10 ns or more.
const STEPS_PER_SECOND: u64 = 50_000_000;

/// The unit in which a trace keeps stamps, by its clock's steps in a second (0 where they are not known).
#[must_use]
pub fn unit(clock_hz: u64) -> u32 {
    u32::try_from(clock_hz / STEPS_PER_SECOND).unwrap_or(1).max(1)
}
