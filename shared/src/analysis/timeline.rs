//! Memory over time: points at even distances, known in advance, and one at the peak.

use crate::model::TimelinePoint;

/// Most points, the one of the peak included.
pub const POINTS: u64 = 2_000;

/// Live bytes and blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Active {
    /// Bytes.
    pub memory: u64,
    /// Blocks.
    pub allocations: u64,
}

/// Takes the points while the events go by.
#[derive(Debug)]
pub struct Timeline {
    start: u64,
    end: u64,
    /// Points besides the peak.
    count: u64,
    taken: Vec<(u64, Active)>,
    /// Time of the next point; the maximum when all are taken.
    next: u64,
}

impl Timeline {
    /// From `start` to `end`, in ns since the Unix epoch.
    #[must_use]
    pub fn new(start: u64, end: u64) -> Self {
        let start = start.min(u64::MAX - 1);
        let end = end.clamp(start, u64::MAX - 1);
        let count = (end - start).saturating_add(1).min(POINTS - 1);
        Self { start, end, count, taken: Vec::new(), next: start }
    }

    /// Time of point `at`.
    fn time(&self, at: u64) -> u64 {
        let span = u128::from(self.end - self.start);
        self.start + (span * u128::from(at) / u128::from((self.count - 1).max(1))) as u64
    }

    /// An event at `now` is about to change what was active up to then.
    #[inline]
    pub fn advance(&mut self, now: u64, active: Active) {
        if now > self.next {
            self.take(now, active);
        }
    }

    #[cold]
    fn take(&mut self, now: u64, active: Active) {
        while self.next < now {
            self.taken.push((self.next, active));
            let at = self.taken.len() as u64;
            self.next = if at < self.count { self.time(at) } else { u64::MAX };
        }
    }

    /// The points. `peak` is added where there is one, `rss` holds times and resident sets, sorted.
    #[must_use]
    pub fn finish(
        mut self,
        last: Active,
        peak: Option<(u64, Active)>,
        rss: &[(u64, u64)],
    ) -> Vec<TimelinePoint> {
        self.take(u64::MAX, last);
        let mut points = self.taken;
        if let Some(peak) = peak {
            let at = points.partition_point(|point| point.0 < peak.0);
            if points.get(at).is_none_or(|point| *point != peak) {
                points.insert(at, peak);
            }
        }
        let resident = |time| {
            let at = rss.partition_point(|sample| sample.0 <= time).checked_sub(1)?;
            Some(rss[at].1)
        };
        let point = |(time, active): (u64, Active)| TimelinePoint {
            time,
            active_memory: active.memory,
            active_allocations: active.allocations,
            rss: resident(time),
        };
        without_repeats(points.into_iter().map(point).collect(), peak.map(|peak| peak.0))
    }
}

/// Leaves out points between two that say the same: most processes of a tree do next to nothing. The peak stays.
fn without_repeats(points: Vec<TimelinePoint>, peak: Option<u64>) -> Vec<TimelinePoint> {
    let same = |a: &TimelinePoint, b: &TimelinePoint| TimelinePoint { time: a.time, ..*b } == *a;
    let says_more = |at: usize| {
        let point = &points[at];
        let neighbours = at.checked_sub(1).and_then(|before| points.get(before)).zip(points.get(at + 1));
        Some(point.time) == peak
            || neighbours.is_none_or(|(before, after)| !same(before, point) || !same(after, point))
    };
    (0..points.len()).filter(|&at| says_more(at)).map(|at| points[at]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(memory: u64) -> Active {
        Active { memory, allocations: memory / 10 }
    }

    #[test]
    fn each_point_shows_what_was_active_then() {
        let mut timeline = Timeline::new(1_000, 1_000_000);
        let events: Vec<u64> = (0..5_000).map(|n| 1_000 + n * n / 26).collect();
        for (n, &time) in events.iter().enumerate() {
            timeline.advance(time, active(n as u64 * 10));
        }
        let peak = (777_777, active(99_999_999));
        let points = timeline.finish(active(50_000), Some(peak), &[(500_000, 7), (600_000, 8)]);
        let most = usize::try_from(POINTS).unwrap();
        assert!(
            (most * 9 / 10..=most).contains(&points.len()),
            "{}: only repeats are left out",
            points.len()
        );
        assert!(points.is_sorted_by_key(|point| point.time));
        assert_eq!((points[0].time, points.last().unwrap().time), (1_000, 1_000_000));
        for point in &points {
            if point.time == peak.0 && point.active_memory == peak.1.memory {
                continue;
            }
            let before = events.iter().filter(|&&time| time <= point.time).count() as u64;
            assert_eq!(point.active_memory, before * 10, "{}", point.time);
            let rss = [None, Some(7), Some(8)]
                [usize::from(point.time >= 500_000) + usize::from(point.time >= 600_000)];
            assert_eq!(point.rss, rss);
        }
        assert!(points.iter().any(|point| point.active_memory == peak.1.memory && point.time == peak.0));
    }

    #[test]
    fn short_spans_have_few_points() {
        let times = |start, end| {
            let points = Timeline::new(start, end).finish(Active::default(), None, &[]);
            points.iter().map(|point| point.time).collect::<Vec<_>>()
        };
        assert_eq!(times(5, 5), [5]);
        assert_eq!(times(5, 8), [5, 8], "those between say nothing new");
        assert_eq!(times(9, 5), [9], "an end before the start");
        assert_eq!(times(0, u64::MAX), [0, u64::MAX - 1]);
        let peak = Some((5, active(3)));
        assert_eq!(Timeline::new(5, 5).finish(active(3), peak, &[]).len(), 1, "the peak is there already");
        let mut timeline = Timeline::new(0, 9);
        timeline.advance(3, active(0));
        timeline.advance(7, active(10));
        let points = timeline.finish(active(0), Some((4, active(10))), &[]);
        assert_eq!(points.iter().map(|point| point.time).collect::<Vec<_>>(), [0, 2, 3, 4, 6, 7, 9]);
    }
}
