//! The distribution of lifetimes over a whole process, in steps of 1, 2, 5 from 1 µs on.

use super::histogram::octave;
use crate::model::HistogramBucket;

/// Upper bounds in ns: 1 µs, 2 µs, 5 µs and so on to 10,000 s.
const BOUNDS: [u64; 31] = bounds();

const fn bounds() -> [u64; 31] {
    let (mut all, mut at, mut decade) = ([0; 31], 0, 1_000);
    while at < 31 {
        all[at] = decade * [1, 2, 5][at % 3];
        if at % 3 == 2 {
            decade *= 10;
        }
        at += 1;
    }
    all
}

/// Of each power of two, how many bounds it has reached: where to begin to look.
const REACHED: [u8; 64] = reached();

const fn reached() -> [u8; 64] {
    let mut all = [0; 64];
    let mut bit = 0;
    while bit < 64 {
        let mut count = 0;
        while count < BOUNDS.len() && BOUNDS[count] <= 1 << bit {
            count += 1;
        }
        all[bit] = count as u8;
        bit += 1;
    }
    all
}

/// Counts and bytes by lifetime.
#[derive(Clone, Debug)]
pub struct LifetimeHistogram([(u64, u64); BOUNDS.len() + 1]);

impl Default for LifetimeHistogram {
    fn default() -> Self {
        Self([(0, 0); BOUNDS.len() + 1])
    }
}

impl LifetimeHistogram {
    /// Counts a block of `size` bytes that lived `lifetime` ns.
    #[inline]
    pub fn add(&mut self, lifetime: u64, size: u64) {
        // Each bound is at least twice the one before, so between two powers of two there is at most one more.
        let at = REACHED[octave(lifetime | 1) as usize] as usize;
        let at = at + usize::from(BOUNDS.get(at).is_some_and(|&bound| lifetime >= bound));
        let (count, bytes) = &mut self.0[at];
        *count += 1;
        *bytes = bytes.wrapping_add(size);
    }

    /// The buckets, those with upper bounds first.
    #[must_use]
    pub fn buckets(&self) -> Vec<HistogramBucket> {
        let bounds = BOUNDS.iter().map(|&bound| Some(bound)).chain([None]);
        let buckets = self.0.iter().zip(bounds);
        buckets
            .map(|(&(allocations, bytes), upto_ns)| HistogramBucket { upto_ns, allocations, bytes })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lifetime_has_its_bucket() {
        let edges = BOUNDS.iter().flat_map(|&bound| [bound - 1, bound, bound + 1]);
        for lifetime in edges.chain([0, 1, 2, 4096, u64::MAX]) {
            let mut histogram = LifetimeHistogram::default();
            histogram.add(lifetime, 7);
            let buckets = histogram.buckets();
            let at = buckets.iter().position(|bucket| bucket.allocations == 1).unwrap();
            assert_eq!(buckets[at].bytes, 7);
            assert!(buckets[at].upto_ns.is_none_or(|bound| lifetime < bound));
            assert!(at == 0 || buckets[at - 1].upto_ns.unwrap() <= lifetime);
        }
    }

    #[test]
    fn bounds_are_round() {
        assert_eq!(BOUNDS[..4], [1_000, 2_000, 5_000, 10_000]);
        assert_eq!(BOUNDS[30], 10_000_000_000_000);
        assert_eq!(LifetimeHistogram::default().buckets().last().unwrap().upto_ns, None);
    }
}
