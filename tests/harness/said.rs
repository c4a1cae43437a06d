//! What a test program says that it did: JSON lines on its standard output (see `programs/c/say.h`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::snapshot::{Process, Stats};

/// All that a program said.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The blocks that it made, in order.
    pub blocks: Vec<Block>,
    /// What its calls add to the totals.
    pub tally: Tally,
    /// Named results that must be the same in a native run.
    pub answers: BTreeMap<String, Value>,
    /// Lines of any other kind.
    pub others: Vec<Value>,
}

/// One block that the program made.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct Block {
    pub ptr: u64,
    pub size: u64,
    pub end: String,
}

/// What the program's calls add to a process's totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct Tally {
    pub total_allocations: u64,
    pub total_allocated: u64,
    pub total_deallocations: u64,
    pub total_deallocated: u64,
    pub reallocations: u64,
    pub failed_allocations: u64,
    pub unknown_frees: u64,
}

impl Tally {
    /// What one run has more than another.
    ///
    /// # Panics
    /// When it has less of something.
    #[track_caller]
    #[must_use]
    pub fn difference(more: &Stats, less: &Stats) -> Self {
        let sub =
            |a: u64, b: u64| a.checked_sub(b).unwrap_or_else(|| panic!("less than the baseline: {a} < {b}"));
        Self {
            total_allocations: sub(more.total_allocations, less.total_allocations),
            total_allocated: sub(more.total_allocated, less.total_allocated),
            total_deallocations: sub(more.total_deallocations, less.total_deallocations),
            total_deallocated: sub(more.total_deallocated, less.total_deallocated),
            reallocations: sub(more.reallocations, less.reallocations),
            failed_allocations: sub(more.failed_allocations, less.failed_allocations),
            unknown_frees: sub(more.unknown_frees, less.unknown_frees),
        }
    }
}

impl Said {
    /// Reads the lines.
    ///
    /// # Panics
    /// When a line is no JSON, or the program reports a failure of its own.
    #[track_caller]
    #[must_use]
    pub fn parse(stdout: &[u8]) -> Self {
        let mut said = Self::default();
        for line in String::from_utf8_lossy(stdout).lines() {
            let value: Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON: {line:?}: {e}"));
            said.line(value);
        }
        said
    }

    #[track_caller]
    fn line(&mut self, value: Value) {
        if let Some(failed) = value.get("failed") {
            panic!("the program found a fault: {failed}");
        } else if let Some(block) = value.get("block") {
            self.blocks.push(Block::deserialize(block).expect("a block"));
        } else if let Some(tally) = value.get("tally") {
            self.tally = Tally::deserialize(tally).expect("a tally");
        } else if let Some(Value::Object(answers)) = value.get("answer") {
            self.answers.extend(answers.iter().map(|(name, answer)| (name.clone(), answer.clone())));
        } else {
            self.others.push(value);
        }
    }

    /// Each block that the program made is in the snapshot with its end, as often as the program made it.
    ///
    /// # Panics
    /// When one is missing, is there too often or has another end.
    #[track_caller]
    pub fn assert_blocks(&self, process: &Process) {
        let found = process.by_block();
        for block in &self.blocks {
            let same = |b: &&Block| b.ptr == block.ptr && b.size == block.size && b.end == block.end;
            let made = self.blocks.iter().filter(same).count();
            let lives = found.get(&(block.ptr, block.size)).map_or(&[][..], Vec::as_slice);
            let fitting = lives.iter().filter(|a| a.freed_by == block.end).count();
            assert_eq!(fitting, made, "{block:?}: recorded and made; of its address and size: {lives:#?}");
        }
    }
}
