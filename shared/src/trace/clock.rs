//! Stamps to time: piecewise linear between the samples of the clock.
//!
//! Epoch times are the realtime of the first sample plus monotonic time since, so that a step of the
//! realtime clock moves nothing. Outside of the samples the mean rate over all of them goes on. All
//! of it is exact integer arithmetic, and later stamps never give earlier times.

use super::meta::{ClockKind, ClockSample};

/// Fractional bits of a segment's rate.
const SHIFT: u32 = 48;

/// A run of stamps with one rate.
#[derive(Clone, Copy, Debug)]
struct Segment {
    stamp: u64,
    ns: u64,
    /// Highest time of the segment: rounding never passes the next one's start.
    limit: u64,
    /// ns a step, `SHIFT` fractional bits.
    rate: u64,
}

/// Turns stamps into ns since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Clock {
    segments: Vec<Segment>,
    rate: u64,
}

/// Remembers the segment of the last stamp: near ones cost no search.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockCursor {
    from: u64,
    /// Stamps from there on that belong to the segment.
    length: u64,
    ns: u64,
    limit: u64,
    rate: u64,
}

impl Clock {
    /// Takes the samples in any order. Where they give no rate, `kind` and `hz` (0: unknown) do.
    #[must_use]
    pub fn new(samples: &[ClockSample], kind: ClockKind, hz: u64) -> Self {
        let nominal = match kind {
            ClockKind::Tsc if hz > 0 => rate(1_000_000_000, hz),
            _ => 1 << SHIFT,
        };
        let points = points(samples);
        let (Some(&first), Some(&last)) = (points.first(), points.last()) else {
            let segments = vec![Segment { stamp: 0, ns: 0, limit: u64::MAX, rate: nominal }];
            return Self { segments, rate: nominal };
        };
        let overall = if last.0 > first.0 { rate(last.1 - first.1, last.0 - first.0) } else { nominal };
        let mut segments: Vec<Segment> = points
            .windows(2)
            .map(|w| Segment {
                stamp: w[0].0,
                ns: w[0].1,
                limit: w[1].1,
                rate: rate(w[1].1 - w[0].1, w[1].0 - w[0].0),
            })
            .collect();
        segments.push(Segment { stamp: last.0, ns: last.1, limit: u64::MAX, rate: overall });
        Self { segments, rate: overall }
    }

    /// Time of `stamp` in ns since the Unix epoch.
    #[must_use]
    pub fn ns(&self, stamp: u64) -> u64 {
        let segment = self.segments.partition_point(|s| s.stamp <= stamp);
        self.in_segment(segment, stamp)
    }

    /// The same, for stamps that mostly go on from the last one.
    #[inline]
    #[must_use]
    pub fn ns_near(&self, cursor: &mut ClockCursor, stamp: u64) -> u64 {
        let steps = stamp.wrapping_sub(cursor.from);
        if steps < cursor.length {
            time(cursor.ns, steps, cursor.rate, cursor.limit)
        } else {
            self.seek(cursor, stamp)
        }
    }

    /// The same, after the cursor has gone to the stamp's segment.
    #[cold]
    fn seek(&self, cursor: &mut ClockCursor, stamp: u64) -> u64 {
        let after = self.segments.partition_point(|s| s.stamp <= stamp);
        if let Some(&Segment { stamp: from, ns, limit, rate }) = self.segments[..after].last() {
            let end = self.segments.get(after).map_or(u64::MAX, |next| next.stamp);
            *cursor = ClockCursor { from, length: end - from, ns, limit, rate };
        }
        self.in_segment(after, stamp)
    }

    /// Stamp at which `ns` since the Unix epoch was, to within a few steps.
    #[must_use]
    pub fn stamp(&self, ns: u64) -> u64 {
        let segment = self.segments.partition_point(|s| s.ns <= ns);
        let Some(segment) = segment.checked_sub(1).map(|i| self.segments[i]) else {
            let first = self.segments[0];
            return first.stamp.saturating_sub(steps(first.ns - ns, self.rate));
        };
        segment.stamp.saturating_add(steps(ns - segment.ns, segment.rate))
    }

    /// `after` is the number of segments that start at or before `stamp`.
    #[inline]
    fn in_segment(&self, after: usize, stamp: u64) -> u64 {
        if after == 0 {
            let first = self.segments[0];
            return first.ns.saturating_sub(ns(first.stamp - stamp, self.rate));
        }
        let segment = &self.segments[after - 1];
        time(segment.ns, stamp - segment.stamp, segment.rate, segment.limit)
    }
}

/// (stamp, epoch ns), both rising.
fn points(samples: &[ClockSample]) -> Vec<(u64, u64)> {
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|s| (s.stamp, s.monotonic_ns));
    let Some(first) = sorted.first().copied() else { return Vec::new() };
    let mut points: Vec<(u64, u64)> = Vec::with_capacity(sorted.len());
    for sample in sorted {
        let Some(since) = sample.monotonic_ns.checked_sub(first.monotonic_ns) else { continue };
        let ns = first.realtime_ns.saturating_add(since);
        if points.last().is_none_or(|&(stamp, before)| sample.stamp > stamp && ns >= before) {
            points.push((sample.stamp, ns));
        }
    }
    points
}

/// ns a step, capped at what fits: 65,536 ns.
fn rate(ns: u64, steps: u64) -> u64 {
    u64::try_from((u128::from(ns) << SHIFT) / u128::from(steps.max(1))).unwrap_or(u64::MAX)
}

#[inline]
fn ns(steps: u64, rate: u64) -> u64 {
    u64::try_from((u128::from(steps) * u128::from(rate)) >> SHIFT).unwrap_or(u64::MAX)
}

/// Time so many steps after the start of a segment.
#[inline]
fn time(start: u64, steps: u64, rate: u64, limit: u64) -> u64 {
    start.saturating_add(ns(steps, rate)).min(limit)
}

fn steps(ns: u64, rate: u64) -> u64 {
    u64::try_from((u128::from(ns) << SHIFT) / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(stamp: u64, monotonic_ns: u64, realtime_ns: u64) -> ClockSample {
        ClockSample { stamp, monotonic_ns, realtime_ns }
    }

    const EPOCH: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn samples_are_hit_exactly() {
        let hz = 2_600_000_000u64;
        let samples: Vec<_> = (0..500u64)
            .map(|i| sample(i * hz / 10 + 77, i * 100_000_000 + i * 37 % 1000, EPOCH + i * 100_000_001))
            .collect();
        let clock = Clock::new(&samples, ClockKind::Tsc, hz);
        for s in &samples {
            assert_eq!(clock.ns(s.stamp), EPOCH + s.monotonic_ns);
        }
        let middle = clock.ns(samples[3].stamp + hz / 20);
        assert!(middle.abs_diff(EPOCH + samples[3].monotonic_ns + 50_000_000) < 1000);
    }

    #[test]
    fn never_falls_and_cursor_agrees() {
        let samples =
            [sample(1000, 50, EPOCH), sample(1003, 90, 0), sample(9000, 91, 0), sample(9001, 1 << 40, 0)];
        let clock = Clock::new(&samples, ClockKind::Tsc, 0);
        let (mut before, mut cursor) = (0, ClockCursor::default());
        for stamp in 0..20_000 {
            let ns = clock.ns(stamp);
            assert!(ns >= before, "{stamp}");
            assert_eq!(ns, clock.ns_near(&mut cursor, stamp));
            before = ns;
        }
        for stamp in [0, 9000, 5, u64::MAX, 1001, 1000] {
            assert_eq!(clock.ns(stamp), clock.ns_near(&mut cursor, stamp));
        }
    }

    #[test]
    fn monotonic_stamps_need_one_sample() {
        let clock = Clock::new(&[sample(5_000, 5_000, EPOCH)], ClockKind::Monotonic, 0);
        assert_eq!(clock.ns(5_123), EPOCH + 123);
        assert_eq!(clock.ns(4_000), EPOCH - 1_000);
        assert_eq!(clock.stamp(EPOCH + 123), 5_123);
        assert_eq!(clock.stamp(EPOCH - 10), 4_990);
        assert_eq!(Clock::new(&[], ClockKind::Monotonic, 0).ns(9), 9);
    }

    #[test]
    fn goes_on_at_the_mean_rate() {
        let samples =
            [sample(1_000, 1_000, EPOCH), sample(3_000, 2_000, EPOCH + 5), sample(3_001, 2_030, EPOCH)];
        let clock = Clock::new(&samples, ClockKind::Tsc, 7);
        let ahead = clock.ns(3_001 + 2_001) - (EPOCH + 1_030);
        assert!(ahead.abs_diff(1_030) <= 1);
    }

    #[test]
    fn hostile_samples_are_survived() {
        let extremes = [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX];
        for a in extremes {
            for b in extremes {
                for c in extremes {
                    let clock =
                        Clock::new(&[sample(a, b, c), sample(b, c, a), sample(c, a, b)], ClockKind::Tsc, a);
                    let times = extremes.map(|stamp| clock.ns(stamp));
                    assert!(times.is_sorted());
                    let _ = extremes.map(|ns| clock.stamp(ns));
                }
            }
        }
    }
}
