//! One process image, analysed: everything that a snapshot says about it but the symbols.

use std::path::{Path, PathBuf};

use super::accounts::Accounts;
use super::blocks::{Allocations, Collector, Wanted};
use super::catalog::Catalog;
use super::engine::{Done, Engine, Place};
use super::error::Error;
use super::frames::{Frame, Frames, Trace};
use super::losses::{self, Losses};
use super::merge;
use super::modules::Module;
use super::pipeline::merge_aside;
use super::source::{EventSource, Stream};
use super::stacks::Stacks;
use super::timeline::{Active, Timeline};
use super::trace_source::TraceSource;
use super::variables::Variables;
use crate::model::{self, End, FreedBy, HistogramBucket, SiteStats, Stats, TimelinePoint, Variable};
use crate::spool::ONLY_COUNTED;
use crate::trace::{Clock, EndKind, ImageState, Process, TraceFile, image_state};

/// Number of the main thread.
const MAIN: u32 = 1;

/// What an analysis is to do.
#[derive(Default)]
pub struct Options<'a> {
    /// Which single allocations to list.
    pub allocations: Wanted,
    /// Where temporary files go; the system's place for them by default.
    pub temp_dir: Option<PathBuf>,
    /// The process was seen to run when the trace was opened, or later: that the end is missing is no loss, even if it has
    /// ended since.
    pub runs: bool,
    /// Hears how much is done, of how much.
    pub progress: Option<&'a mut dyn FnMut(u64, u64)>,
}

/// A site: a distinct stack with its sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its sums.
    pub stats: SiteStats,
    place: Place,
}

impl Site {
    /// Whether there is a stack at all.
    #[must_use]
    pub fn has_stack(&self) -> bool {
        self.place != Place::Nowhere
    }
}

/// A process image, analysed. Times are ns since the Unix epoch.
#[derive(Debug)]
pub struct ProcessAnalysis {
    /// What the trace says about the image.
    pub process: Process,
    /// When it started.
    pub start_time: u64,
    /// When it ended; the last event's time where nobody saw that.
    pub end_time: u64,
    /// How it ended.
    pub end: End,
    /// Exit status, where it is known.
    pub exit_code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Why the recording is incomplete, if it is.
    pub incomplete_reason: Option<String>,
    /// Since when.
    pub incomplete_since: Option<u64>,
    /// Totals.
    pub stats: Stats,
    /// Blocks that count as freed because their address was given out again: the free itself was never
    /// seen. 0 unless something is missing, or memory was freed behind the hooks.
    pub unseen_frees: u64,
    /// The sites. [`super::Allocation::site`] is an index into this.
    pub sites: Vec<Site>,
    /// The threads that allocated or freed.
    pub threads: Vec<model::Thread>,
    /// Memory over time.
    pub timeline: Vec<TimelinePoint>,
    /// Lifetimes.
    pub lifetime_histogram: Vec<HistogramBucket>,
    /// Named variables.
    pub variables: Vec<Variable>,
    /// Mapped files.
    pub modules: Vec<Module>,
    /// Single allocations.
    pub allocations: Allocations,
    /// Remarks of the recorder.
    pub notes: Vec<String>,
    stacks: Stacks,
    frames: Frames,
}

impl ProcessAnalysis {
    /// Whether nothing is missing.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.incomplete_reason.is_none()
    }

    /// Each distinct frame of all stacks once.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        self.frames.list()
    }

    /// The stack of site number `site`, as indices into [`ProcessAnalysis::frames`].
    #[must_use]
    pub fn trace(&self, site: usize) -> Trace {
        match self.sites.get(site).map(|site| site.place) {
            Some(Place::Leaf(leaf)) => self.frames.trace(&self.stacks, leaf),
            _ => Trace { truncated: true, ..Trace::default() },
        }
    }
}

/// Analyses the trace at `path`.
///
/// # Errors
///
/// The trace cannot be read, or a temporary file cannot be written. What is damaged or missing is no error:
/// the result says so.
pub fn analyze(path: impl AsRef<Path>, options: Options) -> Result<ProcessAnalysis, Error> {
    analyze_trace(&TraceFile::open(path)?, options)
}

/// The same with a trace that is open.
///
/// # Errors
///
/// As [`analyze`].
pub fn analyze_trace(trace: &TraceFile, mut options: Options) -> Result<ProcessAnalysis, Error> {
    let process = trace.process().cloned().ok_or_else(|| Error::no_process(trace.path()))?;
    let runs = || matches!(image_state(&process, trace.path().parent()), ImageState::Running(_));
    let running = trace.end().is_none() && (options.runs || runs());
    let mut source = TraceSource::new(trace);
    let clock = trace.clock();
    let span = Span::new(trace, &source, &clock, running);
    let (catalog, done, outcome) =
        run(&mut source, &clock, &span, process.forked, ended_at(trace), &mut options);

    let mut failures = catalog.failures.clone();
    for failure in outcome.failures {
        if !failures.iter().any(|known| known.block == failure.block) {
            failures.push(failure);
        }
    }
    let losses = losses::of_trace(trace, &failures, running);
    let closing = Closing { trace, process, running, clock: &clock, span, losses, lost: outcome.lost };
    closing.finish(catalog, done)
}

/// The two passes over the records.
fn run(
    source: &mut TraceSource,
    clock: &Clock,
    span: &Span,
    inherits: bool,
    ended: u64,
    options: &mut Options,
) -> (Catalog, Done, merge::Outcome) {
    let words = |special: bool| {
        let blocks = source.streams().iter().flat_map(|stream| &stream.blocks);
        blocks.filter(|block| block.special || !special).map(|block| u64::from(block.words)).sum::<u64>()
    };
    let (first, total) = (words(true), words(true) + words(false));
    let mut progress = |done| {
        if let Some(progress) = &mut options.progress {
            progress(done, total);
        }
    };
    let mut catalog = Catalog::read(source, &mut progress);
    let owners = std::mem::take(&mut catalog.owners).timed(clock);
    let temp_dir = options.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    let collector = Collector::new(options.allocations, &temp_dir);
    let timeline = Timeline::new(span.start, span.end);
    let streams = source.streams().len();
    let mut accounts = Accounts::new(owners, inherits, timeline, collector);
    accounts.named.variables = Variables::of(&catalog.names);
    let mut engine = Engine::new(clock, &catalog.stacks, streams, accounts);
    engine.second_stream_at(second_stream(source.streams()).map_or(u64::MAX, |stamp| clock.ns(stamp)));
    let mut progress = |done| {
        if let Some(progress) = &mut options.progress {
            progress(first + done, total);
        }
    };
    let outcome = merge_aside(source, ended, &mut engine, &mut progress);
    let done = engine.finish();
    (catalog, done, outcome)
}

/// When recording ended before the process did: what was recorded later only counts.
fn ended_at(trace: &TraceFile) -> u64 {
    let Some(end) = trace.end().filter(|end| end.lost_events > 0) else { return u64::MAX };
    if end.reason.as_deref().is_some_and(|reasons| reasons.split("; ").any(|reason| reason == ONLY_COUNTED)) {
        return u64::MAX;
    }
    let since = end.incomplete_since.unwrap_or(u64::MAX);
    // The field names the first loss of any kind, and a hole in a stream is one too.
    if trace.gaps().iter().any(|gap| gap.after_stamp == since) { u64::MAX } else { since }
}

/// From when to when.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    end: u64,
}

impl Span {
    fn new(trace: &TraceFile, source: &TraceSource, clock: &Clock, running: bool) -> Self {
        let samples = trace.clock_samples().iter().map(|sample| sample.stamp);
        let blocks = || source.streams().iter().flat_map(stamped_blocks);
        let start = start_of(trace, source, clock);
        let last_event = blocks().map(|block| block.last_stamp).max();
        let seen = match trace.end() {
            Some(end) => Some(end.stamp),
            // So far: the clock is read all the time.
            None if running => samples.max(),
            None => None,
        };
        let end = last_event.max(seen).map_or(start, |stamp| clock.ns(stamp)).max(start);
        Self { start, end }
    }
}

/// When the first thing happened that a trace knows of, in ns since the Unix epoch; 0 where it knows nothing.
pub(super) fn start_of(trace: &TraceFile, source: &TraceSource, clock: &Clock) -> u64 {
    let samples = trace.clock_samples().iter().map(|sample| sample.stamp);
    let blocks = source.streams().iter().flat_map(stamped_blocks).map(|block| block.first_stamp);
    samples.chain(blocks).min().map_or(0, |stamp| clock.ns(stamp))
}

/// The first stamp of the second stream; `None` where there is none.
fn second_stream(streams: &[Stream]) -> Option<u64> {
    let firsts = streams.iter().filter_map(|stream| stamped_blocks(stream).map(|b| b.first_stamp).min());
    let mut firsts: Vec<u64> = firsts.collect();
    firsts.sort_unstable();
    firsts.get(1).copied()
}

/// The blocks of a stream that hold stamps.
fn stamped_blocks(stream: &Stream) -> impl Iterator<Item = &super::source::Block> {
    stream.blocks.iter().filter(|block| block.last_stamp != 0)
}

/// Everything that is put together at the end.
struct Closing<'a> {
    trace: &'a TraceFile,
    process: Process,
    running: bool,
    clock: &'a Clock,
    span: Span,
    losses: Losses,
    /// Events after the end of recording.
    lost: u64,
}

impl Closing<'_> {
    fn finish(self, catalog: Catalog, done: Done) -> Result<ProcessAnalysis, Error> {
        let Catalog { stacks, mut modules, mut threads, names, .. } = catalog;
        let Done { mut accounts, pairing, places, used, .. } = done;
        let end = self.end();
        let freed_by = if end == End::Running { FreedBy::Live } else { FreedBy::Exit };
        // The table's order is another one each time.
        let mut live: Vec<_> = pairing.live().iter().collect();
        live.sort_unstable_by_key(|block| block.address);
        for block in live {
            accounts.left(block, self.span.end, freed_by);
        }
        accounts.sites.settle();
        let leaves =
            places.iter().filter_map(|place| if let Place::Leaf(leaf) = place { Some(*leaf) } else { None });
        let frames = Frames::new(&stacks, &mut modules, leaves);
        for name in self.trace.thread_names() {
            threads.named(name.thread, name.stamp, &name.name);
        }
        // The main thread is there whatever it did; nobody may have heard of it.
        let threads: Vec<_> = threads.list(|number| number == MAIN || used.contains(number));
        let threads: Vec<_> =
            self.main_thread(&threads).into_iter().chain(threads.iter().map(|t| self.thread(t))).collect();
        let stats = self.stats(&accounts, threads.len());
        let sites = places.iter().enumerate();
        let sites =
            sites.map(|(at, &place)| Site { stats: accounts.sites.stats(at as u32), place }).collect();
        let written = self.trace.end();
        Ok(ProcessAnalysis {
            start_time: self.span.start,
            end_time: self.span.end,
            end,
            exit_code: written.and_then(|end| end.exit_code),
            signal: written.and_then(|end| end.signal),
            incomplete_reason: self.losses.text(),
            // A trace that was cut before its first event is incomplete from its start on.
            incomplete_since: self.losses.since().map(|stamp| self.clock.ns(stamp).max(self.span.start)),
            stats,
            unseen_frees: accounts.unseen_ends,
            sites,
            threads,
            timeline: self.timeline(accounts.timeline, &stats),
            lifetime_histogram: accounts.lifetimes.buckets(),
            variables: accounts.named.variables.list(),
            modules: modules.list().to_vec(),
            allocations: accounts.collector.finish(names).map_err(Error::TempFile)?,
            notes: self.trace.notes().to_vec(),
            process: self.process,
            stacks,
            frames,
        })
    }

    fn end(&self) -> End {
        match self.trace.end().map(|end| end.kind) {
            Some(EndKind::Exit) => End::Exit,
            Some(EndKind::UnderscoreExit) => End::UnderscoreExit,
            Some(EndKind::Signal) => End::Signal,
            Some(EndKind::Exec) => End::Exec,
            Some(EndKind::Running) => End::Running,
            None if self.running => End::Running,
            Some(EndKind::Unknown) | None => End::Unknown,
        }
    }

    fn stats(&self, accounts: &Accounts, threads: usize) -> Stats {
        let totals = accounts.totals();
        Stats {
            // Nothing was ever held: that was so from the start.
            peak_time: if totals.peak_memory == 0 { self.span.start } else { totals.peak_time },
            lost_events: self.lost + self.trace.end().map_or(0, |end| end.lost_events),
            threads: threads as u64,
            ..totals
        }
    }

    /// The main thread, where no record tells of it.
    fn main_thread(&self, known: &[super::threads::Thread]) -> Option<model::Thread> {
        let (start_time, end_time) = (self.span.start, self.last_end());
        let missing = known.first().is_none_or(|thread| thread.number != MAIN);
        missing.then(|| model::Thread { id: MAIN.into(), name: None, start_time, end_time })
    }

    /// When a thread has ended whose end was not seen: with the process.
    fn last_end(&self) -> Option<u64> {
        (self.end() != End::Running).then_some(self.span.end)
    }

    fn thread(&self, thread: &super::threads::Thread) -> model::Thread {
        let name = String::from_utf8_lossy(&thread.name).into_owned();
        model::Thread {
            id: u64::from(thread.number),
            name: (!name.is_empty()).then_some(name),
            start_time: self.clock.ns(thread.start),
            end_time: thread.end.map(|stamp| self.clock.ns(stamp)).or_else(|| self.last_end()),
        }
    }

    fn timeline(&self, timeline: Timeline, stats: &Stats) -> Vec<TimelinePoint> {
        let mut rss: Vec<(u64, u64)> =
            self.trace.memory_samples().iter().map(|s| (self.clock.ns(s.stamp), s.rss_bytes)).collect();
        rss.sort_by_key(|sample| sample.0);
        let peak = Active { memory: stats.peak_memory, allocations: stats.peak_allocations };
        let peak = (stats.peak_memory > 0).then_some((stats.peak_time, peak));
        let last = Active { memory: stats.active_memory, allocations: stats.active_allocations };
        timeline.finish(last, peak, &rss)
    }
}

#[cfg(test)]
mod tests;
