//! Bringing the recording up and down: [`settings`], the [`directory`], the constructor's work, a forked
//! child's, and the [`end`].

pub mod directory;
pub mod end;
mod environment;
mod export;
mod handoff;
pub mod leaving;
mod listing;
pub mod sandbox;
mod sanitizer;
pub mod settings;
mod threads;

pub use threads::{provide_thread_keys, watch_thread_end};

use crate::children::{self, Inheritance};
use crate::clock::{self, Sample};
use crate::heap;
use crate::process::{self, Phase, Process};
use crate::program::tls::Unrecorded;
use crate::program::{birth, fork, naming};
use crate::spool::file::SpoolFile;
use crate::spool::notes;
use crate::symbols;
use crate::sys::{Errno, file, limits, memory, process as os};
use crate::writer::sink::Sink;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use directory::{Birth, Directory};
use memscope_shared::spool::{header, role};
use memscope_shared::trace::{ClockKind, meta};
use settings::{Format, Settings};
use std::ffi::{CStr, CString};

/// What a recording keeps for children and for its end. Not wiped by a fork.
#[derive(Clone, Debug)]
pub struct Context {
    directory: Directory,
    /// The process that this context belongs to.
    pid: u32,
    /// `memscope-cli run` completes the trace.
    launched: bool,
    auto_export: bool,
    follow: bool,
    thread: bool,
    quiet: bool,
    format: Format,
    export_path: Vec<u8>,
    cli: Option<CString>,
    /// What to say where the process ends by `_exit`, and the export that was asked for is not made; else nothing.
    no_export: Vec<u8>,
    /// There is a library before ours that has a `malloc` of its own; what to say where it has taken all calls, in the first process.
    preceded: Option<Vec<u8>>,
    /// The command that the launcher was given, in the first process.
    command: Vec<Vec<u8>>,
    clock_hz: u64,
}

/// What the recorder maps of a process that does little, 24 MiB, and a third as much for the program.
const ROOM_FOR_BOTH: u64 = 32 << 20;

static CONTEXT: AtomicPtr<Context> = AtomicPtr::new(null_mut());

fn context() -> Option<&'static Context> {
    // SAFETY: contexts are made once per process image and never freed.
    unsafe { CONTEXT.load(Ordering::Acquire).as_ref() }
}

/// One line of ours on stderr.
pub fn say(text: &str) {
    file::complain(format!("memscope: {text}\n").as_bytes());
}

/// The constructor's work: reads the settings, makes directory, spool and trace. Never fails: where nothing
/// can be recorded it says so and steps aside.
pub fn start() {
    let Some(process) = process::get() else { return };
    {
        let _ours = Unrecorded::begin();
        // The main thread is thread 1 and knows the process, whether it has allocated yet or not.
        birth::ensure_begun(process);
        if process.phase() != Phase::Early {
            return;
        }
        // With less than that, there would be nothing left for the program.
        if limits::room_in_memory() < ROOM_FOR_BOTH || !heap::set_reserve_aside() {
            return keep_out(process);
        }
        if let Some(name) = sanitizer::present() {
            sanitizer::list(name);
            sanitizer::say_so(name);
            return step_aside(process);
        }
        match prepare(process) {
            Ok(Some(context)) => CONTEXT.store(Box::into_raw(Box::new(context)), Ordering::Release),
            Ok(None) => return step_aside(process),
            Err((what, error)) => {
                say(&format!("not recording: {what}: {}", error.text()));
                environment::name_nothing();
                return step_aside(process);
            }
        }
        threads::make_key();
        environment::watch_exit();
        environment::watch_forks();
        process.call_threads();
    }
    birth::take_stock();
}

/// The program needs the little memory that its limits leave.
fn keep_out(process: &Process) {
    file::complain(b"memscope: not recording: the program's limit leaves no memory for it\n");
    if heap::has_room(1 << 20) {
        listing::list_this("the program's limit leaves no memory for its recording");
    }
    step_aside(process);
}

fn step_aside(process: &Process) {
    process.set_phase(Phase::Off);
    process.call_threads();
}

/// Reads the settings and opens the recording; `None` where this process is not to be recorded.
fn prepare(process: &'static Process) -> Result<Option<Context>, (String, Errno)> {
    let library = handoff::own_path().unwrap_or_default();
    let by_path = handoff::settings(&library);
    let settings = environment::settings(by_path.as_deref());
    if settings.joins.as_deref() == Some(environment::NOTHING) {
        return Ok(None);
    }
    let wanted = settings.output.as_deref();
    let directory = Directory::make(wanted).map_err(|error| {
        let name = String::from_utf8_lossy(wanted.unwrap_or(b"memscope-PROGRAM-PID")).into_owned();
        (format!("cannot make the recording directory {name} (MEMSCOPE_OUTPUT names another)"), error)
    })?;
    let launched = directory.has_launcher();
    let birth = Birth::of_this_process();
    let first = directory.is_first(&birth);
    if first {
        settings.complaints.iter().for_each(|line| say(line));
    }
    if !first && !launched && settings.joins.as_deref() != Some(directory.path()) {
        let name = String::from_utf8_lossy(directory.path());
        return Err((format!("{name} (set MEMSCOPE_OUTPUT to another directory)"), Errno::HOLDS_RECORDING));
    }
    let led = by_path.is_some() && settings.joins.as_deref() == Some(directory.path());
    hand_on(&directory, &settings, library, led, first);
    if !settings.follow && !first {
        return Ok(None);
    }
    let now = clock::sample();
    let is_later_image = settings.joins.as_deref() == Some(directory.path());
    let start = if is_later_image { settings.start.clone() } else { directory::working().ok() };
    let start = start.filter(|_| settings.auto_export && first && !launched);
    let context = make_context(
        settings.clone(),
        start.as_deref(),
        directory,
        launched,
        first,
        clock_hz(process.first_sample(), now),
    );
    // A process that was found through the library's path has an environment of the program's making.
    if !launched && (!led || environment::names_directory()) {
        environment::name_directory(context.directory.path());
    }
    if let Some(start) = start {
        environment::name_start(&start);
    }
    open(process, &context, None, birth, now).map_err(|error| {
        let name = String::from_utf8_lossy(context.directory.path());
        let remedy = match error {
            Errno(libc::EFBIG) => "`ulimit -f unlimited` takes the limit away",
            _ => "MEMSCOPE_OUTPUT names another directory",
        };
        let why = format!("its recording cannot be made: {}", error.text());
        listing::list(&settings, &why);
        (format!("cannot write into {name} ({remedy})"), error)
    })?;
    Ok(Some(context))
}

/// Sets what the programs that this one starts will find.
fn hand_on(directory: &Directory, settings: &Settings, library: Vec<u8>, led: bool, first: bool) {
    let c_string = |bytes: Vec<u8>| CString::new(bytes).unwrap_or_default();
    let library = c_string(library);
    let leading = if led {
        Some((library.clone(), None))
    } else {
        handoff::leading(directory, settings, library.as_bytes(), first)
    };
    let (leading, folder) = leading.unwrap_or_default();
    children::hand_on(Inheritance {
        leading,
        folder,
        library,
        directory: c_string(directory.path().to_vec()),
        mark: directory.mark(),
        follow: settings.follow,
    });
}

fn make_context(
    settings: Settings,
    start: Option<&[u8]>,
    directory: Directory,
    launched: bool,
    first: bool,
    clock_hz: u64,
) -> Context {
    let path = settings.export_path.unwrap_or_else(|| b"memscope_final_snapshot".to_vec());
    let auto_export = settings.auto_export && first && !launched;
    let mut context = Context {
        no_export: Vec::new(),
        preceded: symbols::preceding(c"malloc").map(|library| match first && !settings.quiet {
            true => end::who_precedes(library.file_name()),
            false => Vec::new(),
        }),
        command: if first && launched { directory.command() } else { Vec::new() },
        directory,
        pid: os::pid(),
        launched,
        auto_export,
        follow: settings.follow,
        thread: settings.thread,
        quiet: settings.quiet,
        format: settings.export_format,
        export_path: start.map_or_else(|| path.clone(), |start| directory::absolute_from(start, &path)),
        cli: settings.cli,
        clock_hz,
    };
    if auto_export {
        context.no_export = format!("memscope: no export after _exit: {}\n", end::remedy(&context)).into();
    }
    context
}

/// The recording of a forked child: its own spool and trace. Runs in the child's first call.
pub fn forked_child(process: &'static Process) {
    naming::forked();
    let Some(parent) = context() else { return process.set_phase(Phase::Off) };
    if !parent.follow {
        return process.set_phase(Phase::Off);
    }
    let context = Context {
        pid: os::pid(),
        auto_export: false,
        command: Vec::new(),
        no_export: Vec::new(),
        preceded: parent.preceded.as_ref().map(|_| Vec::new()),
        ..parent.clone()
    };
    match open(process, &context, Some(parent.pid), Birth::of_this_process(), clock::sample()) {
        Ok(()) => CONTEXT.store(Box::into_raw(Box::new(context)), Ordering::Release),
        Err(error) => {
            process.set_phase(Phase::Off);
            if !is_noted(parent, error) {
                say(&format!("a child process is not recorded: {}", error.text()));
            }
        }
    }
}

/// Leaves a note in the parent's spool about this forked child, which has no recording.
fn is_noted(parent: &Context, error: Errno) -> bool {
    let why = format!("its recording cannot be made: {}", error.text());
    let text = listing::text(parent_pid(Some(parent.pid)), &why);
    notes::leave(os::pid(), &text).is_some()
}

/// Makes spool and trace and goes over to recording.
fn open(
    process: &'static Process,
    context: &Context,
    forked_from: Option<u32>,
    birth: Birth,
    now: Sample,
) -> Result<(), Errno> {
    let samples = [process.first_sample(), now];
    let what = describe_process(context, forked_from, birth);
    let sink = create_files(process, context, what, &samples)?;
    if context.preceded.is_some() {
        process.spool().word(header::PRECEDED).into_iter().for_each(|word| word.set(1));
    }
    process.writer.open(None, Box::new(sink), context.thread);
    process.writer.begin(process);
    process.writer.let_drainer_come(process);
    Ok(())
}

/// The trace with the first number that is not taken, and its spool.
fn create_files(
    process: &Process,
    context: &Context,
    mut what: meta::Process,
    samples: &[Sample],
) -> Result<Sink, Errno> {
    for number in 0.. {
        let path = context.directory.file(&format!("{}-{number}.trace", context.pid));
        match create_pair(process, context, &path, &mut what, samples) {
            // A later image is another program than the one that was asked for.
            Err(Errno::EEXIST) => what.command.clear(),
            other => return other,
        }
    }
    Err(Errno::EEXIST)
}

/// Trace and spool. The trace's draft, which names the spool, comes first: a process that is killed at any moment
/// leaves nothing that nobody knows of.
fn create_pair(
    process: &Process,
    context: &Context,
    path: &CStr,
    what: &mut meta::Process,
    samples: &[Sample],
) -> Result<Sink, Errno> {
    // SAFETY: one thread opens a process's recording, and others can't see the spool before that.
    let spool = unsafe { &mut *process.spool.get() };
    let mut failed = Errno::ENOENT;
    for place in SpoolFile::places(context.directory.path()) {
        spool.name(place)?;
        what.spool = spool.path().to_bytes().to_vec();
        let mut sink = Sink::draft(path, what, samples)?;
        // SAFETY: as above.
        if let Err(error) = unsafe { spool.create(what.start_ticks) } {
            sink.discard();
            failed = error;
            continue;
        }
        expect_drainer(process, context);
        return sink.publish().inspect_err(|_| spool.remove()).map(|()| sink);
    }
    Err(failed)
}

/// `memscope-cli` drains, where that was asked for, once there is something in the trace; it may look as soon as that has its name.
fn expect_drainer(process: &Process, context: &Context) {
    if context.launched && !context.thread {
        let role = process.spool().half(header::ROLE);
        role.into_iter().for_each(|role| role.store(role::BUSY, Ordering::Release));
        process.writer.left.set_on();
    }
}

fn describe_process(context: &Context, forked_from: Option<u32>, birth: Birth) -> meta::Process {
    meta::Process {
        pid: context.pid,
        parent_pid: parent_pid(forked_from),
        start_ticks: birth.start_ticks,
        parent_start_ticks: 0,
        exe: directory::executable(),
        args: os::read_words(c"/proc/self/cmdline"),
        command: context.command.clone(),
        page_size: memory::PAGE as u64,
        clock: if clock::is_tsc() { ClockKind::Tsc } else { ClockKind::Monotonic },
        clock_hz: context.clock_hz,
        spool: Vec::new(),
        forked: forked_from.is_some(),
        execed: false,
        library: env!("CARGO_PKG_VERSION").as_bytes().to_vec(),
        namespace: birth.namespace,
    }
}

/// A parent in another pid namespace has no number in ours: then its own.
fn parent_pid(forked_from: Option<u32>) -> u32 {
    let pid = forked_from.and_then(|_| fork::parent()).unwrap_or_else(os::parent_pid);
    if pid == 0 { forked_from.unwrap_or(0) } else { pid }
}

/// Steps of the clock in a second, by two samples; 0 where they lie too close.
fn clock_hz(from: Sample, to: Sample) -> u64 {
    let ns = u128::from(to.monotonic_ns.saturating_sub(from.monotonic_ns));
    if ns < 20_000 {
        return 0;
    }
    (u128::from(to.stamp.saturating_sub(from.stamp)) * 1_000_000_000 / ns) as u64
}
