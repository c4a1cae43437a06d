//! Draining one process image: what our thread inside of a program does otherwise.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memscope_shared::record::Records;
use memscope_shared::rhythm::{BATCH, POLL, TICK, TICKS_PER_SAMPLE};
use memscope_shared::spool::BUFFER_WORDS;
use memscope_shared::spool::read::{SpoolBuffer, SpoolFile};
use memscope_shared::spool::role::{self, Claim, Word};
use memscope_shared::trace::{Block, ImageState, Process, TraceFile, image_state};

use super::meeting::{self, Buffers, InUse, Meeting};
use super::samples::Samples;
use super::trace::Output;

/// The longest pause between two attempts to claim a trace.
const SELDOM: Duration = Duration::from_secs(1);
/// How long we try to get a trace's lock.
const PATIENCE: Duration = Duration::from_secs(3);
/// No process has more streams; numbers above are nonsense.
const MOST_STREAMS: u64 = 1 << 20;

/// How the rest of `run` reaches a thread that drains.
#[derive(Debug, Default)]
pub struct Served {
    stop: AtomicBool,
    meeting: OnceLock<Meeting>,
}

impl Served {
    /// Tells the thread to take what there is and let go.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.meeting.get().into_iter().for_each(Meeting::ring);
    }

    /// Whether it was told.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Drains the process image of this trace, if it lets us, until it ends or we are told to stop.
pub fn serve(trace: &Path, served: &Served) {
    let Some(mut drain) = Drain::attach(trace, served) else { return };
    // Whatever went wrong: from here on the process's own threads write, and say what is wrong.
    let _ = drain.run(served);
    role::let_go(drain.meeting.role());
    drain.meeting.give_back(0);
}

/// A process image that is being drained.
struct Drain<'a> {
    /// The trace.
    path: &'a Path,
    process: Process,
    spool: SpoolFile,
    meeting: &'a Meeting,
    buffers: Buffers,
    output: Output,
    samples: Samples,
    /// Room for records.
    words: Vec<Vec<u64>>,
}

/// Takes the trace's lock, as long as we may try. Who only looks whether its process runs has it for a moment; who has it
/// for longer completes the trace, or the file system has no locks.
fn lock(file: &File, may_try: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while may_try() {
        if meeting::lock(file) {
            return true;
        }
        if Instant::now() > deadline {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

/// What is in a buffer makes no sense.
fn nonsense() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

impl<'a> Drain<'a> {
    /// Makes the claim, once that can be. `None`: the process is not for us.
    fn attach(path: &'a Path, served: &'a Served) -> Option<Self> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).ok()?;
        let process = process_of_open(&file, path)?;
        let owner = file.metadata().ok()?.uid();
        let spool = Path::new(std::ffi::OsStr::from_bytes(&process.spool));
        let spool = SpoolFile::open_to_share(spool, owner, process.pid, process.start_ticks).ok()?;
        let samples = Samples::of(&process)?;
        let meeting = Meeting::of(spool.file()).ok()?;
        if !lock(&file, || meeting.role().get() != role::OWN && !served.is_stopped()) {
            return None;
        }
        // Again: before the lock somebody may have completed it.
        process_of_open(&file, path)?;
        let _ = served.meeting.set(meeting);
        let meeting = served.meeting.get()?;
        claim(meeting, || is_running(&process, path), served)?;
        let Ok(output) = Output::new(file, &process) else {
            role::let_go(meeting.role());
            return None;
        };
        let words = vec![Vec::new(); BATCH];
        Some(Self { path, process, spool, meeting, buffers: Buffers::default(), output, samples, words })
    }

    fn run(&mut self, served: &Served) -> io::Result<()> {
        let (mut ticks, mut due) = (0_u64, Instant::now());
        loop {
            let seen = self.meeting.rings();
            // Once: busy threads can fill buffers as fast as we write them, and there is more to be looked at.
            let any = self.full()?;
            if self.meeting.last_look().get() == 1 {
                self.look(true)?;
                self.meeting.has_looked();
            }
            if !self.meeting.is_whole() || !self.buffers.are_whole() {
                return Err(nonsense());
            }
            if served.is_stopped() || self.meeting.role().get() != role::DRAINER {
                return if self.samples.lives() { self.look(true) } else { Ok(()) };
            }
            let now = Instant::now();
            if now >= due {
                due = now + TICK;
                self.look(ticks.is_multiple_of(TICKS_PER_SAMPLE))?;
                if !self.samples.lives()
                    || ticks.is_multiple_of(TICKS_PER_SAMPLE) && !is_running(&self.process, self.path)
                {
                    return Ok(());
                }
                ticks += 1;
            }
            if any {
                continue;
            }
            let pause = due.saturating_duration_since(now);
            self.meeting.sleep(seen, if self.meeting.polls() { pause.min(POLL) } else { pause });
        }
    }

    /// Writes what idle threads hold, and what is to be known of the process.
    fn look(&mut self, whole: bool) -> io::Result<()> {
        self.part_filled()?;
        self.samples.memory(&mut self.output.out);
        if whole {
            self.samples.names(&mut self.output.out);
            self.samples.clocks(&mut self.output.out);
        }
        self.output.flush()
    }

    /// The buffers that are in use and of this state, those of each stream in their order.
    fn in_state(&mut self, state: u32) -> io::Result<Vec<SpoolBuffer>> {
        self.buffers.grow(self.spool.file(), self.meeting.buffers())?;
        let found = (0..self.buffers.len()).filter_map(|index| self.buffers.look_at(index));
        let mut found =
            found.filter(|found| found.state == state).map(checked).collect::<io::Result<Vec<_>>>()?;
        found.sort_by_key(|buffer| (buffer.stream, buffer.position));
        Ok(found)
    }

    /// Writes full buffers and gives them back; true where there were some.
    fn full(&mut self) -> io::Result<bool> {
        let found = self.in_state(role::FULL)?;
        let mut count = 0;
        for stream in found.chunk_by(|a, b| a.stream == b.stream) {
            for batch in stream.chunks(BATCH) {
                let whole = self.write(batch)?;
                self.output.flush()?;
                for buffer in &batch[..whole] {
                    let state = self.buffers.state(buffer.index).ok_or_else(nonsense)?;
                    if !state.replace(role::FULL, role::DRAINED) {
                        return Err(nonsense());
                    }
                }
                if whole > 0 {
                    self.meeting.give_back(whole as u32);
                    count += whole;
                }
            }
        }
        Ok(count > 0)
    }

    /// Notes what part-filled buffers hold, as far as it goes on where the trace ends.
    fn part_filled(&mut self) -> io::Result<()> {
        for buffer in self.in_state(role::FILLING)? {
            self.write(&[buffer])?;
        }
        Ok(())
    }

    /// Notes what the first of these buffers of one stream hold beyond the trace; gives their number. A buffer before
    /// them may not yet be full in our eyes, or not be ours to see.
    fn write(&mut self, buffers: &[SpoolBuffer]) -> io::Result<usize> {
        let Some(first) = buffers.first() else { return Ok(0) };
        let end = self.output.written.end(first.stream);
        if first.position > end {
            return Ok(0);
        }
        for (buffer, words) in buffers.iter().zip(&mut self.words) {
            let skip = usize::try_from(end.saturating_sub(buffer.position)).unwrap_or(usize::MAX);
            self.spool.read_words_from(buffer, skip.min(buffer.committed), words)?;
            let mut records = Records::new(words);
            records.by_ref().for_each(|record| self.samples.learn(record));
            if !records.rest().is_empty() {
                return Err(nonsense());
            }
        }
        let pieces = buffers.iter().zip(&self.words).map(|(buffer, words)| {
            let skipped = end.saturating_sub(buffer.position).min(buffer.committed as u64);
            (buffer.position + skipped, words.as_slice())
        });
        let mut parts: [&[u64]; BATCH] = [&[]; BATCH];
        let run = self.output.written.run(first.stream, pieces, &mut parts);
        if run.end > run.start {
            let block = Block { stream: first.stream, thread: first.thread, position: run.start };
            self.output.add(block, &parts[..run.pieces]);
            self.output.written.reach(first.stream, run.end);
        }
        Ok(run.pieces)
    }
}

/// The process of a trace that has no end.
fn process_of_open(file: &File, path: &Path) -> Option<Process> {
    let trace = TraceFile::from_file(Arc::new(file.try_clone().ok()?), path).ok()?;
    trace.process().filter(|_| trace.end().is_none()).cloned()
}

/// Whether the process still runs, as this image.
fn is_running(process: &Process, path: &Path) -> bool {
    matches!(image_state(process, path.parent()), ImageState::Running(_))
}

/// Claims the trace, which may take a moment. Whoever writes it now may be stopped for long: then it is asked less and less often.
fn claim(meeting: &Meeting, is_running: impl Fn() -> bool, served: &Served) -> Option<()> {
    for tries in 0_u64.. {
        let pause = Duration::from_millis((tries / 8).max(1)).min(SELDOM);
        match role::claim(meeting.role()) {
            Claim::Made => return Some(()),
            Claim::Never => return None,
            // Who tells us to stop ends the pause.
            Claim::Later => thread::park_timeout(pause),
        }
        let asked = tries % 64 == 63 || pause == SELDOM;
        if served.is_stopped() || !meeting.is_whole() || asked && !is_running() {
            return None;
        }
    }
    None
}

/// A buffer whose header makes sense.
fn checked(found: InUse) -> io::Result<SpoolBuffer> {
    let committed = usize::try_from(found.committed).ok().filter(|n| *n <= BUFFER_WORDS);
    let fits = found.stream <= MOST_STREAMS && found.position.checked_add(BUFFER_WORDS as u64).is_some();
    let Some(committed) = committed.filter(|_| fits) else { return Err(nonsense()) };
    Ok(SpoolBuffer {
        index: found.index,
        stream: found.stream as u32,
        thread: found.thread as u32,
        position: found.position,
        committed,
        taken: 0,
    })
}
