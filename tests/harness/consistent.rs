//! What must hold in every snapshot, whatever was recorded.

use std::collections::HashMap;

use crate::snapshot::{Allocation, Process, Snapshot};

/// Two threads' clocks may differ by this much where an address is handed on.
const SKEW_NS: u64 = 1_000;

/// Most contradictions that are told of each process.
const MOST: usize = 12;

/// The contradictions of a snapshot, as sentences.
#[must_use]
pub fn faults(snapshot: &Snapshot) -> Vec<String> {
    let mut faults = Vec::new();
    if snapshot.complete != snapshot.processes.iter().all(|p| p.complete) {
        faults.push(format!("`complete` is {}, its processes say otherwise", snapshot.complete));
    }
    if snapshot.complete == snapshot.incomplete_reason.is_some() {
        faults.push("`complete` and `incomplete_reason` exclude each other".to_owned());
    }
    for process in &snapshot.processes {
        let mut found = Vec::new();
        Checker { process, faults: &mut found }.all();
        faults.extend(found.into_iter().take(MOST).map(|fault| format!("process {}: {fault}", process.pid)));
    }
    faults
}

struct Checker<'a> {
    process: &'a Process,
    faults: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn all(&mut self) {
        self.totals();
        self.stacks();
        self.listed();
        self.lifetimes();
        self.timeline();
        self.histogram();
        self.threads();
        self.variables();
    }

    fn equal(&mut self, what: &str, left: u64, right: u64) {
        self.hold(left == right, || format!("{what}: {left} is not {right}"));
    }

    fn hold(&mut self, holds: bool, why: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(why());
        }
    }

    fn totals(&mut self) {
        let s = self.process.stats;
        self.equal("live blocks", s.active_allocations + s.total_deallocations, s.total_allocations);
        self.equal("live bytes", s.active_memory + s.total_deallocated, s.total_allocated);
        self.hold(s.peak_memory >= s.active_memory, || {
            "the peak lies below what is live at the end".to_owned()
        });
        self.hold(s.reallocations <= s.total_allocations, || {
            "more reallocations than allocations".to_owned()
        });
        let (start, end) = (self.process.start_time, self.process.end_time);
        self.hold(start <= end, || format!("starts at {start}, ends at {end}"));
        if s.total_allocations > 0 {
            self.hold((start..=end).contains(&s.peak_time), || {
                format!("a peak at {} outside the run", s.peak_time)
            });
        }
        let complete = self.process.complete;
        self.hold(complete != self.process.incomplete_reason.is_some(), || {
            "complete, with a reason".to_owned()
        });
        self.hold(!complete || s.lost_events == 0, || format!("complete, but lost {}", s.lost_events));
    }

    /// The variables' sums are those of the listed allocations that have a name.
    fn variables(&mut self) {
        let mut left: HashMap<_, _> = self
            .process
            .variables
            .iter()
            .map(|v| ((Some(v.var_name.as_str()), v.type_name.as_deref(), v.scope_name.as_deref()), v))
            .collect();
        self.equal("distinct variables", left.len() as u64, self.process.variables.len() as u64);
        if self.process.allocations_included != "all" {
            return;
        }
        let mut blocks: HashMap<_, Vec<&Allocation>> = HashMap::new();
        for a in self.process.allocations.iter().filter(|a| a.var_name.is_some()) {
            let name = (a.var_name.as_deref(), a.type_name.as_deref(), a.scope_name.as_deref());
            blocks.entry(name).or_default().push(a);
        }
        for (name, blocks) in blocks {
            let Some(variable) = left.remove(&name) else {
                self.hold(false, || format!("{name:?} is no variable"));
                continue;
            };
            let sum = |blocks: &[&Allocation]| blocks.iter().map(|block| block.size).sum::<u64>();
            let live: Vec<&Allocation> =
                blocks.iter().copied().filter(|b| b.is_leaked || b.timestamp_dealloc.is_none()).collect();
            let lives = || blocks.iter().map(|block| block.lifetime_ns);
            let largest = blocks.iter().map(|block| block.size).max().unwrap_or(0);
            self.equal("blocks of a variable", variable.allocations, blocks.len() as u64);
            self.equal("bytes of a variable", variable.allocated, sum(&blocks));
            self.equal("live blocks of a variable", variable.active_allocations, live.len() as u64);
            self.equal("live bytes of a variable", variable.active_memory, sum(&live));
            self.equal("shortest life", variable.lifetime_ns.min, lives().min().unwrap_or(0));
            self.equal("longest life", variable.lifetime_ns.max, lives().max().unwrap_or(0));
            let short = lives().filter(|&lifetime| lifetime < 1_000_000).count();
            self.equal("short lives", variable.short_lived, short as u64);
            let peak = variable.peak_memory;
            let possible = largest.max(variable.active_memory)..=variable.allocated;
            self.hold(possible.contains(&peak), || format!("{name:?}: a peak of {peak}"));
        }
        self.hold(left.is_empty(), || format!("variables without a block: {:?}", left.keys()));
    }

    /// The sites add up to the totals, at the end and at the peak.
    fn stacks(&mut self) {
        let sum = |value: fn(&crate::snapshot::SiteStats) -> u64| -> u64 {
            self.process.stacks.iter().map(|stack| value(&stack.stats)).sum()
        };
        let s = self.process.stats;
        let pairs = [
            ("allocations of the stacks", sum(|s| s.allocations), s.total_allocations),
            ("bytes of the stacks", sum(|s| s.allocated), s.total_allocated),
            ("deallocations of the stacks", sum(|s| s.deallocations), s.total_deallocations),
            ("freed bytes of the stacks", sum(|s| s.deallocated), s.total_deallocated),
            ("live blocks of the stacks", sum(|s| s.active_allocations), s.active_allocations),
            ("live bytes of the stacks", sum(|s| s.active_memory), s.active_memory),
            ("bytes at the peak of the stacks", sum(|s| s.memory_at_peak), s.peak_memory),
        ];
        for (what, left, right) in pairs {
            self.equal(what, left, right);
        }
        let mut seen = HashMap::new();
        for stack in &self.process.stacks {
            let twice = seen.insert(stack.id, ()).is_some();
            self.hold(!twice, || format!("stack {} twice", stack.id));
            let frames = self.process.frames.len();
            self.hold(stack.frames.iter().all(|&i| i < frames), || {
                format!("stack {}: no such frame", stack.id)
            });
            let l = stack.stats.lifetime_ns;
            let rising = [l.min, l.p50, l.p90, l.p99].windows(2).all(|w| w[0] <= w[1] + w[1] / 20);
            self.hold(rising && l.p99 <= l.max + l.max / 20, || {
                format!("stack {}: quantiles {l:?}", stack.id)
            });
            self.hold(l.min <= l.mean && l.mean <= l.max, || format!("stack {}: mean {l:?}", stack.id));
            let stats = stack.stats;
            self.hold(stats.peak_memory >= stats.memory_at_peak.max(stats.active_memory), || {
                format!("stack {}: its peak {stats:?}", stack.id)
            });
        }
    }

    /// The listed allocations agree with the totals.
    fn listed(&mut self) {
        let s = self.process.stats;
        let all = &self.process.allocations;
        let count = |pick: fn(&Allocation) -> bool| all.iter().filter(|a| pick(a)).count() as u64;
        let bytes =
            |pick: fn(&Allocation) -> bool| all.iter().filter(|a| pick(a)).map(|a| a.size).sum::<u64>();
        let pairs = match self.process.allocations_included.as_str() {
            "all" => vec![
                ("listed blocks", count(|_| true), s.total_allocations),
                ("listed bytes", bytes(|_| true), s.total_allocated),
                ("listed live blocks", count(Allocation::is_live), s.active_allocations),
                ("listed live bytes", bytes(Allocation::is_live), s.active_memory),
                ("listed reallocations", count(|a| a.freed_by == "realloc"), s.reallocations),
            ],
            "live" => vec![
                ("listed blocks", count(|_| true), s.active_allocations),
                ("listed bytes", bytes(|_| true), s.active_memory),
            ],
            _ => vec![("listed blocks", count(|_| true), 0)],
        };
        for (what, left, right) in pairs {
            self.equal(what, left, right);
        }
        let sorted = all.windows(2).all(|w| w[0].timestamp_alloc <= w[1].timestamp_alloc);
        self.hold(sorted, || "the allocations are not in order of time".to_owned());
        let ids: HashMap<u64, ()> = self.process.stacks.iter().map(|stack| (stack.id, ())).collect();
        for a in all {
            self.hold(a.stack_id.is_none_or(|id| ids.contains_key(&id)), || format!("no such stack: {a:?}"));
        }
    }

    /// No address belongs to two blocks at once, and the fields of a life agree.
    fn lifetimes(&mut self) {
        let (start, end) = (self.process.start_time, self.process.end_time);
        let mut free_since: HashMap<u64, u64> = HashMap::new();
        for a in &self.process.allocations {
            let until = a.timestamp_dealloc.unwrap_or(a.timestamp_alloc + a.lifetime_ns);
            self.hold(until == a.timestamp_alloc + a.lifetime_ns, || format!("a wrong lifetime: {a:?}"));
            self.hold(a.lifetime_ms == a.lifetime_ns / 1_000_000, || format!("wrong milliseconds: {a:?}"));
            self.hold(start <= a.timestamp_alloc && until <= end, || {
                format!("outside the run {start}..{end}: {a:?}")
            });
            // Where events are missing, an address that is given out again tells of an end that nobody saw.
            let unseen = !self.process.complete && !a.is_live();
            self.hold(unseen || a.dealloc_thread_id.is_none() == a.is_live(), || {
                format!("a wrong freeing thread: {a:?}")
            });
            let before = free_since.insert(a.ptr, until).unwrap_or(0);
            self.hold(before <= a.timestamp_alloc + SKEW_NS, || {
                format!("a block inside of a live one: {a:?}")
            });
        }
    }

    fn timeline(&mut self) {
        let points = &self.process.timeline;
        self.hold(points.windows(2).all(|w| w[0].time <= w[1].time), || {
            "the timeline is not in order".to_owned()
        });
        let peak = self.process.stats.peak_memory;
        let highest = points.iter().map(|p| p.active_memory).max().unwrap_or(0);
        self.equal("the timeline's peak", highest, peak);
    }

    fn histogram(&mut self) {
        let buckets = &self.process.lifetime_histogram;
        self.equal(
            "blocks of the histogram",
            buckets.iter().map(|b| b.allocations).sum(),
            self.process.stats.total_allocations,
        );
        self.equal(
            "bytes of the histogram",
            buckets.iter().map(|b| b.bytes).sum(),
            self.process.stats.total_allocated,
        );
        let bounds: Vec<u64> = buckets.iter().map(|b| b.upto_ns.unwrap_or(u64::MAX)).collect();
        self.hold(bounds.windows(2).all(|w| w[0] < w[1]), || format!("the histogram's bounds {bounds:?}"));
        if self.process.allocations_included == "all" {
            self.histogram_by_hand(&bounds);
        }
    }

    fn histogram_by_hand(&mut self, bounds: &[u64]) {
        let mut counts = vec![0_u64; bounds.len()];
        for a in &self.process.allocations {
            if let Some(i) = bounds.iter().position(|&upto| a.lifetime_ns < upto) {
                counts[i] += 1;
            }
        }
        let said: Vec<u64> = self.process.lifetime_histogram.iter().map(|b| b.allocations).collect();
        self.hold(said == counts, || format!("the histogram says {said:?}, the list {counts:?}"));
    }

    fn threads(&mut self) {
        let threads = &self.process.threads;
        self.equal("threads", threads.len() as u64, self.process.stats.threads);
        let ids: HashMap<u64, ()> = threads.iter().map(|t| (t.id, ())).collect();
        self.equal("distinct threads", ids.len() as u64, threads.len() as u64);
        for a in &self.process.allocations {
            let known =
                ids.contains_key(&a.thread_id) && a.dealloc_thread_id.is_none_or(|id| ids.contains_key(&id));
            self.hold(known, || format!("an unknown thread: {a:?}"));
        }
    }
}

impl Allocation {
    /// Was live when the process ended, or still is.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.freed_by.as_str(), "exit" | "live")
    }
}
