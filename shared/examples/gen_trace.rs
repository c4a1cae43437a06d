//! Makes big traces, and measures how fast and in how much memory they are analysed.
//!
//! ```text
//! cargo run --release -p memscope-shared --features analysis --example gen_trace -- \
//!     write big.trace --events 200000000 --threads 8 --live 100000 --stacks 5000
//! cargo run --release -p memscope-shared --features analysis --example gen_trace -- \
//!     measure big.trace [--allocations all|live|none]
//! ```
//!
//! Each thread frees a block for each one that it allocates, most soon, some late, one in 20 of another
//! thread's; addresses are given out again, the last freed first.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use memscope_shared::analysis::{Options, ProcessAnalysis, Wanted, analyze};
use memscope_shared::record::{head, kind, thread_operand};
use memscope_shared::trace::{
    Block, ClockKind, ClockSample, Encoder, End, EndKind, MemorySample, Process, Zstd, frame, meta,
};

const HELP: &str = "usage: gen_trace write FILE [--events N] [--threads N] [--live N] [--stacks N]
       gen_trace measure FILE [--allocations all|live|none]";
/// Words of a frame.
const FRAME_WORDS: usize = 1 << 17;
/// Steps of the clock in a second.
const HZ: u64 = 2_600_000_000;
/// Frames of a stack.
const DEPTH: u32 = 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((command, rest)) if command == "write" => write(rest),
        Some((command, rest)) if command == "measure" => measure(rest),
        _ => Err(HELP.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// The file, and the values of options.
fn parse<'a>(args: &'a [String], mut option: impl FnMut(&str, &'a str) -> Result<()>) -> Result<&'a Path> {
    let (file, mut rest) = args.split_first().ok_or(HELP)?;
    while let [name, value, others @ ..] = rest {
        option(name, value)?;
        rest = others;
    }
    if rest.is_empty() { Ok(Path::new(file)) } else { Err(HELP.into()) }
}

fn measure(args: &[String]) -> Result<()> {
    let mut allocations = Wanted::Default;
    let path = parse(args, |name, value| {
        allocations = match (name, value) {
            ("--allocations", "all") => Wanted::All,
            ("--allocations", "live") => Wanted::Live,
            ("--allocations", "none") => Wanted::None,
            _ => return Err(HELP.into()),
        };
        Ok(())
    })?;
    let begin = Instant::now();
    let analysis = analyze(path, Options { allocations, ..Options::default() })?;
    let took = begin.elapsed();
    let listed = analysis.allocations.iter().try_fold(0u64, |count, item| item.map(|_| count + 1))?;
    print(&analysis, took, listed, begin.elapsed() - took);
    Ok(())
}

fn print(analysis: &ProcessAnalysis, took: Duration, listed: u64, listing: Duration) {
    let stats = &analysis.stats;
    let events = stats.total_allocations + stats.total_deallocations + stats.unknown_frees;
    println!("events       {events}");
    println!("unknown      {}", stats.unknown_frees);
    println!("live at end  {}", stats.active_allocations);
    println!("peak         {} bytes in {} blocks", stats.peak_memory, stats.peak_allocations);
    println!("sites        {}", analysis.sites.len());
    println!("complete     {}", analysis.incomplete_reason.as_deref().unwrap_or("yes"));
    println!("time         {:.2} s", took.as_secs_f64());
    println!("events/s     {:.1} M", events as f64 / took.as_secs_f64() / 1e6);
    println!("listed       {listed} in {:.2} s", listing.as_secs_f64());
    println!("peak RSS     {:.1} MiB", peak_rss() as f64 / 1024.0);
}

/// Of this process, in KiB.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What to make.
#[derive(Clone, Copy)]
struct Plan {
    events: u64,
    threads: u32,
    live: u64,
    stacks: u32,
}

fn write(args: &[String]) -> Result<()> {
    let mut plan = Plan { events: 20_000_000, threads: 4, live: 100_000, stacks: 5_000 };
    let path = parse(args, |name, value| {
        let number: u64 = value.parse()?;
        match name {
            "--events" => plan.events = number,
            "--threads" => plan.threads = u32::try_from(number)?.max(1),
            "--live" => plan.live = number,
            "--stacks" => plan.stacks = u32::try_from(number)?.max(1),
            _ => return Err(HELP.into()),
        }
        Ok(())
    })?;
    let begin = Instant::now();
    let mut writer = Writer::create(path)?;
    let events = Program::new(plan).run(&mut writer)?;
    let bytes = writer.finish()?;
    println!(
        "{}: {events} events, {bytes} bytes, {:.2} bytes/event, {:.1} s",
        path.display(),
        bytes as f64 / events as f64,
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Encodes streams into a file.
struct Writer {
    out: BufWriter<File>,
    path: PathBuf,
    encoder: Encoder,
    zstd: Zstd,
    frames: Vec<u8>,
    last: u64,
}

impl Writer {
    fn create(path: &Path) -> Result<Self> {
        let out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let zstd = Zstd::new().ok_or("no compressor")?;
        let (encoder, frames, path) = (Encoder::new(), Vec::new(), path.to_owned());
        let mut writer = Self { out, path, encoder, zstd, frames, last: 0 };
        let process = Process {
            pid: u32::MAX,
            exe: b"/made/up".to_vec(),
            args: vec![b"made-up".to_vec()],
            clock: ClockKind::Tsc,
            clock_hz: HZ,
            ..Process::default()
        };
        writer.frames.extend(frame::file_header());
        meta::write_process(&mut writer.frames, &process);
        writer.clock(0);
        writer.flush()?;
        Ok(writer)
    }

    fn clock(&mut self, stamp: u64) {
        let ns = (u128::from(stamp) * 1_000_000_000 / u128::from(HZ)) as u64;
        let sample = ClockSample { stamp, monotonic_ns: ns, realtime_ns: 1_700_000_000_000_000_000 + ns };
        meta::write_clock(&mut self.frames, &[sample]);
        meta::write_memory(&mut self.frames, &[MemorySample { stamp, rss_bytes: 1 << 20 }]);
        self.last = stamp;
    }

    /// A block of a thread's stream.
    fn block(&mut self, thread: u32, position: u64, words: &[u64], now: u64) -> io::Result<()> {
        let block = Block { stream: thread, thread, position };
        self.encoder.encode(&mut self.zstd, block, words, &mut self.frames);
        if now > self.last + HZ / 10 {
            self.clock(now);
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.frames)?;
        self.frames.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        let end = End {
            kind: EndKind::Exit,
            exit_code: Some(0),
            stamp: self.last,
            complete: true,
            ..End::default()
        };
        meta::write_end(&mut self.frames, &end);
        self.flush()?;
        self.out.flush()?;
        Ok(std::fs::metadata(&self.path)?.len())
    }
}

/// A thread of the made-up program.
struct Thread {
    words: Vec<u64>,
    position: u64,
    /// Blocks that go soon, and those that stay: address and class.
    young: VecDeque<(u64, usize)>,
    old: VecDeque<(u64, usize)>,
}

/// The made-up program.
struct Program {
    plan: Plan,
    threads: Vec<Thread>,
    free: Vec<Vec<u64>>,
    top: u64,
    now: u64,
    random: u64,
    events: u64,
}

impl Program {
    fn new(plan: Plan) -> Self {
        let thread = |_| Thread {
            words: Vec::with_capacity(FRAME_WORDS + 1024),
            position: 0,
            young: VecDeque::new(),
            old: VecDeque::new(),
        };
        let threads = (0..plan.threads).map(thread).collect();
        let free = vec![Vec::new(); 64];
        Self { plan, threads, free, top: 0x5555_5555_0000, now: HZ, random: 1, events: 0 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(bound)) >> 64) as u64
    }

    fn run(mut self, writer: &mut Writer) -> Result<u64> {
        for thread in 0..self.plan.threads {
            let head = head(kind::THREAD_START, thread_operand(thread + 1, thread + 1));
            let words = [head, self.now, u64::from_le_bytes(*b"worker\0\0"), 0];
            self.threads[thread as usize].words.extend(words);
        }
        self.stacks();
        while self.events < self.plan.events {
            // A thread runs for a while, then another one; all of them at once, for the clock.
            let thread = self.below(u64::from(self.plan.threads)) as usize;
            for _ in 0..1 + self.below(4) {
                self.step(thread);
            }
            if self.threads[thread].words.len() >= FRAME_WORDS {
                self.write(thread, writer)?;
            }
        }
        for thread in 0..self.threads.len() {
            self.write(thread, writer)?;
        }
        writer.clock(self.now + HZ);
        Ok(self.events)
    }

    fn write(&mut self, thread: usize, writer: &mut Writer) -> io::Result<()> {
        let state = &mut self.threads[thread];
        writer.block(thread as u32 + 1, state.position, &state.words, self.now)?;
        state.position += state.words.len() as u64;
        state.words.clear();
        Ok(())
    }

    /// Nodes of all stacks: below one root, each with its own leaf frames. Leaf number `n` gets id `(n + 2) * DEPTH`.
    fn stacks(&mut self) {
        let mut node = |kind, pc, id: u32, parent: u32| {
            self.threads[0].words.extend([head(kind, pc), u64::from(id) << 32 | u64::from(parent)]);
        };
        node(kind::NODE_ROOT, 0, 1, 0);
        for stack in 0..self.plan.stacks {
            for level in 0..DEPTH {
                let id = stack * DEPTH + level + 1 + DEPTH;
                let parent = if level == 0 { 1 } else { id - 1 };
                node(kind::NODE, 0x40_0000 + u64::from(id) * 7, id, parent);
            }
        }
    }

    fn step(&mut self, thread: usize) {
        let share = self.plan.live / u64::from(self.plan.threads);
        let state = &self.threads[thread];
        let (young, old) = (state.young.len() as u64, state.old.len() as u64);
        if young > 8 + self.below(30) {
            let owner =
                if self.below(20) == 0 { self.below(u64::from(self.plan.threads)) as usize } else { thread };
            let back = self.below(4) as usize;
            let young = &mut self.threads[owner].young;
            let at = young.len().saturating_sub(1 + back);
            if let Some(block) = young.remove(at) {
                self.end(thread, block);
            }
        } else if old > share {
            let block = self.threads[thread].old.pop_front().unwrap_or_default();
            self.end(thread, block);
        } else {
            self.start(thread);
        }
        // Steps of 10 ns, as many processors' counters make them.
        self.now += (1 + self.below(6)) * 26;
        self.events += 1;
    }

    fn start(&mut self, thread: usize) {
        let bits = 4 + self.below(6);
        let size = 1 + self.below(1 << bits);
        let class = (size / 16) as usize % self.free.len();
        let address = self.free[class].pop().unwrap_or_else(|| {
            self.top += (class as u64 + 1) * 16;
            self.top
        });
        let (a, b) = (self.below(u64::from(self.plan.stacks)), self.below(u64::from(self.plan.stacks)));
        let stack = (a * b / u64::from(self.plan.stacks) + 2) * u64::from(DEPTH);
        let stays = self.below(50) == 0;
        let state = &mut self.threads[thread];
        state.words.extend([head(kind::ALLOC, address), self.now, stack << 32 | size]);
        let list = if stays { &mut state.old } else { &mut state.young };
        list.push_back((address, class));
    }

    fn end(&mut self, thread: usize, (address, class): (u64, usize)) {
        self.threads[thread].words.extend([head(kind::FREE, address), self.now]);
        self.free[class].push(address);
    }
}
