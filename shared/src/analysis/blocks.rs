//! The list of single allocations, in order of their starts.
//!
//! Lives end in another order than they begin. Up to 100,000 are sorted in memory; above that, sorted
//! runs go to a temporary file, which has no name any more, and are merged when the list is read. So memory
//! does not grow with the list.

mod runs;

use std::io;
use std::path::{Path, PathBuf};

use super::names::{Name, Names};
use crate::model::{FreedBy, Included};
use runs::{Merged, Runs};

/// The default lists everything up to this many, above it what is live.
pub const DEFAULT_MOST: usize = 100_000;
/// Allocations that are sorted in memory; more make a run.
const RUN: usize = 1 << 18;

/// Which allocations are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// All up to [`DEFAULT_MOST`], live ones above that.
    #[default]
    Default,
    /// All.
    All,
    /// Those that are live at the end.
    Live,
    /// None.
    None,
}

/// One allocation's life. Times are ns since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// When it was allocated.
    pub start: u64,
    /// Its address.
    pub address: u64,
    /// Bytes asked for.
    pub size: u64,
    /// When it ended; of a block that is live, the end of the recording.
    pub end: u64,
    /// Index of its site.
    pub site: u32,
    /// Number of the thread that allocated it.
    pub thread: u32,
    /// Number of the thread that freed it; 0 where none did.
    pub end_thread: u32,
    /// Id of its name; 0 for none. See [`Allocations::name`].
    pub name: u32,
    /// What ended it.
    pub freed_by: FreedBy,
}

/// Start, address, thread, end, size, site.
type Key = (u64, u64, u32, u64, u64, u32);

impl Allocation {
    /// The order of the list. The last three only see to it that it is always the same.
    const fn key(&self) -> Key {
        (self.start, self.address, self.thread, self.end, self.size, self.site)
    }

    /// Whether nothing but the end of the process, if that, has ended it.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self.freed_by, FreedBy::Exit | FreedBy::Live)
    }
}

/// Collects allocations in any order.
#[derive(Debug)]
pub struct Collector {
    wanted: Wanted,
    held: Vec<Allocation>,
    runs: Option<Runs>,
    dir: PathBuf,
    /// A run could not be written.
    error: Option<io::Error>,
    run: usize,
}

impl Collector {
    /// Puts temporary files into `dir`.
    #[must_use]
    pub fn new(wanted: Wanted, dir: &Path) -> Self {
        Self { wanted, held: Vec::new(), runs: None, dir: dir.to_owned(), error: None, run: RUN }
    }

    /// Whether an allocation that ended so is wanted, as it looks now.
    #[inline]
    #[must_use]
    pub const fn wants(&self, freed_by: FreedBy) -> bool {
        match self.wanted {
            Wanted::None => false,
            Wanted::Live => matches!(freed_by, FreedBy::Exit | FreedBy::Live),
            Wanted::Default | Wanted::All => true,
        }
    }

    /// Adds an allocation, if it is wanted.
    pub fn push(&mut self, allocation: &Allocation) {
        if !self.wants(allocation.freed_by) {
            return;
        }
        self.held.push(*allocation);
        if self.wanted == Wanted::Default && self.held.len() > DEFAULT_MOST {
            self.wanted = Wanted::Live;
            self.held.retain(Allocation::is_live);
            self.held.shrink_to(RUN / 8);
        } else if self.held.len() >= self.run && self.wanted == Wanted::All {
            self.flush();
        }
    }

    /// Writes what is held as a run.
    #[cold]
    fn flush(&mut self) {
        self.held.sort_unstable_by_key(Allocation::key);
        if let Err(error) = self.write_run() {
            self.error.get_or_insert(error);
        }
        self.held.clear();
    }

    fn write_run(&mut self) -> io::Result<()> {
        if self.error.is_some() {
            return Ok(());
        }
        let runs = match &mut self.runs {
            Some(runs) => runs,
            none => none.insert(Runs::create(&self.dir)?),
        };
        runs.write(&self.held)
    }

    /// The sorted list, with the names that the allocations have by their ids.
    ///
    /// # Errors
    ///
    /// Where a temporary file could not be written.
    pub fn finish(mut self, names: Names) -> io::Result<Allocations> {
        if self.runs.is_some() && !self.held.is_empty() {
            self.flush();
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        self.held.sort_unstable_by_key(Allocation::key);
        let included = match self.wanted {
            Wanted::Default | Wanted::All => Included::All,
            Wanted::Live => Included::Live,
            Wanted::None => Included::None,
        };
        Ok(Allocations { included, held: self.held, runs: self.runs, names })
    }
}

/// A sorted list of allocations, in memory or on disk; may be read any number of times.
#[derive(Debug)]
pub struct Allocations {
    included: Included,
    held: Vec<Allocation>,
    runs: Option<Runs>,
    names: Names,
}

impl Allocations {
    /// The name of an allocation, by [`Allocation::name`].
    #[must_use]
    pub fn name(&self, id: u32) -> Option<&Name> {
        self.names.get(id)
    }

    /// Which allocations these are.
    #[must_use]
    pub const fn included(&self) -> Included {
        self.included
    }

    /// Number of allocations.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.runs.as_ref().map_or(self.held.len() as u64, Runs::len)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The allocations in order of their starts, then addresses, then threads.
    pub fn iter(&self) -> Iter<'_> {
        match &self.runs {
            Some(runs) => Iter::Runs(Box::new(runs.merged())),
            None => Iter::Held(self.held.iter()),
        }
    }
}

impl<'a> IntoIterator for &'a Allocations {
    type Item = io::Result<Allocation>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Reads a list; an item is an error where the temporary file could not be read, and then the last.
#[derive(Debug)]
pub enum Iter<'a> {
    /// From memory.
    Held(std::slice::Iter<'a, Allocation>),
    /// From disk.
    Runs(Box<Merged<'a>>),
}

impl Iterator for Iter<'_> {
    type Item = io::Result<Allocation>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Held(held) => held.next().map(|allocation| Ok(*allocation)),
            Self::Runs(merged) => merged.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rng;
    use super::*;

    fn random(random: &mut Rng, count: usize) -> Vec<Allocation> {
        let kinds = [FreedBy::Free, FreedBy::Free, FreedBy::Realloc, FreedBy::Exit, FreedBy::Live];
        (0..count)
            .map(|_| Allocation {
                start: random.below(500),
                address: 1 + random.below(100),
                size: random.next(),
                end: random.next(),
                site: random.next() as u32,
                thread: random.next() as u32,
                name: random.next() as u32,
                end_thread: random.next() as u32,
                freed_by: kinds[random.below(5) as usize],
            })
            .collect()
    }

    fn collect(wanted: Wanted, run: usize, allocations: &[Allocation]) -> Allocations {
        let mut collector = Collector { run, ..Collector::new(wanted, &std::env::temp_dir()) };
        allocations.iter().for_each(|allocation| collector.push(allocation));
        collector.finish(Names::default()).unwrap()
    }

    #[test]
    fn runs_on_disk_give_the_same_as_memory() {
        let mut expected = random(&mut Rng::new(1), 5_000);
        let in_memory = collect(Wanted::All, RUN, &expected);
        let on_disk = collect(Wanted::All, 7, &expected);
        assert!(on_disk.runs.is_some() && in_memory.runs.is_none());
        expected.sort_unstable_by_key(Allocation::key);
        for list in [in_memory, on_disk] {
            assert_eq!((list.len(), list.included()), (5_000, Included::All));
            for _ in 0..2 {
                assert_eq!(list.iter().map(Result::unwrap).collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn lists_what_is_wanted() {
        let few = random(&mut Rng::new(2), DEFAULT_MOST);
        let live = few.iter().filter(|allocation| allocation.is_live()).count() as u64;
        assert!(collect(Wanted::None, RUN, &few).is_empty());
        assert_eq!(collect(Wanted::Live, RUN, &few).len(), live);
        let list = collect(Wanted::Default, RUN, &few);
        assert_eq!((list.len(), list.included()), (DEFAULT_MOST as u64, Included::All));
        let more = [few, random(&mut Rng::new(3), 1)].concat();
        let live = more.iter().filter(|allocation| allocation.is_live()).count() as u64;
        let list = collect(Wanted::Default, RUN, &more);
        assert_eq!((list.len(), list.included()), (live, Included::Live));
    }

    #[test]
    fn says_when_there_is_no_room() {
        let mut collector = Collector { run: 2, ..Collector::new(Wanted::All, Path::new("/nowhere/at all")) };
        random(&mut Rng::new(4), 10).iter().for_each(|allocation| collector.push(allocation));
        assert_eq!(collector.finish(Names::default()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
