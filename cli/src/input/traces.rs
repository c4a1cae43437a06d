//! From the analysis of a trace to what the snapshot says of its process.

use std::io;
use std::path::{Path, PathBuf};

use memscope_shared::analysis::{
    Allocation, Allocations, Frame, Options, ProcessAnalysis, Recorded, Wanted, analyze,
};
use memscope_shared::model::{AllocationInfo, FreedBy, Module, Process, Stack, StackFrame};

use super::allocators::Allocators;
use super::unreadable;
use crate::args::Listed;
use crate::error::Result;
use crate::symbols::{FrameTable, Mapped, ModuleFile, Resolver};

/// The part of the work on a trace that is the analysis; the rest goes for symbols.
const ANALYSIS_SHARE: f64 = 0.8;

/// A process image: what the snapshot says of it, and its single allocations.
#[derive(Debug)]
pub struct Image {
    /// Everything but the allocations.
    pub process: Process,
    /// The allocations that are listed.
    pub allocations: Allocations,
    /// What the recorder remarked.
    pub notes: Vec<String>,
}

/// Reads traces, one after the other.
pub struct Reader<'a> {
    resolver: Resolver,
    allocators: Allocators,
    wanted: Wanted,
    temp_dir: Option<PathBuf>,
    /// Hears which part of the current trace is done, from 0 to 1.
    progress: &'a mut dyn FnMut(f64),
}

impl<'a> Reader<'a> {
    /// A reader of these allocations; what doesn't fit into memory goes to `temp_dir`.
    pub fn new(wanted: Wanted, temp_dir: Option<PathBuf>, progress: &'a mut dyn FnMut(f64)) -> Self {
        Self { resolver: Resolver::new(), allocators: Allocators::default(), wanted, temp_dir, progress }
    }

    /// Analyses one trace and resolves its symbols.
    pub fn read(&mut self, recorded: &Recorded) -> Result<Image> {
        let progress = &mut self.progress;
        let mut analysed = |done: u64, total: u64| progress(ANALYSIS_SHARE * part(done, total));
        let options = Options {
            allocations: self.wanted,
            temp_dir: self.temp_dir.clone(),
            // Asked once: what it has recorded so far is whole, whatever becomes of it while we read.
            runs: recorded.still_runs(),
            progress: Some(&mut analysed),
        };
        let analysis = analyze(&recorded.path, options).map_err(|error| unreadable(&error))?;
        let (frames, stacks) = self.symbolize(&analysis);
        let files = analysis.modules.iter().map(|module| module.path.as_slice());
        let found = self.allocators.of(&analysis.process.exe, files);
        let mut image = image(analysis, frames, stacks);
        image.process.static_allocators = found;
        Ok(image)
    }

    /// Modules whose names cannot be told: (path, why).
    pub fn unresolved(&self) -> impl Iterator<Item = (&Path, &'static str)> {
        self.resolver.unusable().iter().map(|(file, why)| (file.path(), why.text()))
    }

    fn symbolize(&mut self, analysis: &ProcessAnalysis) -> (Vec<StackFrame>, Vec<Stack>) {
        let modules: Vec<Mapped> = analysis.modules.iter().map(mapped).collect();
        let wanted = analysis.frames().iter().map(|frame| (frame.module, frame.address));
        let (mut done, total, progress) = (0, analysis.frames().len() as u64, &mut self.progress);
        let table = FrameTable::new(&modules, wanted, &mut self.resolver, |more| {
            done += more;
            progress(ANALYSIS_SHARE + (1.0 - ANALYSIS_SHARE) * part(done, total));
        });
        let stacks = stacks(analysis, &table);
        (table.into_frames(), stacks)
    }
}

fn part(done: u64, total: u64) -> f64 {
    if total == 0 { 1.0 } else { done as f64 / total as f64 }
}

fn mapped(module: &memscope_shared::analysis::modules::Module) -> Mapped {
    let file = ModuleFile { path: module.path.clone(), build_id: module.build_id.clone() };
    Mapped { file, bias: module.bias }
}

/// A site's number is that of its stack, counted from 1.
fn stacks(analysis: &ProcessAnalysis, table: &FrameTable) -> Vec<Stack> {
    let of_frame: Vec<&[u32]> =
        analysis.frames().iter().map(|&Frame { address, module }| table.of(module, address)).collect();
    let stack = |(at, site): (usize, &memscope_shared::analysis::Site)| {
        let trace = analysis.trace(at);
        let inlined = trace.frames.iter().filter_map(|frame| of_frame.get(*frame as usize));
        Stack {
            id: at as u64 + 1,
            frames: inlined.flat_map(|frames| frames.iter().copied()).collect(),
            truncated: trace.truncated,
            guessed: trace.guessed,
            stats: site.stats,
        }
    };
    analysis.sites.iter().enumerate().map(stack).collect()
}

fn image(analysis: ProcessAnalysis, frames: Vec<StackFrame>, stacks: Vec<Stack>) -> Image {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let process = Process {
        pid: analysis.process.pid,
        parent_pid: analysis.process.parent_pid,
        exe: text(&analysis.process.exe),
        args: analysis.process.args.iter().map(|arg| text(arg)).collect(),
        start_time: analysis.start_time,
        end_time: analysis.end_time,
        end: analysis.end,
        exit_code: analysis.exit_code,
        signal: analysis.signal,
        complete: analysis.is_complete(),
        incomplete_reason: analysis.incomplete_reason,
        incomplete_since: analysis.incomplete_since,
        stats: analysis.stats,
        allocations_included: analysis.allocations.included(),
        allocations: Vec::new(),
        frames,
        stacks,
        threads: analysis.threads,
        timeline: analysis.timeline,
        lifetime_histogram: analysis.lifetime_histogram,
        variables: analysis.variables,
        modules: analysis.modules.iter().map(module).collect(),
        static_allocators: Vec::new(),
    };
    Image { process, allocations: analysis.allocations, notes: analysis.notes }
}

fn module(module: &memscope_shared::analysis::modules::Module) -> Module {
    let hex: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    Module {
        path: String::from_utf8_lossy(&module.path).into_owned(),
        build_id: (!hex.is_empty()).then_some(hex),
        start: module.start,
        end: module.end,
    }
}

/// The single allocations as the snapshot lists them.
pub fn infos(allocations: &Allocations) -> impl Iterator<Item = io::Result<AllocationInfo>> {
    allocations.iter().map(|allocation| allocation.map(|allocation| info(allocations, &allocation)))
}

fn info(allocations: &Allocations, allocation: &Allocation) -> AllocationInfo {
    let lifetime_ns = allocation.end.saturating_sub(allocation.start);
    let lives = allocation.freed_by == FreedBy::Live;
    let name = allocations.name(allocation.name).cloned().unwrap_or_default();
    AllocationInfo {
        ptr: allocation.address as usize,
        size: allocation.size as usize,
        timestamp_alloc: allocation.start,
        // Never before the start, whatever two processors' clocks said.
        timestamp_dealloc: (!lives).then(|| allocation.start + lifetime_ns),
        var_name: name.variable,
        type_name: name.type_name,
        scope_name: name.scope,
        is_leaked: allocation.freed_by == FreedBy::Exit,
        lifetime_ms: Some(lifetime_ns / 1_000_000),
        lifetime_ns,
        freed_by: allocation.freed_by,
        thread_id: u64::from(allocation.thread),
        dealloc_thread_id: (allocation.end_thread != 0).then_some(u64::from(allocation.end_thread)),
        stack_id: Some(u64::from(allocation.site) + 1),
        ..AllocationInfo::default()
    }
}

/// Which allocations the command line asks for.
pub fn wanted(listed: Option<Listed>) -> Wanted {
    match listed {
        None => Wanted::Default,
        Some(Listed::All) => Wanted::All,
        Some(Listed::Live) => Wanted::Live,
        Some(Listed::None) => Wanted::None,
    }
}
