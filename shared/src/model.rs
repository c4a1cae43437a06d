//! The snapshot: what a recording says, as the JSON, the HTML report and the terminal show it.
//!
//! Times are nanoseconds since the Unix epoch, sizes bytes, unless a field says otherwise.

use serde::{Deserialize, Serialize};

/// Version of the JSON's shape.
pub const SCHEMA_VERSION: u32 = 1;

/// A whole recording.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Program and version that made the snapshot.
    pub generator: String,
    /// The command that was recorded.
    pub command: Vec<String>,
    /// False where events of any process were lost or cut.
    pub complete: bool,
    /// Why it is incomplete.
    pub incomplete_reason: Option<String>,
    /// Since when.
    pub incomplete_since: Option<u64>,
    /// Programs that were started but could not be recorded, in order of time.
    #[serde(default)]
    pub unrecorded: Vec<Unrecorded>,
    /// The process images, in order of start; the first is the command itself.
    pub processes: Vec<Process>,
}

/// A program that was started but could not be recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unrecorded {
    /// Process id.
    pub pid: u32,
    /// Process id of the parent.
    pub parent_pid: u32,
    /// Absolute path of the executable; of a script, of its interpreter.
    pub exe: String,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// When it was started.
    pub start_time: u64,
    /// Why it could not be recorded.
    pub reason: String,
}

/// One process image: from its start or `exec` to its end or next `exec`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Process id of the parent.
    pub parent_pid: u32,
    /// Absolute path of the executable.
    pub exe: String,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// When the image started.
    pub start_time: u64,
    /// When it ended; where nobody saw the end, the last event's time.
    pub end_time: u64,
    /// How it ended.
    pub end: End,
    /// Exit status, where it is known.
    pub exit_code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// False where events of this image were lost or cut.
    pub complete: bool,
    /// Why it is incomplete.
    pub incomplete_reason: Option<String>,
    /// Since when.
    pub incomplete_since: Option<u64>,
    /// Totals.
    pub stats: Stats,
    /// Which allocations `allocations` lists.
    pub allocations_included: Included,
    /// Single allocations, in order of `timestamp_alloc`.
    #[serde(default)]
    pub allocations: Vec<AllocationInfo>,
    /// Each distinct frame once.
    pub frames: Vec<StackFrame>,
    /// Each distinct stack once.
    pub stacks: Vec<Stack>,
    /// The main thread, and those that allocated or freed.
    pub threads: Vec<Thread>,
    /// Memory over time: up to 2,000 points, the peak among them.
    pub timeline: Vec<TimelinePoint>,
    /// How long blocks lived.
    pub lifetime_histogram: Vec<HistogramBucket>,
    /// Named variables, those with the highest peak first. Over all blocks, whatever `allocations` lists.
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// Mapped files.
    pub modules: Vec<Module>,
    /// Allocators that are linked into a module and that `malloc` does not lead to: what they hand out is not in the
    /// recording.
    #[serde(default)]
    pub static_allocators: Vec<StaticAllocator>,
}

/// An allocator that is linked into a module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticAllocator {
    /// What it is called.
    pub name: String,
    /// Path of the module.
    pub module: String,
}

/// How a process image ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// `exit`, `quick_exit` or a return from `main`.
    #[serde(rename = "exit")]
    Exit,
    /// `_exit` or `_Exit`.
    #[serde(rename = "_exit")]
    UnderscoreExit,
    /// Killed by a signal.
    #[serde(rename = "signal")]
    Signal,
    /// Replaced by `exec`.
    #[serde(rename = "exec")]
    Exec,
    /// Still running when the snapshot was made.
    #[serde(rename = "running")]
    Running,
    /// Nobody saw it.
    #[default]
    #[serde(rename = "unknown")]
    Unknown,
}

/// Which single allocations a snapshot lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Included {
    /// Every one.
    All,
    /// Those that were live at the end.
    Live,
    /// None.
    #[default]
    None,
}

/// Totals of a process image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Successful allocations.
    pub total_allocations: u64,
    /// Bytes that they asked for.
    pub total_allocated: u64,
    /// Blocks freed.
    pub total_deallocations: u64,
    /// Bytes freed.
    pub total_deallocated: u64,
    /// Blocks live at the end.
    pub active_allocations: u64,
    /// Bytes live at the end.
    pub active_memory: u64,
    /// Highest sum of live bytes.
    pub peak_memory: u64,
    /// When it was first reached.
    pub peak_time: u64,
    /// Live blocks at that time.
    pub peak_allocations: u64,
    /// `realloc` calls on live blocks that succeeded.
    pub reallocations: u64,
    /// Calls that failed.
    pub failed_allocations: u64,
    /// Frees of blocks that were never seen allocated.
    pub unknown_frees: u64,
    /// Frees, in a forked child, of blocks of its parent.
    pub inherited_frees: u64,
    /// Events that were counted but not recorded.
    pub lost_events: u64,
    /// The main thread, and those that allocated or freed.
    pub threads: u64,
}

/// One block's life.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AllocationInfo {
    /// Address.
    pub ptr: usize,
    /// Bytes asked for.
    pub size: usize,
    /// When it was allocated.
    pub timestamp_alloc: u64,
    /// When it was freed, or when the process ended; `None` only while the process runs.
    pub timestamp_dealloc: Option<u64>,
    /// Name of the variable that owns it.
    pub var_name: Option<String>,
    /// That variable's type.
    pub type_name: Option<String>,
    /// That variable's scope.
    pub scope_name: Option<String>,
    /// The stack, where asked for; else see `stack_id`.
    pub stack_trace: Option<Vec<StackFrame>>,
    /// Times that the variable was borrowed.
    pub borrow_count: usize,
    /// Still live when the process ended.
    pub is_leaked: bool,
    /// Lifetime in whole ms, rounded down. Never null.
    pub lifetime_ms: Option<u64>,
    /// Lifetime in ns.
    pub lifetime_ns: u64,
    /// What ended it.
    pub freed_by: FreedBy,
    /// Thread that allocated it.
    pub thread_id: u64,
    /// Thread that freed it.
    pub dealloc_thread_id: Option<u64>,
    /// Index into `stacks`, by its `id`.
    pub stack_id: Option<u64>,
}

/// What ended a block's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FreedBy {
    /// `free`, `delete` or the drop of a tracked variable.
    #[default]
    Free,
    /// `realloc`.
    Realloc,
    /// The end of the process.
    Exit,
    /// Nothing: it lives, and so does the process.
    Live,
}

/// One frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StackFrame {
    /// Demangled name.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Path of the mapped file.
    pub module: Option<String>,
    /// Return address less one; the exact pc for an interrupted frame.
    pub address: u64,
    /// Inlined into the next frame.
    pub inlined: bool,
}

/// One distinct stack.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stack {
    /// Its number.
    pub id: u64,
    /// Indices into `frames`; the caller of the allocation function first.
    pub frames: Vec<u32>,
    /// Outer frames are missing.
    pub truncated: bool,
    /// A frame was found by a frame pointer, without unwind information.
    pub guessed: bool,
    /// Sums over all its allocations.
    pub stats: SiteStats,
}

/// Sums over all allocations of one stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteStats {
    /// Count.
    pub allocations: u64,
    /// Bytes.
    pub allocated: u64,
    /// Freed count.
    pub deallocations: u64,
    /// Freed bytes.
    pub deallocated: u64,
    /// Live count at the end.
    pub active_allocations: u64,
    /// Live bytes at the end.
    pub active_memory: u64,
    /// This site's own peak.
    pub peak_memory: u64,
    /// Its live bytes at the process's `peak_time`.
    pub memory_at_peak: u64,
    /// Lifetimes; live blocks counted to the end.
    pub lifetime_ns: Lifetimes,
    /// Allocations that lived under 1 ms.
    pub short_lived: u64,
}

/// Summary of lifetimes in ns; the quantiles are within 5 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetimes {
    /// Shortest.
    pub min: u64,
    /// Longest.
    pub max: u64,
    /// Mean.
    pub mean: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
}

/// What the variables of one name, type and scope have owned, from the moment at which each block got its name; a block that got another
/// one later counts for both. Where another thread ends a block as soon as it was named, the clocks leave open which block was
/// meant: such a one is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Name of the variable.
    pub var_name: String,
    /// Its type.
    pub type_name: Option<String>,
    /// Its scope.
    pub scope_name: Option<String>,
    /// Count of blocks.
    pub allocations: u64,
    /// Bytes.
    pub allocated: u64,
    /// Live count at the end.
    pub active_allocations: u64,
    /// Live bytes at the end.
    pub active_memory: u64,
    /// The most bytes that were live under this name at once.
    pub peak_memory: u64,
    /// Lifetimes; live blocks counted to the end.
    pub lifetime_ns: Lifetimes,
    /// Blocks that lived under 1 ms.
    pub short_lived: u64,
}

/// One thread.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Thread {
    /// Its number, never reused; the main thread is 1.
    pub id: u64,
    /// Name.
    pub name: Option<String>,
    /// First seen.
    pub start_time: u64,
    /// Its end, where seen.
    pub end_time: Option<u64>,
}

/// Memory at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelinePoint {
    /// When.
    pub time: u64,
    /// Live bytes.
    pub active_memory: u64,
    /// Live blocks.
    pub active_allocations: u64,
    /// Resident set, bytes.
    pub rss: Option<u64>,
}

/// Blocks that lived up to a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramBucket {
    /// Upper bound in ns (exclusive), above the bucket before; `None`: no bound.
    pub upto_ns: Option<u64>,
    /// Count.
    pub allocations: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One mapped file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Path.
    pub path: String,
    /// GNU build-id in hex.
    pub build_id: Option<String>,
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}
