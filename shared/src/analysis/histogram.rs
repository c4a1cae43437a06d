//! Quantiles of lifetimes: for each site a histogram with 16 buckets for each doubling.
//!
//! A bucket is at most 1/16 wide of its lower bound, so its middle is within 3.2 % of any value in it.
//!
//! Many sites see few values: of each, the first dozen are kept as bucket numbers. The others have a
//! row of 16 counters for each doubling that occurs. All sites' rows lie in one hash table by site and row: where
//! a value counts follows from site and value alone, so no look-up waits for memory that another one must
//! give first.

use std::ops::RangeInclusive;

use super::hash::{Key, Map};

/// Buckets for each doubling, as a power of two.
const SUB_BITS: u32 = 4;
const SUBS: usize = 1 << SUB_BITS;
/// Rows: one for 0 to 15, then one for each doubling up to 2^64.
#[cfg(test)]
const ROWS: usize = 64 - SUB_BITS as usize + 1;
/// Values that are kept before there are counters.
const FEW: usize = 12;
/// Rows from which on a look-up may wait for memory.
const FAR: usize = 1 << 9;
/// No bucket has this number.
const EMPTY: u16 = u16::MAX;

/// The exponent and the first bits behind it, as a floating-point number has them: (exponent, bits).
///
/// `ilog2` would do, but compiles to `bsr`, which waits for the register that it writes. In a loop over memory that
/// is the last thing read, so that no two iterations overlap; that made the loop four times slower.
#[inline]
const fn leading(value: u64, bits: u32) -> (u32, u64) {
    // Signed, because that is one instruction; values above 2^53 are rounded.
    let value = if value > i64::MAX as u64 { i64::MAX } else { value as i64 };
    let float = (value as f64).to_bits();
    ((float >> 52) as u32 - 1023, (float >> (52 - bits)) & ((1 << bits) - 1))
}

/// The power of two below (or at) a value of 1 or more.
#[inline]
pub const fn octave(value: u64) -> u32 {
    leading(value, 0).0
}

/// Number of the bucket that holds `value`.
#[inline]
const fn bucket(value: u64) -> u16 {
    if value < SUBS as u64 {
        return value as u16;
    }
    let (octave, sub) = leading(value, SUB_BITS);
    ((octave - SUB_BITS + 1) as usize * SUBS + sub as usize) as u16
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

/// The first values of one site.
#[derive(Clone, Copy, Debug)]
pub struct Few([u16; FEW]);

impl Default for Few {
    fn default() -> Self {
        Self([EMPTY; FEW])
    }
}

impl Few {
    const fn is_full(&self) -> bool {
        self.0[FEW - 1] != EMPTY
    }
}

/// A row of one site's counters. They are narrow, so that many sites' rows fit into the nearer caches.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// Site and row, plus one; 0: there is none.
    key: u32,
    counts: [u8; SUBS],
}

/// The rows of all sites with more values.
#[derive(Debug)]
pub struct Histograms {
    /// A power of two of them.
    rows: Vec<Row>,
    used: usize,
    /// How often a counter, named by key and bucket, went round.
    carried: Map<(u32, u32), u64>,
    hash: Key,
}

impl Default for Histograms {
    fn default() -> Self {
        Self { rows: vec![Row::default(); 64], used: 0, carried: Map::default(), hash: Key::default() }
    }
}

/// Sites are few enough for that, see [`Histograms::add`].
const fn key(site: u32, row: usize) -> u32 {
    (site << 8 | row as u32) + 1
}

impl Histograms {
    /// Counts a value of a site, whose first values are in `few`. Its number is less than 2^24.
    #[inline]
    pub fn add(&mut self, site: u32, few: &mut Few, value: u64) {
        let bucket = bucket(value);
        if few.is_full() {
            self.count(site, bucket);
        } else {
            self.add_to_few(site, few, bucket);
        }
    }

    /// Whether the rows may not be in the nearest cache.
    #[must_use]
    pub const fn is_far(&self) -> bool {
        self.rows.len() > FAR
    }

    /// Reads what counting a value will need.
    #[inline]
    #[must_use]
    pub fn touch(&self, site: u32, value: u64) -> u32 {
        let home = self.hash.hash(key(site, bucket(value) as usize / SUBS).into()) as usize;
        self.rows[home & (self.rows.len() - 1)].key
    }

    /// Keeps the value, and turns to counters when that was the last one to keep.
    fn add_to_few(&mut self, site: u32, few: &mut Few, bucket: u16) {
        if let Some(free) = few.0.iter_mut().find(|kept| **kept == EMPTY) {
            *free = bucket;
        }
        if few.is_full() {
            few.0.iter().for_each(|&bucket| self.count(site, bucket));
        }
    }

    #[inline]
    fn count(&mut self, site: u32, bucket: u16) {
        let (row, sub) = (bucket as usize / SUBS, bucket as usize % SUBS);
        let key = key(site, row);
        let at = self.find(key);
        let row = &mut self.rows[at];
        if row.key != key {
            return self.insert(key, sub);
        }
        row.counts[sub] = row.counts[sub].wrapping_add(1);
        if row.counts[sub] == 0 {
            self.carry(key, bucket);
        }
    }

    /// A counter went round.
    #[cold]
    fn carry(&mut self, key: u32, bucket: u16) {
        *self.carried.entry((key, bucket.into())).or_default() += 1;
    }

    /// The slot of a key, or the one where it would go.
    #[inline]
    fn find(&self, key: u32) -> usize {
        let mask = self.rows.len() - 1;
        let mut at = self.hash.hash(key.into()) as usize & mask;
        while self.rows[at & mask].key != key && self.rows[at & mask].key != 0 {
            at = (at + 1) & mask;
        }
        at & mask
    }

    #[cold]
    fn insert(&mut self, key: u32, sub: usize) {
        if self.used * 8 >= self.rows.len() * 5 {
            self.grow();
        }
        let at = self.find(key);
        self.rows[at].key = key;
        self.rows[at].counts[sub] = 1;
        self.used += 1;
    }

    fn grow(&mut self) {
        let twice = vec![Row::default(); self.rows.len() * 2];
        for row in std::mem::replace(&mut self.rows, twice).into_iter().filter(|row| row.key != 0) {
            let at = self.find(row.key);
            self.rows[at] = row;
        }
    }

    /// The values of a site below which (or at which) these parts of all lie, in thousandths. All are in `range`.
    #[must_use]
    pub fn quantiles<const N: usize>(
        &self,
        site: u32,
        few: &Few,
        range: RangeInclusive<u64>,
        thousandths: [u64; N],
    ) -> [u64; N] {
        let buckets = self.buckets(site, few, range);
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

    /// A site's buckets that are not empty with their counts, rising.
    fn buckets(&self, site: u32, few: &Few, range: RangeInclusive<u64>) -> Vec<(u16, u64)> {
        if !few.is_full() {
            let kept = few.0.iter().filter(|&&bucket| bucket != EMPTY);
            let mut buckets: Vec<_> = kept.map(|&bucket| (bucket, 1)).collect();
            buckets.sort_unstable();
            return buckets;
        }
        let mut buckets = Vec::new();
        let [first, last] = [range.start(), range.end()].map(|&value| bucket(value) as usize / SUBS);
        for row in first..=last {
            let key = key(site, row);
            let found = &self.rows[self.find(key)];
            if found.key == key {
                let counts = found.counts.iter().enumerate();
                let counts = counts.map(|(sub, &count)| ((row * SUBS + sub) as u16, u64::from(count)));
                buckets.extend(counts.map(|(bucket, count)| (bucket, count + self.carried(key, bucket))));
            }
        }
        buckets.retain(|bucket| bucket.1 != 0);
        buckets
    }

    /// What a bucket has counted before its counter went round last.
    fn carried(&self, key: u32, bucket: u16) -> u64 {
        self.carried.get(&(key, bucket.into())).map_or(0, |times| times << u8::BITS)
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
        assert!((bucket(u64::MAX) as usize) < ROWS * SUBS);
        for value in (1..5_000).chain((0..53).map(|bit| (1 << bit) + 1)) {
            assert_eq!(octave(value), value.ilog2());
        }
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
            let (mut all, mut few, mut others) = (Histograms::default(), Few::default(), Few::default());
            for &value in &values {
                all.add(7, &mut few, value);
                all.add(8, &mut others, value / 2);
            }
            values.sort_unstable();
            let parts = [1, 500, 900, 990, 1000];
            for (part, found) in
                parts.into_iter().zip(all.quantiles(7, &few, values[0]..=values[count as usize - 1], parts))
            {
                let rank = (count * part).div_ceil(1000).max(1);
                let exact = values[rank as usize - 1];
                assert!(found.abs_diff(exact) * 20 <= exact, "{part} of {count}: {found}, not {exact}");
            }
        }
        assert_eq!(Histograms::default().quantiles(1, &Few::default(), 0..=9, [500]), [0]);
    }

    #[test]
    fn many_sites_keep_their_rows_apart() {
        let (mut all, mut few) = (Histograms::default(), vec![Few::default(); 3_000]);
        for round in 0..20 {
            for site in 0..3_000u32 {
                all.add(site, &mut few[site as usize], u64::from(site) << (round % 3));
            }
        }
        for site in [0, 1, 77, 2_999] {
            let [low, high] = all.quantiles(site, &few[site as usize], 0..=3_000 << 2, [100, 900]);
            let site = u64::from(site);
            assert!(low.abs_diff(site) * 20 <= site && high.abs_diff(site * 4) * 20 <= site * 4);
        }
    }

    #[test]
    fn counters_that_go_round_are_carried() {
        let (mut all, mut few) = (Histograms::default(), Few::default());
        let mut counts = std::collections::BTreeMap::new();
        for number in 0..40_000u64 {
            let value = number * number % 11;
            *counts.entry(value as u16).or_insert(0) += 1;
            all.add(1, &mut few, value);
            all.add(2, &mut Few([0; FEW]), value);
        }
        assert_eq!(all.buckets(1, &few, 0..=10), counts.into_iter().collect::<Vec<_>>());
    }
}
