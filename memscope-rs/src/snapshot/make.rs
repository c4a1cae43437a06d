//! From lives to the snapshot's sums.

use super::frames::{self, Key};
use super::{Ending, Life, View};
use crate::{clock, sys, threads};
use memscope_shared::analysis::lifetimes::LifetimeHistogram;
use memscope_shared::analysis::names::Name;
use memscope_shared::analysis::sites::Sites;
use memscope_shared::analysis::timeline::{Active, Timeline};
use memscope_shared::analysis::variables::Variables;
use memscope_shared::model::{
    AllocationInfo, Included, Process, SCHEMA_VERSION, Snapshot, Stack, StackFrame, Stats, Thread,
    TimelinePoint, Variable,
};
use std::collections::{BTreeSet, HashMap};

/// Up to this many lives a snapshot lists them all; above that, what is live.
const LISTED: usize = 100_000;

/// All sums over a view.
#[derive(Debug)]
pub struct Sums {
    /// Totals.
    pub stats: Stats,
    sites: Sites,
    /// Number of each stack in `sites`.
    numbers: HashMap<Key, u32>,
    /// Its reverse.
    keys: Vec<Key>,
    timeline: Vec<TimelinePoint>,
    lifetimes: LifetimeHistogram,
    threads: BTreeSet<u32>,
    variables: Vec<Variable>,
}

impl Sums {
    /// Goes through starts and ends in order of time.
    pub fn of(view: &View<'_>) -> Self {
        let mut walk = Walk::new(view);
        let mut ends: Vec<&Life<'_>> = view.lives.iter().filter(|life| !life.live).collect();
        ends.sort_unstable_by_key(|life| life.end);
        let mut ends = ends.into_iter().peekable();
        for life in &view.lives {
            while let Some(ended) = ends.next_if(|ended| ended.end < life.start) {
                walk.end(ended);
            }
            walk.start(life);
        }
        ends.for_each(|ended| walk.end(ended));
        walk.finish()
    }
}

/// The way through the events.
struct Walk {
    sums: Sums,
    active: Active,
    timeline: Timeline,
    peak: (u64, Active),
    variables: Variables,
    /// Numbers of variables by the ids of their names and scopes.
    variable_numbers: HashMap<(u32, u32), Option<u32>>,
}

impl Walk {
    fn new(view: &View<'_>) -> Self {
        let start = clock::epoch(clock::start());
        Self {
            sums: Sums {
                stats: Stats { peak_time: start, lost_events: view.lost, ..Stats::default() },
                sites: Sites::default(),
                numbers: HashMap::new(),
                keys: Vec::new(),
                timeline: Vec::new(),
                lifetimes: LifetimeHistogram::default(),
                threads: BTreeSet::new(),
                variables: Vec::new(),
            },
            active: Active::default(),
            timeline: Timeline::new(start, clock::epoch(view.end)),
            peak: (start, Active::default()),
            variables: Variables::default(),
            variable_numbers: HashMap::new(),
        }
    }

    fn site(&mut self, life: &Life<'_>) -> u32 {
        let sums = &mut self.sums;
        let key = frames::key(life.slot);
        *sums.numbers.entry(key).or_insert_with(|| {
            sums.keys.push(key);
            sums.sites.add()
        })
    }

    fn variable(&mut self, life: &Life<'_>) -> Option<u32> {
        let key = (life.slot.name(), life.slot.scope());
        let variables = &mut self.variables;
        *self.variable_numbers.entry(key).or_insert_with(|| {
            let [variable, type_name, scope] = life.texts().map(|text| text.map(str::to_owned));
            variables.number(&Name { variable, type_name, scope })
        })
    }

    fn start(&mut self, life: &Life<'_>) {
        let (time, size, site) = (clock::epoch(life.start), life.size as u64, self.site(life));
        self.timeline.advance(time, self.active);
        self.active.allocations += 1;
        self.active.memory += size;
        if let Some(number) = self.variable(life) {
            self.variables.takes(number, size);
            self.variables.lived(number, size, life.lifetime(), life.live);
        }
        let sums = &mut self.sums;
        sums.stats.total_allocations += 1;
        sums.stats.total_allocated += size;
        sums.sites.start(site, size);
        sums.sites.lived(site, life.lifetime());
        sums.lifetimes.add(life.lifetime(), size);
        sums.threads.insert(life.slot.thread());
        if self.active.memory > self.peak.1.memory {
            self.peak = (time, self.active);
            sums.sites.peak();
        }
    }

    fn end(&mut self, life: &Life<'_>) {
        let (size, site) = (life.size as u64, self.site(life));
        self.timeline.advance(clock::epoch(life.end), self.active);
        self.active.allocations -= 1;
        self.active.memory -= size;
        if let Some(number) = self.variable(life) {
            self.variables.gives(number, size);
        }
        let sums = &mut self.sums;
        sums.stats.total_deallocations += 1;
        sums.stats.total_deallocated += size;
        sums.sites.end(site, size);
        sums.threads.insert(life.slot.end_thread());
    }

    fn finish(self) -> Sums {
        let Self { mut sums, active, timeline, peak, variables, .. } = self;
        sums.sites.settle();
        sums.variables = variables.list();
        sums.stats.active_allocations = active.allocations;
        sums.stats.active_memory = active.memory;
        sums.stats.peak_memory = peak.1.memory;
        sums.stats.peak_allocations = peak.1.allocations;
        sums.stats.peak_time = peak.0;
        sums.stats.threads = sums.threads.len() as u64;
        sums.timeline = timeline.finish(active, (peak.1.memory > 0).then_some(peak), &[]);
        sums
    }
}

/// A snapshot that can be written.
#[derive(Debug)]
pub struct Made<'v, 's> {
    view: &'v View<'s>,
    numbers: HashMap<Key, u32>,
    /// Everything but the single allocations.
    pub snapshot: Snapshot,
}

impl<'v, 's> Made<'v, 's> {
    /// The snapshot of a view.
    pub fn of(view: &'v View<'s>) -> Self {
        let sums = Sums::of(view);
        let process = process(view, &sums);
        let snapshot = Snapshot {
            schema_version: SCHEMA_VERSION,
            generator: concat!("memscope-rs ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: process.args.clone(),
            complete: process.complete,
            incomplete_reason: process.incomplete_reason.clone(),
            incomplete_since: None,
            unrecorded: Vec::new(),
            processes: vec![process],
        };
        Self { view, numbers: sums.numbers, snapshot }
    }

    /// The single allocations that the snapshot lists.
    pub fn rows(&self) -> impl Iterator<Item = AllocationInfo> {
        let all = self.snapshot.processes[0].allocations_included == Included::All;
        let listed = self.view.lives.iter().filter(move |life| all || life.live);
        listed.map(|life| {
            let number = self.numbers.get(&frames::key(life.slot));
            AllocationInfo { stack_id: number.map(|&number| stack_id(number)), ..self.view.row(life) }
        })
    }
}

const fn stack_id(number: u32) -> u64 {
    number as u64 + 1
}

fn process(view: &View<'_>, sums: &Sums) -> Process {
    let (frames, stacks) = stacks(sums);
    let lost = sums.stats.lost_events;
    let reason = (lost > 0).then(|| {
        format!("{lost} variables were tracked by an allocator inside of itself and found no place")
    });
    Process {
        pid: std::process::id(),
        parent_pid: sys::parent_pid(),
        exe: std::env::current_exe().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        args: std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        start_time: clock::epoch(clock::start()),
        end_time: clock::epoch(view.end),
        end: view.ending.end(),
        exit_code: if let Ending::Exit(code) = view.ending { code } else { None },
        signal: if let Ending::Signal(signal) = view.ending { Some(signal) } else { None },
        complete: lost == 0,
        incomplete_reason: reason,
        incomplete_since: None,
        stats: sums.stats,
        allocations_included: if view.len() <= LISTED { Included::All } else { Included::Live },
        allocations: Vec::new(),
        frames,
        stacks,
        threads: threads(sums),
        timeline: sums.timeline.clone(),
        lifetime_histogram: sums.lifetimes.buckets(),
        variables: sums.variables.clone(),
        modules: Vec::new(),
        static_allocators: Vec::new(),
    }
}

/// Each distinct frame once, and each stack.
fn stacks(sums: &Sums) -> (Vec<StackFrame>, Vec<Stack>) {
    let mut frames = Vec::new();
    let mut known: HashMap<StackFrame, u32> = HashMap::new();
    let mut number = |frame: StackFrame| {
        *known.entry(frame).or_insert_with_key(|frame| {
            frames.push(frame.clone());
            frames.len() as u32 - 1
        })
    };
    let stack = |(site, &key): (u32, &Key)| Stack {
        id: stack_id(site),
        frames: frames::resolve(key).into_iter().map(&mut number).collect(),
        truncated: frames::is_truncated(key),
        guessed: false,
        stats: sums.sites.stats(site),
    };
    let stacks = (0..).zip(&sums.keys).map(stack).collect();
    (frames, stacks)
}

fn threads(sums: &Sums) -> Vec<Thread> {
    let used = threads::all().filter(|thread| sums.threads.contains(&thread.number));
    let mut threads: Vec<Thread> = used
        .map(|thread| Thread {
            id: u64::from(thread.number),
            name: thread.name.clone(),
            start_time: clock::epoch(thread.start),
            end_time: None,
        })
        .collect();
    threads.sort_by_key(|thread| thread.id);
    threads
}
