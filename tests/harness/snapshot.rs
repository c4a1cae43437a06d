//! The snapshot JSON as an outsider reads it: types of the tests' own, made from the contract.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::{consistent, schema};

/// A whole recording.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Snapshot {
    pub schema_version: u32,
    pub generator: String,
    pub command: Vec<String>,
    pub complete: bool,
    pub incomplete_reason: Option<String>,
    pub incomplete_since: Option<u64>,
    #[serde(default)]
    pub unrecorded: Vec<Unrecorded>,
    pub processes: Vec<Process>,
}

/// A program that could not be recorded.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Unrecorded {
    pub pid: u32,
    pub parent_pid: u32,
    pub exe: String,
    pub args: Vec<String>,
    pub start_time: u64,
    pub reason: String,
}

/// One process image.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Process {
    pub pid: u32,
    pub parent_pid: u32,
    pub exe: String,
    pub args: Vec<String>,
    pub start_time: u64,
    pub end_time: u64,
    pub end: String,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub complete: bool,
    pub incomplete_reason: Option<String>,
    pub incomplete_since: Option<u64>,
    pub stats: Stats,
    pub allocations_included: String,
    pub allocations: Vec<Allocation>,
    pub frames: Vec<Frame>,
    pub stacks: Vec<Stack>,
    pub threads: Vec<Thread>,
    pub timeline: Vec<Point>,
    pub lifetime_histogram: Vec<Bucket>,
    pub modules: Vec<Module>,
    pub static_allocators: Vec<StaticAllocator>,
    #[serde(default)]
    pub variables: Vec<Variable>,
}

/// What the variables of one name owned.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct Variable {
    pub var_name: String,
    pub type_name: Option<String>,
    pub scope_name: Option<String>,
    pub allocations: u64,
    pub allocated: u64,
    pub active_allocations: u64,
    pub active_memory: u64,
    pub peak_memory: u64,
    pub lifetime_ns: Quantiles,
    pub short_lived: u64,
}

/// An allocator that `malloc` does not lead to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct StaticAllocator {
    pub name: String,
    pub module: String,
}

/// Totals of a process image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Stats {
    pub total_allocations: u64,
    pub total_allocated: u64,
    pub total_deallocations: u64,
    pub total_deallocated: u64,
    pub active_allocations: u64,
    pub active_memory: u64,
    pub peak_memory: u64,
    pub peak_time: u64,
    pub peak_allocations: u64,
    pub reallocations: u64,
    pub failed_allocations: u64,
    pub unknown_frees: u64,
    pub inherited_frees: u64,
    pub lost_events: u64,
    pub threads: u64,
}

/// One block's life.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Allocation {
    pub ptr: u64,
    pub size: u64,
    pub timestamp_alloc: u64,
    pub timestamp_dealloc: Option<u64>,
    pub var_name: Option<String>,
    pub type_name: Option<String>,
    pub scope_name: Option<String>,
    pub stack_trace: Option<Vec<Frame>>,
    pub is_leaked: bool,
    pub lifetime_ms: u64,
    pub lifetime_ns: u64,
    pub freed_by: String,
    pub thread_id: u64,
    pub dealloc_thread_id: Option<u64>,
    pub stack_id: Option<u64>,
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Frame {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub column: Option<u32>,
    pub module: Option<String>,
    pub address: u64,
    pub inlined: bool,
}

/// One distinct stack.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Stack {
    pub id: u64,
    pub frames: Vec<usize>,
    pub truncated: bool,
    pub guessed: bool,
    pub stats: SiteStats,
}

/// Sums over one stack's allocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct SiteStats {
    pub allocations: u64,
    pub allocated: u64,
    pub deallocations: u64,
    pub deallocated: u64,
    pub active_allocations: u64,
    pub active_memory: u64,
    pub peak_memory: u64,
    pub memory_at_peak: u64,
    pub short_lived: u64,
    pub lifetime_ns: Quantiles,
}

/// Lifetimes of one stack's allocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Quantiles {
    pub min: u64,
    pub max: u64,
    pub mean: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
}

/// One thread.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Thread {
    pub id: u64,
    pub name: Option<String>,
    pub start_time: u64,
    pub end_time: Option<u64>,
}

/// Memory at one time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Point {
    pub time: u64,
    pub active_memory: u64,
    pub active_allocations: u64,
    pub rss: Option<u64>,
}

/// Blocks that lived up to a time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Bucket {
    pub upto_ns: Option<u64>,
    pub allocations: u64,
    pub bytes: u64,
}

/// One mapped file.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the contract describes the fields")]
pub struct Module {
    pub path: String,
    pub build_id: Option<String>,
    pub start: u64,
    pub end: u64,
}

impl Snapshot {
    /// Reads a snapshot and checks it against the schema and for consistency.
    ///
    /// # Panics
    /// When it cannot be read or breaks a rule.
    #[track_caller]
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let value: Value =
            serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if let Err(why) = schema::snapshot().check(&value) {
            panic!("{} breaks the schema: {why}", path.display());
        }
        let snapshot = Self::deserialize(value).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let faults = consistent::faults(&snapshot);
        assert!(faults.is_empty(), "{} contradicts itself:\n{}", path.display(), faults.join("\n"));
        snapshot
    }

    /// Sums of all process images: (allocations, deallocations, bytes allocated).
    #[must_use]
    pub fn totals(&self) -> (u64, u64, u64) {
        self.processes.iter().fold((0, 0, 0), |(a, d, b), process| {
            let stats = &process.stats;
            (a + stats.total_allocations, d + stats.total_deallocations, b + stats.total_allocated)
        })
    }
}

impl Process {
    /// The allocations that asked for exactly this many bytes.
    #[must_use]
    pub fn sized(&self, size: u64) -> Vec<&Allocation> {
        self.allocations.iter().filter(|a| a.size == size).collect()
    }

    /// The one allocation of this size.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[track_caller]
    #[must_use]
    pub fn one_sized(&self, size: u64) -> &Allocation {
        let found = self.sized(size);
        assert_eq!(found.len(), 1, "allocations of {size} bytes: {found:#?}");
        found[0]
    }

    /// The stack of an allocation.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    #[must_use]
    pub fn stack(&self, allocation: &Allocation) -> &Stack {
        let id = allocation.stack_id.expect("a recorded allocation has a stack");
        self.stacks.iter().find(|stack| stack.id == id).expect("a stack of this id")
    }

    /// The frames of an allocation's stack, innermost first.
    #[track_caller]
    #[must_use]
    pub fn frames(&self, allocation: &Allocation) -> Vec<&Frame> {
        self.stack(allocation).frames.iter().map(|&index| &self.frames[index]).collect()
    }

    /// The names of an allocation's stack, innermost first; `?` where unknown. Parameters are left out.
    #[track_caller]
    #[must_use]
    pub fn names(&self, allocation: &Allocation) -> Vec<String> {
        self.frames(allocation).iter().map(|frame| frame.name()).collect()
    }

    /// Allocations by address and size, each list in order of time.
    #[must_use]
    pub fn by_block(&self) -> HashMap<(u64, u64), Vec<&Allocation>> {
        let mut map: HashMap<_, Vec<_>> = HashMap::new();
        for allocation in &self.allocations {
            map.entry((allocation.ptr, allocation.size)).or_default().push(allocation);
        }
        map
    }
}

impl Frame {
    /// The function without its parameters; `?` where unknown.
    #[must_use]
    pub fn name(&self) -> String {
        without_parameters(self.function.as_deref().unwrap_or("?")).to_owned()
    }
}

/// `a::b<int (*)(char)>::f(int) const` without the `(int) const` at its end.
fn without_parameters(full: &str) -> &str {
    let end = full.strip_suffix(" const").unwrap_or(full);
    if !end.ends_with(')') {
        return full;
    }
    let mut depth = 0;
    for (i, c) in end.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            // The call operator's own name has parentheses.
            return if full[..i].ends_with("operator") { full } else { &full[..i] };
        }
    }
    full
}

#[cfg(test)]
mod tests {
    use super::without_parameters;

    #[test]
    fn only_the_parameters_go() {
        for (full, name) in [
            ("main", "main"),
            ("f(int)", "f"),
            ("operator()", "operator()"),
            ("shop::Basket::fill(unsigned long) const", "shop::Basket::fill"),
            ("void g<int (*)(char)>(int (*)(char))", "void g<int (*)(char)>"),
            (
                "main::{lambda(unsigned long)#1}::operator()(unsigned long) const",
                "main::{lambda(unsigned long)#1}::operator()",
            ),
            (
                "<stacks::shop::Basket as stacks::shop::Fill>::fill",
                "<stacks::shop::Basket as stacks::shop::Fill>::fill",
            ),
        ] {
            assert_eq!(without_parameters(full), name);
        }
    }
}
