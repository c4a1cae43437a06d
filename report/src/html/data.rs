//! The data inside the HTML report: what the page needs of a snapshot and nothing more.
//!
//! Each process image is a JSON document of its own, so that a page with hundreds of them opens
//! without reading them all. Rows are arrays and strings are numbers: `assets/data.js` names them.
//! Times are ns since the start of the process image, which JavaScript's numbers hold exactly.

use std::collections::HashMap;

use memscope_shared::model::{
    HistogramBucket, Process, SiteStats, Snapshot, Stack, StackFrame, Stats, Unrecorded, Variable,
};
use serde::Serialize;

use super::super::digest::{self, Digest, Ranking, Site, Whole};
use super::super::{format, names};

/// The page's head: the recording and its process images.
#[derive(Serialize)]
pub struct Recording {
    generator: String,
    command: String,
    incomplete: Option<String>,
    processes: Vec<Image>,
    /// (process, depth), in the order of the tree.
    tree: Vec<(usize, usize)>,
    /// The process to show first.
    open: usize,
    /// Sums over all processes.
    whole: Whole,
    /// (pid, parent's pid, executable, command, why not).
    unrecorded: Vec<(u32, u32, String, String, String)>,
    all_unrecorded: usize,
}

/// Programs that are listed of those that could not be recorded.
const UNRECORDED: usize = 1000;

fn unrecorded(program: &Unrecorded) -> (u32, u32, String, String, String) {
    let command = format::command_line(&program.args);
    (program.pid, program.parent_pid, program.exe.clone(), command, program.reason.clone())
}

impl Recording {
    /// The head of a snapshot.
    pub fn new(snapshot: &Snapshot) -> Self {
        let start = snapshot.processes.first().map_or(0, |process| process.start_time);
        Self {
            generator: snapshot.generator.clone(),
            command: format::command_line(&snapshot.command),
            incomplete: digest::incomplete(
                snapshot.complete,
                snapshot.incomplete_reason.as_deref(),
                snapshot.incomplete_since,
                start,
            ),
            processes: snapshot.processes.iter().map(Image::new).collect(),
            tree: digest::tree(&snapshot.processes).iter().map(|line| (line.process, line.depth)).collect(),
            open: digest::by_allocated(&snapshot.processes).first().copied().unwrap_or(0),
            whole: Whole::of(&snapshot.processes),
            unrecorded: snapshot.unrecorded.iter().take(UNRECORDED).map(unrecorded).collect(),
            all_unrecorded: snapshot.unrecorded.len(),
        }
    }
}

/// What the page's head says of a process image.
#[derive(Serialize)]
struct Image {
    pid: u32,
    parent_pid: u32,
    exe: String,
    command: String,
    /// ms since the Unix epoch.
    start_ms: u64,
    start_utc: String,
    ran: u64,
    ended: String,
    ended_well: bool,
    running: bool,
    incomplete: Option<String>,
    incomplete_since: Option<u64>,
    note: Option<String>,
    peak_after: u64,
    stats: Stats,
}

impl Image {
    fn new(process: &Process) -> Self {
        let start = process.start_time;
        Self {
            pid: process.pid,
            parent_pid: process.parent_pid,
            exe: process.exe.clone(),
            command: format::command_line(&process.args),
            start_ms: start / 1_000_000,
            start_utc: format::utc(start),
            ran: digest::ran(process),
            ended: digest::ended(process),
            ended_well: digest::ended_well(process),
            running: digest::running(process),
            incomplete: digest::incomplete(
                process.complete,
                process.incomplete_reason.as_deref(),
                process.incomplete_since,
                start,
            ),
            incomplete_since: process.incomplete_since.map(|since| since.saturating_sub(start)),
            note: digest::static_allocators(process),
            peak_after: process.stats.peak_time.saturating_sub(start),
            stats: process.stats,
        }
    }
}

/// How much of a process image the page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Call sites of each ranking.
    pub sites: usize,
    /// Stacks of each ranking, and of each ranking of a site.
    pub stacks: (usize, usize),
    /// Points of the timeline.
    pub points: usize,
    /// Threads and modules.
    pub rows: usize,
}

impl Limits {
    /// The limits for the next process image when the page already holds this many stacks: the first
    /// ones, which allocated most, in full, the hundredth briefly.
    pub const fn after(stacks: usize) -> Self {
        match stacks {
            0..10_000 => Self { sites: 500, stacks: (500, 5), points: 2000, rows: 5000 },
            10_000..30_000 => Self { sites: 100, stacks: (100, 3), points: 500, rows: 500 },
            _ => Self { sites: 20, stacks: (20, 1), points: 100, rows: 50 },
        }
    }
}

/// The page's data of one process image.
#[derive(Serialize)]
pub struct Details {
    strings: Vec<String>,
    frames: Vec<FrameRow>,
    stacks: Vec<StackRow>,
    sites: Vec<SiteRow>,
    all_stacks: usize,
    all_sites: usize,
    short_lived: u64,
    /// (times, live bytes, live blocks, resident sets).
    timeline: (Vec<u64>, Vec<u64>, Vec<u64>, Vec<Option<u64>>),
    histogram: Vec<HistogramBucket>,
    /// (number, name, start, end).
    threads: Vec<(u64, u32, u64, Option<u64>)>,
    all_threads: usize,
    variables: Vec<VariableRow>,
    all_variables: usize,
    /// (path, build-id, start, end).
    modules: Vec<(u32, u32, String, String)>,
    all_modules: usize,
}

/// (function, short function, file, line, column, module, address, flags); 0 for what is unknown.
type FrameRow = (u32, u32, u32, u32, u32, u32, String, u8);

/// (id, flags, position of the telling frame or -1, frames, numbers).
type StackRow = (u64, u8, i64, Vec<u32>, Numbers);

/// (telling frame or -1, number of stacks, those of them that the page holds, numbers).
type SiteRow = (i64, usize, Vec<u32>, Numbers);

/// (name, type, scope, numbers): blocks, bytes, live, live bytes, peak, short-lived; lifetimes: min, median, 90 %, 99 %, max, mean.
type VariableRow = (u32, u32, u32, [u64; 12]);

/// Allocations, bytes, frees, bytes freed, live, live bytes, own peak, live at the process's peak, short-lived;
/// lifetimes: min, median, 90 %, 99 %, max, mean.
type Numbers = [u64; 15];

const fn numbers(s: &SiteStats) -> Numbers {
    let l = &s.lifetime_ns;
    [
        s.allocations,
        s.allocated,
        s.deallocations,
        s.deallocated,
        s.active_allocations,
        s.active_memory,
        s.peak_memory,
        s.memory_at_peak,
        s.short_lived,
        l.min,
        l.p50,
        l.p90,
        l.p99,
        l.max,
        l.mean,
    ]
}

const INLINED: u8 = 1;
const PLUMBING: u8 = 2;
const TRUNCATED: u8 = 1;
const GUESSED: u8 = 2;

impl Details {
    /// What the page holds of a process image, within limits.
    pub fn new(digest: &Digest<'_>, limits: Limits) -> Self {
        let mut selection = Selection::new(digest);
        selection.fill(limits);
        let process = digest.process;
        let start = process.start_time;
        let mut strings = selection.strings;
        let points = digest::thinned(&process.timeline, limits.points);
        let threads = process.threads.iter().take(limits.rows).map(|thread| {
            let end = thread.end_time.map(|end| end.saturating_sub(start));
            (thread.id, strings.add(thread.name.as_deref()), thread.start_time.saturating_sub(start), end)
        });
        let threads = threads.collect();
        let modules = process.modules.iter().take(limits.rows).map(|module| {
            let (path, build_id) = (strings.add(Some(&module.path)), strings.add(module.build_id.as_deref()));
            (path, build_id, hex(module.start), hex(module.end))
        });
        let modules = modules.collect();
        let variables =
            process.variables.iter().take(limits.rows).map(|variable| variable_row(variable, &mut strings));
        let variables = variables.collect();
        Self {
            strings: strings.list,
            frames: selection.frames,
            stacks: selection.stacks,
            sites: selection.sites,
            all_stacks: process.stacks.len(),
            all_sites: digest.sites.len(),
            short_lived: digest.short_lived,
            timeline: (
                points.iter().map(|point| point.time.saturating_sub(start)).collect(),
                points.iter().map(|point| point.active_memory).collect(),
                points.iter().map(|point| point.active_allocations).collect(),
                points.iter().map(|point| point.rss).collect(),
            ),
            histogram: process.lifetime_histogram.clone(),
            threads,
            all_threads: process.threads.len(),
            variables,
            all_variables: process.variables.len(),
            modules,
            all_modules: process.modules.len(),
        }
    }

    /// Number of stacks that the page holds of this process image.
    pub const fn stacks(&self) -> usize {
        self.stacks.len()
    }
}

fn variable_row(variable: &Variable, strings: &mut Strings) -> VariableRow {
    let Variable { var_name, type_name, scope_name, lifetime_ns: l, .. } = variable;
    let numbers = [
        variable.allocations,
        variable.allocated,
        variable.active_allocations,
        variable.active_memory,
        variable.peak_memory,
        variable.short_lived,
        l.min,
        l.p50,
        l.p90,
        l.p99,
        l.max,
        l.mean,
    ];
    let name = strings.add(Some(var_name));
    (name, strings.add(type_name.as_deref()), strings.add(scope_name.as_deref()), numbers)
}

const fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn hex(address: u64) -> String {
    format!("{address:x}")
}

/// Each string once; 0 is none.
struct Strings {
    list: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Strings {
    fn add(&mut self, text: Option<&str>) -> u32 {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return 0 };
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.list.len() as u32;
        self.list.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// The sites, stacks, frames and strings that were chosen so far, under their new numbers.
struct Selection<'d, 'p> {
    digest: &'d Digest<'p>,
    strings: Strings,
    frames: Vec<FrameRow>,
    frame_numbers: HashMap<u32, u32>,
    stacks: Vec<StackRow>,
    stack_numbers: HashMap<u32, u32>,
    sites: Vec<SiteRow>,
}

impl<'d, 'p> Selection<'d, 'p> {
    fn new(digest: &'d Digest<'p>) -> Self {
        Self {
            digest,
            strings: Strings { list: vec![String::new()], numbers: HashMap::new() },
            frames: Vec::new(),
            frame_numbers: HashMap::new(),
            stacks: Vec::new(),
            stack_numbers: HashMap::new(),
            sites: Vec::new(),
        }
    }

    /// Takes the top of each ranking. Stacks come first, so that those with a rank of their own are
    /// there whatever happens to the sites'.
    fn fill(&mut self, limits: Limits) {
        let digest = self.digest;
        for ranking in Ranking::ALL {
            for stack in digest.top_stacks_of_all(ranking, limits.stacks.0) {
                self.stack(stack);
            }
        }
        let tops = Ranking::ALL.map(|ranking| digest.top_sites(ranking, limits.sites));
        let mut chosen = tops.concat();
        chosen.sort_unstable();
        chosen.dedup();
        for site in chosen {
            self.site(&digest.sites[site], limits.stacks.1);
        }
    }

    fn site(&mut self, site: &'d Site, limit: usize) {
        for ranking in Ranking::ALL {
            for stack in self.digest.top_stacks(site, ranking, limit) {
                self.stack(stack);
            }
        }
        let held = site.stacks.iter().filter_map(|stack| self.stack_numbers.get(stack).copied()).collect();
        let frame = site.frame.map_or(-1, |frame| i64::from(self.frame(frame)));
        self.sites.push((frame, site.stacks.len(), held, numbers(&site.stats)));
    }

    fn stack(&mut self, index: u32) {
        if self.stack_numbers.contains_key(&index) {
            return;
        }
        let stack: &'p Stack = self.digest.stack(index);
        let known = |&frame: &u32| (frame as usize) < self.digest.process.frames.len();
        // Frames that the snapshot doesn't hold are left out; the telling one is never among them.
        let telling =
            self.digest.telling(stack).map(|at| stack.frames[..at].iter().filter(|f| known(f)).count());
        let frames: Vec<u32> = stack.frames.iter().copied().filter(known).collect();
        let frames = frames.into_iter().map(|frame| self.frame(frame)).collect();
        let flags = flag(stack.truncated, TRUNCATED) | flag(stack.guessed, GUESSED);
        self.stack_numbers.insert(index, self.stacks.len() as u32);
        self.stacks.push((
            stack.id,
            flags,
            telling.map_or(-1, |at| at as i64),
            frames,
            numbers(&stack.stats),
        ));
    }

    fn frame(&mut self, index: u32) -> u32 {
        if let Some(&number) = self.frame_numbers.get(&index) {
            return number;
        }
        let frame: &StackFrame = &self.digest.process.frames[index as usize];
        let plumbing = self.digest.plumbing[index as usize];
        let function = self.strings.add(frame.function.as_deref());
        let short = match frame.function.as_deref() {
            Some(name) => names::short(name),
            None => Some(digest::unnamed(self.digest.process, frame)),
        };
        let row = (
            function,
            short.map_or(function, |short| self.strings.add(Some(&short))),
            self.strings.add(frame.file.as_deref()),
            frame.line.unwrap_or(0),
            frame.column.unwrap_or(0),
            self.strings.add(frame.module.as_deref()),
            hex(frame.address),
            flag(frame.inlined, INLINED) | flag(plumbing, PLUMBING),
        );
        let number = self.frames.len() as u32;
        self.frames.push(row);
        self.frame_numbers.insert(index, number);
        number
    }
}
