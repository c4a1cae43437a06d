//! Sorted runs of allocations in one temporary file, and their merge.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Allocation;
use crate::model::FreedBy;

/// Bytes of an allocation in the file.
const BYTES: usize = 49;
/// Allocations that are read at once from a run.
const CHUNK: usize = 256;

/// The temporary file with its runs.
#[derive(Debug)]
pub struct Runs {
    file: File,
    /// Of each run, the number of the first allocation in the file and of the first behind it.
    runs: Vec<(u64, u64)>,
}

impl Runs {
    /// Makes a file without a name in `dir`.
    pub fn create(dir: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(dir)?, runs: Vec::new() })
    }

    /// Number of allocations in all runs.
    pub fn len(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.1)
    }

    /// Appends a run, which is sorted.
    pub fn write(&mut self, run: &[Allocation]) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 18, &self.file);
        for allocation in run {
            out.write_all(&to_bytes(allocation))?;
        }
        out.flush()?;
        let start = self.len();
        self.runs.push((start, start + run.len() as u64));
        Ok(())
    }

    /// All runs as one sorted run.
    pub fn merged(&self) -> Merged<'_> {
        let runs = self.runs.iter().map(|&(next, end)| Run { next, end, held: Vec::new() }).collect();
        Merged { file: &self.file, runs, heads: BinaryHeap::new(), state: State::New }
    }
}

fn to_bytes(allocation: &Allocation) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let Allocation { start, address, size, end, site, thread, end_thread, name, freed_by } = *allocation;
    for (at, number) in [start, address, size, end].into_iter().enumerate() {
        bytes[at * 8..at * 8 + 8].copy_from_slice(&number.to_le_bytes());
    }
    for (at, number) in [site, thread, end_thread, name].into_iter().enumerate() {
        bytes[32 + at * 4..36 + at * 4].copy_from_slice(&number.to_le_bytes());
    }
    bytes[48] = match freed_by {
        FreedBy::Free => 0,
        FreedBy::Realloc => 1,
        FreedBy::Exit => 2,
        FreedBy::Live => 3,
    };
    bytes
}

fn from_bytes(bytes: &[u8; BYTES]) -> Allocation {
    let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at * 8 + i]));
    let short = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[32 + at * 4 + i]));
    Allocation {
        start: long(0),
        address: long(1),
        size: long(2),
        end: long(3),
        site: short(0),
        thread: short(1),
        end_thread: short(2),
        name: short(3),
        freed_by: match bytes[48] {
            1 => FreedBy::Realloc,
            2 => FreedBy::Exit,
            3 => FreedBy::Live,
            _ => FreedBy::Free,
        },
    }
}

/// A run that is being read.
#[derive(Debug)]
struct Run {
    /// Number of the first allocation in the file that was not read yet.
    next: u64,
    end: u64,
    /// What was read, the next one last.
    held: Vec<Allocation>,
}

impl Run {
    fn next(&mut self, file: &File) -> io::Result<Option<Allocation>> {
        if self.held.is_empty() {
            let count = (self.end - self.next).min(CHUNK as u64) as usize;
            let mut bytes = vec![0; count * BYTES];
            file.read_exact_at(&mut bytes, self.next * BYTES as u64)?;
            let (allocations, _) = bytes.as_chunks::<BYTES>();
            self.held.extend(allocations.iter().rev().map(from_bytes));
            self.next += count as u64;
        }
        Ok(self.held.pop())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Open,
    /// The end was reached, or an error.
    Done,
}

/// The order of the list; then the run.
type Key = (super::Key, usize);

/// Reads all runs as one.
#[derive(Debug)]
pub struct Merged<'a> {
    file: &'a File,
    runs: Vec<Run>,
    /// The next allocation of each run that has one.
    heads: BinaryHeap<Reverse<Head>>,
    state: State,
}

/// An allocation that is next in its run.
#[derive(Debug)]
struct Head {
    key: Key,
    allocation: Allocation,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl Head {
    fn new(run: usize, allocation: Allocation) -> Self {
        Self { key: (allocation.key(), run), allocation }
    }
}

impl Merged<'_> {
    fn open(&mut self) -> io::Result<()> {
        self.state = State::Open;
        for (at, run) in self.runs.iter_mut().enumerate() {
            let head = run.next(self.file)?;
            self.heads.extend(head.map(|allocation| Reverse(Head::new(at, allocation))));
        }
        Ok(())
    }

    fn step(&mut self) -> io::Result<Option<Allocation>> {
        if self.state == State::New {
            self.open()?;
        }
        let Some(mut top) = self.heads.peek_mut() else { return Ok(None) };
        let (allocation, run) = (top.0.allocation, top.0.key.1);
        match self.runs[run].next(self.file)? {
            Some(next) => top.0 = Head::new(run, next),
            None => drop(PeekMut::pop(top)),
        }
        Ok(Some(allocation))
    }
}

impl Iterator for Merged<'_> {
    type Item = io::Result<Allocation>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        let item = self.step().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.state = State::Done;
        }
        item
    }
}
