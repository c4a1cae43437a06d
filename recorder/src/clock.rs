//! Stamps: the recording's clock.
//!
//! Where the processor has an invariant TSC, a stamp is its raw reading (9 ns instead of 21 for
//! `clock_gettime`); elsewhere it is `CLOCK_MONOTONIC` in ns. The writer samples both clocks at least once a
//! second, and the reader interpolates between the samples, so neither a wrong nominal frequency nor a slewed
//! clock matters.

use crate::hot::HOT;
use crate::sys::time;
use core::sync::atomic::Ordering;

const UNKNOWN: u32 = 0;
const TSC: u32 = 1;
const MONOTONIC: u32 = 2;

/// One reading of all clocks at (almost) the same time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// The stamp.
    pub stamp: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub monotonic_ns: u64,
    /// `CLOCK_REALTIME`, ns.
    pub realtime_ns: u64,
}

/// Chooses the clock. Must come before the first stamp.
pub fn choose() {
    if HOT.clock.load(Ordering::Relaxed) == UNKNOWN {
        HOT.clock.store(if invariant_tsc() { TSC } else { MONOTONIC }, Ordering::Relaxed);
    }
}

/// True where stamps are TSC readings.
#[inline(always)]
#[must_use]
pub fn is_tsc() -> bool {
    HOT.clock.load(Ordering::Relaxed) == TSC
}

/// "Invariant TSC": the counter runs at one rate in every power state (CPUID 8000_0007h, EDX bit 8).
fn invariant_tsc() -> bool {
    let highest = core::arch::x86_64::__cpuid(0x8000_0000).eax;
    highest >= 0x8000_0007 && core::arch::x86_64::__cpuid(0x8000_0007).edx & (1 << 8) != 0
}

/// The stamp of now.
#[inline(always)]
#[must_use]
pub fn stamp() -> u64 {
    if HOT.clock.load(Ordering::Relaxed) == TSC { tsc() } else { time::monotonic_ns() }
}

/// The same, where it is known to be a TSC reading.
#[inline(always)]
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Reads all clocks; of three tries the one that took the least time. (A thread may lose the processor between any two readings.)
#[must_use]
pub fn sample() -> Sample {
    let mut best = (u64::MAX, Sample::default());
    for _ in 0..3 {
        let before = stamp();
        let monotonic_ns = time::monotonic_ns();
        let between = stamp();
        let realtime_ns = time::realtime_ns();
        let took = stamp().wrapping_sub(before);
        if took < best.0 {
            let stamp = before + between.wrapping_sub(before) / 2;
            best = (took, Sample { stamp, monotonic_ns, realtime_ns });
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_go_forward() {
        choose();
        let a = sample();
        let b = sample();
        assert!(a.stamp < b.stamp && a.monotonic_ns < b.monotonic_ns);
        assert!(a.realtime_ns > 1_500_000_000_000_000_000);
    }
}
