//! What both reports show, computed once.

use std::collections::HashMap;

use memscope_shared::model::{End, Process, SiteStats, Stack, StackFrame, Stats, TimelinePoint};
use serde::Serialize;

use super::{format, plumbing};

/// What call sites are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranking {
    /// Live bytes at the process's peak.
    Peak,
    /// Number of allocations.
    Count,
    /// Bytes allocated.
    Allocated,
    /// Bytes live at the end.
    Live,
    /// Allocations that lived under 1 ms.
    Short,
}

impl Ranking {
    /// All, in the order in which reports show them.
    pub const ALL: [Self; 5] = [Self::Peak, Self::Count, Self::Allocated, Self::Live, Self::Short];

    /// What it ranks.
    pub const fn value(self, stats: &SiteStats) -> u64 {
        match self {
            Self::Peak => stats.memory_at_peak,
            Self::Count => stats.allocations,
            Self::Allocated => stats.allocated,
            Self::Live => stats.active_memory,
            Self::Short => stats.short_lived,
        }
    }
}

/// A place in the code: all stacks whose most telling frame it is.
#[derive(Clone, Debug)]
pub struct Site {
    /// Index of one such frame; `None` for stacks without any.
    pub frame: Option<u32>,
    /// Indices of the stacks, in the snapshot's order.
    pub stacks: Vec<u32>,
    /// Sums over the stacks. Peaks and quantiles do not add up: `peak_memory` and the quantiles are 0
    /// where there is more than one stack.
    pub stats: SiteStats,
}

/// One process image, seen by call site.
#[derive(Debug)]
pub struct Digest<'a> {
    /// The process image.
    pub process: &'a Process,
    /// Every call site, by first stack.
    pub sites: Vec<Site>,
    /// Which of the process's frames are plumbing.
    pub plumbing: Vec<bool>,
    /// Allocations that lived under 1 ms.
    pub short_lived: u64,
}

/// What makes two frames one place: function, file, line, module; the address where nothing has a name.
type Place<'a> = (Option<&'a str>, Option<&'a str>, Option<u32>, Option<&'a str>, u64);

fn place(frame: &StackFrame) -> Place<'_> {
    let address = if frame.function.is_none() { frame.address } else { 0 };
    (frame.function.as_deref(), frame.file.as_deref(), frame.line, frame.module.as_deref(), address)
}

/// What to call a frame whose function has no name: where it lies in its module, as in `ls+0x1c031`, which is the same in
/// every run; the bare address where no module is known.
pub fn unnamed(process: &Process, frame: &StackFrame) -> String {
    let module = process.modules.iter().find(|module| {
        frame.module.as_ref() == Some(&module.path) && (module.start..module.end).contains(&frame.address)
    });
    match module {
        Some(module) => format!("{}+{:#x}", format::file_name(&module.path), frame.address - module.start),
        None => format!("{:#x}", frame.address),
    }
}

impl<'a> Digest<'a> {
    /// Joins the stacks of a process into call sites.
    pub fn new(process: &'a Process) -> Self {
        let plumbing: Vec<bool> = process.frames.iter().map(plumbing::is_plumbing).collect();
        let mut sites: Vec<Site> = Vec::new();
        let mut by_place: HashMap<Option<Place<'a>>, usize> = HashMap::new();
        for (index, stack) in (0..).zip(&process.stacks) {
            let frame = plumbing::telling(stack, &process.frames, &plumbing).map(|at| stack.frames[at]);
            let place = frame.map(|frame| place(&process.frames[frame as usize]));
            let site = *by_place.entry(place).or_insert_with(|| {
                sites.push(Site { frame, stacks: Vec::new(), stats: SiteStats::default() });
                sites.len() - 1
            });
            sites[site].stacks.push(index);
        }
        for site in &mut sites {
            site.stats = sum(site.stacks.iter().map(|&stack| &process.stacks[stack as usize].stats));
        }
        let short_lived = total(sites.iter().map(|site| site.stats.short_lived));
        Self { process, sites, plumbing, short_lived }
    }

    /// The sum over the whole process of what a ranking ranks.
    pub const fn total(&self, ranking: Ranking) -> u64 {
        let Stats { peak_memory, total_allocations, total_allocated, active_memory, .. } = self.process.stats;
        match ranking {
            Ranking::Peak => peak_memory,
            Ranking::Count => total_allocations,
            Ranking::Allocated => total_allocated,
            Ranking::Live => active_memory,
            Ranking::Short => self.short_lived,
        }
    }

    /// The `limit` highest sites of a ranking, without those at 0; ties by the id of their first stack.
    pub fn top_sites(&self, ranking: Ranking, limit: usize) -> Vec<usize> {
        let stack_id = |site: &Site| site.stacks.first().map_or(0, |&stack| self.stack(stack).id);
        let key = |&at: &usize| (ranking.value(&self.sites[at].stats), stack_id(&self.sites[at]));
        highest((0..self.sites.len()).collect(), limit, key)
    }

    /// The `limit` highest stacks of a site, without those at 0; ties by id.
    pub fn top_stacks(&self, site: &Site, ranking: Ranking, limit: usize) -> Vec<u32> {
        let key = |&at: &u32| (ranking.value(&self.stack(at).stats), self.stack(at).id);
        highest(site.stacks.clone(), limit, key)
    }

    /// The `limit` highest stacks of the process, as [`Self::top_stacks`].
    pub fn top_stacks_of_all(&self, ranking: Ranking, limit: usize) -> Vec<u32> {
        let key = |&at: &u32| (ranking.value(&self.stack(at).stats), self.stack(at).id);
        highest((0..).take(self.process.stacks.len()).collect(), limit, key)
    }

    /// A stack by its index.
    pub fn stack(&self, index: u32) -> &'a Stack {
        &self.process.stacks[index as usize]
    }

    /// Position in a stack's frames of its most telling frame.
    pub fn telling(&self, stack: &Stack) -> Option<usize> {
        plumbing::telling(stack, &self.process.frames, &self.plumbing)
    }
}

/// The items with the highest (value, then lowest id), without those of value 0.
fn highest<T>(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> (u64, u64)) -> Vec<T> {
    let order = |a: &T, b: &T| {
        let ((value_a, id_a), (value_b, id_b)) = (key(a), key(b));
        value_b.cmp(&value_a).then(id_a.cmp(&id_b))
    };
    items.retain(|item| key(item).0 > 0);
    if limit < items.len() {
        items.select_nth_unstable_by(limit, order);
        items.truncate(limit);
    }
    items.sort_by(order);
    items
}

fn total(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}

fn sum<'s>(parts: impl Iterator<Item = &'s SiteStats> + Clone) -> SiteStats {
    let add = |field: fn(&SiteStats) -> u64| total(parts.clone().map(field));
    if let (Some(only), None) = (parts.clone().next(), parts.clone().nth(1)) {
        return *only;
    }
    let mut sum = SiteStats {
        allocations: add(|s| s.allocations),
        allocated: add(|s| s.allocated),
        deallocations: add(|s| s.deallocations),
        deallocated: add(|s| s.deallocated),
        active_allocations: add(|s| s.active_allocations),
        active_memory: add(|s| s.active_memory),
        memory_at_peak: add(|s| s.memory_at_peak),
        short_lived: add(|s| s.short_lived),
        ..SiteStats::default()
    };
    let lived = parts.clone().filter(|s| s.allocations > 0);
    sum.lifetime_ns.min = lived.clone().map(|s| s.lifetime_ns.min).min().unwrap_or(0);
    sum.lifetime_ns.max = lived.clone().map(|s| s.lifetime_ns.max).max().unwrap_or(0);
    let weighted: u128 = lived.map(|s| u128::from(s.lifetime_ns.mean) * u128::from(s.allocations)).sum();
    sum.lifetime_ns.mean = (weighted / u128::from(sum.allocations.max(1))) as u64;
    sum
}

/// The process images by bytes allocated, highest first; ties in order of start.
pub fn by_allocated(processes: &[Process]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..processes.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(processes[at].stats.total_allocated));
    order
}

/// The sums over all process images that add up; peaks do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Whole {
    /// Number of images.
    pub images: usize,
    /// Allocations.
    pub allocations: u64,
    /// Bytes that they asked for.
    pub allocated: u64,
}

impl Whole {
    /// Of all images.
    pub fn of(processes: &[Process]) -> Self {
        let sum = |field: fn(&Stats) -> u64| total(processes.iter().map(|process| field(&process.stats)));
        Self {
            images: processes.len(),
            allocations: sum(|stats| stats.total_allocations),
            allocated: sum(|stats| stats.total_allocated),
        }
    }

    /// As a part of a sentence: `5 process images, 1,234 allocations of 5.00 MiB in all`.
    pub fn text(&self) -> String {
        format!(
            "{}, {} of {} in all",
            format::counted(self.images as u64, "process image"),
            format::counted(self.allocations, "allocation"),
            format::bytes(self.allocated)
        )
    }
}

/// One line of the process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Index of the process image.
    pub process: usize,
    /// Its depth, 0 for a root.
    pub depth: usize,
}

/// The process images as a tree, children after their parent.
///
/// An image's parent is the image that it replaced by `exec`, else the last one before it with its
/// parent's pid: parents come first in a snapshot, so there is no cycle.
pub fn tree(processes: &[Process]) -> Vec<Branch> {
    let mut last_by_pid: HashMap<u32, usize> = HashMap::new();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); processes.len()];
    let mut roots = Vec::new();
    for (at, process) in processes.iter().enumerate() {
        let same = last_by_pid.get(&process.pid).filter(|&&before| processes[before].end == End::Exec);
        match same.or_else(|| last_by_pid.get(&process.parent_pid)) {
            Some(&parent) => children[parent].push(at),
            None => roots.push(at),
        }
        last_by_pid.insert(process.pid, at);
    }
    let mut out = Vec::with_capacity(processes.len());
    let mut open: Vec<Branch> = roots.iter().rev().map(|&process| Branch { process, depth: 0 }).collect();
    while let Some(branch) = open.pop() {
        out.push(branch);
        let below = children[branch.process].iter().rev();
        open.extend(below.map(|&process| Branch { process, depth: branch.depth + 1 }));
    }
    out
}

/// How long a process image ran, in ns.
pub const fn ran(process: &Process) -> u64 {
    process.end_time.saturating_sub(process.start_time)
}

/// How a process image ended: `exited with 0`, `killed by SIGKILL (9)`.
pub fn ended(process: &Process) -> String {
    let status = |verb: &str| match process.exit_code {
        Some(code) => format!("{verb} with {code}"),
        None => verb.to_owned(),
    };
    match process.end {
        End::Exit => status("exited"),
        End::UnderscoreExit => status("ended by _exit"),
        End::Signal => match process.signal {
            Some(signal) => format!("killed by {}", signal_name(signal)),
            None => "killed by a signal".to_owned(),
        },
        End::Exec => "replaced itself by exec".to_owned(),
        End::Running => "was still running".to_owned(),
        End::Unknown => "nobody saw its end".to_owned(),
    }
}

/// Whether a process image still ran when its recording was read: what is live then is live so far.
pub fn running(process: &Process) -> bool {
    process.end == End::Running
}

/// Whether a process image ended as a program that did its work does.
pub fn ended_well(process: &Process) -> bool {
    match process.end {
        End::Exit | End::UnderscoreExit => process.exit_code.is_none_or(|code| code == 0),
        End::Exec | End::Running => true,
        End::Signal | End::Unknown => false,
    }
}

/// A signal's name and number as on x86-64.
fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::try_from(signal).ok().and_then(|n| NAMES.get(n.checked_sub(1)?));
    match name {
        Some(name) => format!("SIG{name} ({signal})"),
        None => format!("signal {signal}"),
    }
}

/// Why a recording is incomplete and since when, as one sentence; `None` for a complete one.
pub fn incomplete(complete: bool, reason: Option<&str>, since: Option<u64>, start: u64) -> Option<String> {
    if complete {
        return None;
    }
    let reason = reason.unwrap_or("events were lost");
    Some(match since {
        Some(since) if since >= start && start > 0 => {
            let after = format::duration(since - start);
            format!("{reason}; from {after} after the start on, events are missing ({})", format::utc(since))
        }
        Some(since) => format!("{reason}; events are missing since {}", format::utc(since)),
        None => reason.to_owned(),
    })
}

/// What it means that a process has allocators which `malloc` does not lead to, as one sentence; `None` where it has none.
pub fn static_allocators(process: &Process) -> Option<String> {
    let found: Vec<String> = process
        .static_allocators
        .iter()
        .map(|found| format!("{} in {}", found.name, format::file_name(&found.module)))
        .collect();
    if found.is_empty() {
        return None;
    }
    let it = if found.len() == 1 { "it" } else { "them" };
    Some(format!(
        "{}: what is allocated from {it} directly, if anything is, does not pass malloc and is not in this recording",
        found.join(" and ")
    ))
}

/// At most about `limit` points of a timeline, in order: of each run of points the first and the highest.
pub fn thinned(points: &[TimelinePoint], limit: usize) -> Vec<TimelinePoint> {
    if points.len() <= limit.max(2) {
        return points.to_vec();
    }
    let run = points.len().div_ceil((limit / 2).max(1));
    let mut out = Vec::with_capacity(limit + 1);
    for run in points.chunks(run) {
        // `max_by_key` gives the last of equals; the peak is where it was first reached.
        let high = (1..run.len()).rev().max_by_key(|&at| run[at].active_memory);
        out.push(run[0]);
        out.extend(high.map(|at| run[at]));
    }
    out.extend(points.last().filter(|last| out.last() != Some(last)));
    out
}

#[cfg(test)]
mod tests;
