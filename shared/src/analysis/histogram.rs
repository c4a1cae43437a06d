//! Quantiles of lifetimes: a histogram with 16 buckets for each doubling.
//!
//! A bucket is at most 1/16 wide of its lower bound, so its middle is within 3.2 % of any value in it.
//! Most stacks see few distinct lifetimes, so the first dozen values are kept as bucket numbers, and
//! then one row of 16 counters for each doubling that occurs.

/// Buckets for each doubling, as a power of two.
const SUB_BITS: u32 = 4;
const SUBS: usize = 1 << SUB_BITS;
/// Rows: one for 0 to 15, then one for each doubling up to 2^64.
const ROWS: usize = 64 - SUB_BITS as usize + 1;
/// Values that are kept before there are counters.
const FEW: usize = 12;

/// Number of the bucket that holds `value`.
#[inline]
const fn bucket(value: u64) -> u16 {
    if value < SUBS as u64 {
        return value as u16;
    }
    let octave = value.ilog2();
    let sub = (value >> (octave - SUB_BITS)) as usize & (SUBS - 1);
    ((octave - SUB_BITS + 1) as usize * SUBS + sub) as u16
}

/// The middle of a bucket.
const fn middle(bucket: u16) -> u64 {
    let (row, sub) = (bucket as usize / SUBS, bucket as u64 % SUBS as u64);
    if row == 0 {
        return sub;
    }
    let low = (SUBS as u64 + sub) << (row - 1);
    low + (1 << (row - 1)) / 2
}

/// How often each value occurred, about.
#[derive(Clone, Debug)]
pub struct Histogram(Counts);

#[derive(Clone, Debug)]
enum Counts {
    Few { length: u8, buckets: [u16; FEW] },
    Many(Box<Many>),
}

#[derive(Clone, Debug)]
struct Many {
    /// Of each row, its number in `counts` plus one; 0: nothing there.
    rows: [u8; ROWS],
    counts: Vec<[u64; SUBS]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self(Counts::Few { length: 0, buckets: [0; FEW] })
    }
}

impl Histogram {
    /// Counts a value.
    #[inline]
    pub fn add(&mut self, value: u64) {
        let bucket = bucket(value);
        match &mut self.0 {
            Counts::Many(many) => many.add(bucket),
            Counts::Few { length, buckets } if (*length as usize) < FEW => {
                buckets[*length as usize] = bucket;
                *length += 1;
            }
            Counts::Few { buckets, .. } => {
                let mut many = Box::new(Many { rows: [0; ROWS], counts: Vec::new() });
                buckets.iter().for_each(|&bucket| many.add(bucket));
                many.add(bucket);
                self.0 = Counts::Many(many);
            }
        }
    }

    /// The values below which (or at which) these parts of all lie, in thousandths, rising.
    #[must_use]
    pub fn quantiles<const N: usize>(&self, thousandths: [u64; N]) -> [u64; N] {
        let buckets = self.buckets();
        let total: u64 = buckets.iter().map(|bucket| bucket.1).sum();
        thousandths.map(|part| {
            let rank = (u128::from(total) * u128::from(part)).div_ceil(1000).max(1);
            let mut below = 0;
            let found = buckets.iter().find(|(_, count)| {
                below += u128::from(*count);
                below >= rank
            });
            found.map_or(0, |&(bucket, _)| middle(bucket))
        })
    }

    /// Buckets that are not empty with their counts, rising.
    fn buckets(&self) -> Vec<(u16, u64)> {
        match &self.0 {
            Counts::Few { length, buckets } => {
                let mut buckets: Vec<_> = buckets[..*length as usize].iter().map(|&b| (b, 1)).collect();
                buckets.sort_unstable();
                buckets
            }
            Counts::Many(many) => many.buckets(),
        }
    }
}

impl Many {
    #[inline]
    fn add(&mut self, bucket: u16) {
        let (row, sub) = (bucket as usize / SUBS, bucket as usize % SUBS);
        if self.rows[row] == 0 {
            self.counts.push([0; SUBS]);
            self.rows[row] = self.counts.len() as u8;
        }
        self.counts[self.rows[row] as usize - 1][sub] += 1;
    }

    fn buckets(&self) -> Vec<(u16, u64)> {
        let mut buckets = Vec::new();
        for (row, &at) in self.rows.iter().enumerate().filter(|&(_, &at)| at != 0) {
            let counts = self.counts[at as usize - 1].iter().enumerate();
            let counts = counts.filter(|&(_, &count)| count != 0);
            buckets.extend(counts.map(|(sub, &count)| ((row * SUBS + sub) as u16, count)));
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rng;
    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        let mut before = 0;
        for value in 0..10_000 {
            let number = bucket(value);
            assert!(number == before || number == before + 1);
            before = number;
        }
        for value in (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit]) {
            let number = bucket(value);
            assert!((number as usize) < ROWS * SUBS);
            assert_eq!(bucket(middle(number)), number);
        }
        assert_eq!(bucket(u64::MAX) as usize, ROWS * SUBS - 1);
    }

    #[test]
    fn quantiles_are_within_five_percent() {
        let mut random = Rng::new(5);
        for count in [1, 2, 5, 12, 13, 100, 5_000] {
            let mut values: Vec<u64> = (0..count)
                .map(|_| {
                    let octave = random.below(40);
                    random.below(2 << octave)
                })
                .collect();
            let mut histogram = Histogram::default();
            values.iter().for_each(|&value| histogram.add(value));
            values.sort_unstable();
            let parts = [1, 500, 900, 990, 1000];
            for (part, found) in parts.into_iter().zip(histogram.quantiles(parts)) {
                let rank = (count * part).div_ceil(1000).max(1);
                let exact = values[rank as usize - 1];
                assert!(found.abs_diff(exact) * 20 <= exact, "{part} of {count}: {found}, not {exact}");
            }
        }
        assert_eq!(Histogram::default().quantiles([500]), [0]);
    }
}
