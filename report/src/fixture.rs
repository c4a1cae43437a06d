//! Snapshots for tests: plausible, big where asked for, with names that try to break a report.

use memscope_shared::model::{
    End, HistogramBucket, Lifetimes, Module, Process, SCHEMA_VERSION, SiteStats, Snapshot, Stack, StackFrame,
    Stats, Thread, TimelinePoint, Unrecorded,
};

/// What is written as a name by somebody who means harm.
pub const HOSTILE: [&str; 8] = [
    "</script><script>alert(1)</script>",
    "<!-- <script> -->",
    "\"quoted\" 'names' \\ back\\slashes\\u003c",
    "line\u{2028}and\u{2029}paragraph",
    "\u{1b}[31mred\u{1b}]0;title\u{7}\nnew line\r\ttab",
    "right\u{202e}tfel\u{202c}",
    "<img src=x onerror=alert(1)>&amp;",
    "\u{0}nul\u{fffd}",
];

const FUNCTIONS: [&str; 24] = [
    "parse_value",
    "json::Parser::parse_object(json::Reader&, unsigned int)",
    "app::cache::Cache<K,V>::insert",
    "<app::config::Config as serde::de::Deserialize>::deserialize",
    "std::vector<std::pair<std::__cxx11::basic_string<char>, json::Value>>::_M_realloc_insert(json::Value&&)",
    "alloc::raw_vec::RawVec<T,A>::grow_one",
    "<alloc::vec::Vec<T> as alloc::vec::spec_from_iter::SpecFromIter<T,I>>::from_iter",
    "void net::Session<boost::asio::ip::tcp, net::Settings<512> >::on_read(boost::system::error_code const&, unsigned long)",
    "render::Größe::berechnen",
    "索引::构建(文档)",
    "xmalloc",
    "hash_table_expand",
    "operator new(unsigned long)",
    "tokio::runtime::task::harness::Harness<T,S>::poll",
    "(anonymous namespace)::Visitor::operator()(ast::Node const&) const",
    "read_file",
    "sqlite3VdbeExec",
    "sqlite3MemMalloc",
    "ast_new_node",
    "lexer_next",
    "string_builder_append",
    "worker_loop",
    "dispatch",
    "eval_expression",
];

/// Small numbers that look random and never change.
pub struct Dice(u64);

impl Dice {
    /// Up to `below`, exclusive.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }

    /// A size or a count: small ones often, large ones seldom.
    fn skewed(&mut self, bits: u64) -> u64 {
        let bits = 1 + self.roll(bits);
        self.roll(1 << bits) + 1
    }
}

const START: u64 = 1_700_000_000_123_456_789;

/// A snapshot of one process with that many stacks, each of about that depth.
pub fn snapshot(stacks: usize, depth: usize) -> Snapshot {
    Snapshot {
        schema_version: SCHEMA_VERSION,
        generator: "memscope-cli 0.1.0".to_owned(),
        command: ["./server", "--config", "my config.toml", "größe=4"].map(str::to_owned).to_vec(),
        complete: true,
        processes: vec![process(4242, 1, stacks, depth)],
        ..Snapshot::default()
    }
}

/// A program that could not be recorded.
fn unrecorded(name: &str, pid: u32) -> Unrecorded {
    Unrecorded {
        pid,
        parent_pid: 4242,
        exe: format!("/bin/{name}"),
        args: vec![name.to_owned(), "-x".to_owned()],
        start_time: START,
        reason: "it is statically linked".to_owned(),
    }
}

/// A snapshot of a shell, what it starts, and their ends of every kind.
pub fn family(children: usize) -> Snapshot {
    let mut snapshot = snapshot(40, 12);
    snapshot.command = ["make", "-j2", "all"].map(str::to_owned).to_vec();
    snapshot.unrecorded = HOSTILE.iter().zip(9000..).map(|(name, pid)| unrecorded(name, pid)).collect();
    snapshot.complete = false;
    snapshot.incomplete_reason = Some("the output directory's file system is full".to_owned());
    snapshot.incomplete_since = Some(START + 2_100_000_000);
    let ends = [End::Exit, End::Exec, End::Signal, End::UnderscoreExit, End::Unknown, End::Running];
    for child in 0..children {
        let parent = if child % 3 == 2 { 4242 + child as u32 } else { 4242 };
        let stacks = if child == 4 { 2000 } else { 5 + child % 90 };
        let mut process = process(4243 + child as u32, parent, stacks, 10);
        process.exe = format!("/usr/bin/{}", ["sh", "cc1plus", "as", "ld", "rustc"][child % 5]);
        process.args = vec![process.exe.clone(), "-O2".to_owned(), format!("file{child}.cc")];
        process.end = ends[child % ends.len()];
        process.exit_code =
            matches!(process.end, End::Exit | End::UnderscoreExit).then_some((child % 2) as i32);
        process.signal = (process.end == End::Signal).then_some(9);
        if child == 2 {
            process.complete = false;
            process.incomplete_reason = Some("its shared memory is gone".to_owned());
            process.incomplete_since = Some(process.start_time + 700_000_000);
            process.stats.lost_events = 1234;
        }
        snapshot.processes.push(process);
    }
    snapshot
}

fn process(pid: u32, parent_pid: u32, stacks: usize, depth: usize) -> Process {
    let mut dice = Dice(u64::from(pid));
    let modules = modules();
    let frames = frames(&mut dice, &modules, (stacks / 3).clamp(120, 20_000));
    let mut process = Process {
        pid,
        parent_pid,
        exe: "/usr/local/bin/server".to_owned(),
        args: ["./server", "--config", "my config.toml", "größe=4"].map(str::to_owned).to_vec(),
        start_time: START,
        end_time: START + 3_210_000_000,
        end: End::Exit,
        exit_code: Some(0),
        complete: true,
        stacks: (1..=stacks as u64).map(|id| stack(&mut dice, id, frames.len() as u64, depth)).collect(),
        frames,
        threads: threads(),
        modules,
        ..Process::default()
    };
    process.stats = totals(&process.stacks);
    process.timeline = timeline(&mut dice, &process.stats);
    process.lifetime_histogram = histogram(&mut dice, &process.stats);
    process
}

fn modules() -> Vec<Module> {
    let paths = [
        "/usr/local/bin/server",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libstdc++.so.6.0.30",
        "/usr/lib/x86_64-linux-gnu/libsqlite3.so.0.8.6",
        "/opt/it's a path/<b>lib</b>.so",
    ];
    let module = |(at, path): (u64, &&str)| Module {
        path: (*path).to_owned(),
        build_id: (at != 3).then(|| format!("{:040x}", 0x1234_5678_9abc_def0_u64 + at)),
        start: 0x5555_0000_0000 + (at << 24),
        end: 0x5555_0000_0000 + (at << 24) + 0x12_3000,
    };
    (0..).zip(&paths).map(module).collect()
}

fn frames(dice: &mut Dice, modules: &[Module], count: usize) -> Vec<StackFrame> {
    let frame = |at: usize| {
        let name = match at {
            0 => "main".to_owned(),
            1..=8 => HOSTILE[at - 1].to_owned(),
            _ if at < 9 + FUNCTIONS.len() => FUNCTIONS[at - 9].to_owned(),
            _ => format!("{}_{at}", FUNCTIONS[dice.roll(FUNCTIONS.len() as u64) as usize]),
        };
        let known = at % 11 != 7;
        StackFrame {
            function: (at % 17 != 16).then_some(name),
            file: known.then(|| format!("/home/user/project/src/part{}/file_{}.cc", at % 7, at % 43)),
            line: known.then(|| 1 + dice.roll(2000) as u32),
            column: at.is_multiple_of(2).then_some(9),
            module: Some(
                modules[if at == 0 { 0 } else { dice.roll(9).saturating_sub(4) as usize }].path.clone(),
            ),
            address: 0x5555_0000_0000 + dice.roll(1 << 26),
            inlined: at % 5 == 3,
        }
    };
    (0..count).map(frame).collect()
}

fn stack(dice: &mut Dice, id: u64, frames: u64, depth: usize) -> Stack {
    let depth = 1 + depth.saturating_sub(dice.roll(4) as usize);
    let mut indices: Vec<u32> = (1..depth).map(|_| dice.roll(frames) as u32).collect();
    // Leaves gather on few frames, as they do in programs.
    if let Some(leaf) = indices.first_mut() {
        *leaf = (dice.skewed(7) % frames) as u32;
    }
    indices.push(0);
    let allocations = dice.skewed(14);
    let size = dice.skewed(13);
    let live = if dice.roll(4) == 0 { dice.roll(allocations / 9 + 2).min(allocations) } else { 0 };
    let p50 = dice.skewed(31);
    Stack {
        id,
        frames: indices,
        truncated: dice.roll(9) == 0,
        guessed: dice.roll(13) == 0,
        stats: SiteStats {
            allocations,
            allocated: allocations * size,
            deallocations: allocations - live,
            deallocated: (allocations - live) * size,
            active_allocations: live,
            active_memory: live * size,
            peak_memory: (allocations * size / 2).max(live * size),
            memory_at_peak: (allocations * size / (2 + dice.roll(30))).max(live * size / 2),
            lifetime_ns: Lifetimes {
                min: p50 / 7,
                p50,
                mean: p50 + p50 / 3,
                p90: p50 * 2,
                p99: p50 * 5,
                max: (p50 * 9).min(3_210_000_000).max(p50 * 5),
            },
            short_lived: if p50 < 1_000_000 { allocations - allocations / 5 } else { allocations / 9 },
        },
    }
}

fn totals(stacks: &[Stack]) -> Stats {
    let sum = |field: fn(&SiteStats) -> u64| stacks.iter().map(|stack| field(&stack.stats)).sum();
    Stats {
        total_allocations: sum(|s| s.allocations),
        total_allocated: sum(|s| s.allocated),
        total_deallocations: sum(|s| s.deallocations),
        total_deallocated: sum(|s| s.deallocated),
        active_allocations: sum(|s| s.active_allocations),
        active_memory: sum(|s| s.active_memory),
        peak_memory: sum(|s| s.memory_at_peak),
        peak_time: START + 2_000_000_000,
        peak_allocations: sum(|s| s.allocations) / 9,
        reallocations: 1234,
        failed_allocations: 0,
        unknown_frees: 3,
        inherited_frees: 0,
        lost_events: 0,
        threads: 5,
    }
}

fn threads() -> Vec<Thread> {
    let thread = |id: u64| Thread {
        id,
        name: [Some("server"), Some("worker-1"), None, Some("wörker <b>2</b>"), Some("io")][id as usize - 1]
            .map(str::to_owned),
        start_time: START + (id - 1) * 17_000_000,
        end_time: (id != 4).then_some(START + 3_000_000_000),
    };
    (1..=5).map(thread).collect()
}

fn timeline(dice: &mut Dice, stats: &Stats) -> Vec<TimelinePoint> {
    const POINTS: u64 = 1000;
    let point = |at: u64| {
        let time = START + at * 3_210_000_000 / (POINTS - 1);
        let rise = at.min(623) * 1000 / 623;
        let noise = 850 + dice.roll(150);
        let left = if at > 623 { 1000 - (at - 623) * 700 / 377 } else { 1000 };
        let share = |full: u64| full / 1000 * rise / 1000 * noise / 1000 * left;
        TimelinePoint {
            time,
            active_memory: share(stats.peak_memory),
            active_allocations: share(stats.peak_allocations * 1000) / 1000,
            rss: at.is_multiple_of(3).then(|| stats.peak_memory * (40 + rise / 10) / 100 + (9 << 20)),
        }
    };
    let mut points: Vec<_> = (0..POINTS).map(point).collect();
    let peak = points.partition_point(|point| point.time < stats.peak_time);
    points[peak] = TimelinePoint {
        time: stats.peak_time,
        active_memory: stats.peak_memory,
        active_allocations: stats.peak_allocations,
        rss: points[peak].rss,
    };
    points
}

fn histogram(dice: &mut Dice, stats: &Stats) -> Vec<HistogramBucket> {
    let (mut blocks, mut bytes) = (stats.total_allocations, stats.total_allocated);
    let mut bucket = |upto_ns: Option<u64>| {
        let mut part = |left: &mut u64| {
            let part = if upto_ns.is_some_and(|ns| ns < 10_u64.pow(10)) {
                *left * (1 + dice.roll(5)) / 10
            } else {
                *left
            };
            *left -= part;
            part
        };
        HistogramBucket { upto_ns, allocations: part(&mut blocks), bytes: part(&mut bytes) }
    };
    let bounds = (3..=10).map(|power| Some(10_u64.pow(power)));
    bounds.chain([None]).map(&mut bucket).collect()
}
