//! The trace's file: frames go to its end.
//!
//! Our thread has a table of descriptors of its own, where nobody else closes or opens anything. In the program's table nothing
//! of ours stays, so that programs which look at it find what is theirs: until our thread lives, the file is opened by its
//! path for each write. Only before the program takes that path out of its own reach is it opened for good. Such a descriptor may be
//! closed behind our back and its number given to a file of the program's, so before every write the file behind it is
//! compared with ours, and opened again if it is another one.

use super::compress::Zstd;
use crate::clock::{self, Sample};
use crate::heap;
use crate::process::{Phase, Process};
use crate::program::birth::name_words;
use crate::spool::buffer::Buffer;
use crate::start::end;
use crate::sync::atomic::Ordering;
use crate::sys::file::{self, File, Identity};
use crate::sys::{Errno, process as os};
use core::ffi::CStr;
use core::fmt::Write as _;
use memscope_shared::rhythm::{self, BATCH, NAMES_AT_ONCE};
use memscope_shared::spool::header;
use memscope_shared::trace::{Block, ClockSample, Encoder, MemorySample, ThreadName, Written, meta};
use std::ffi::CString;

/// The open trace.
#[derive(Debug)]
#[cfg_attr(loom, allow(dead_code, reason = "a model writes no file"))]
pub struct Sink {
    path: CString,
    file: Option<File>,
    identity: Identity,
    /// `file` is in our thread's own table of descriptors, and no other thread may use the sink.
    own_table: bool,
    /// It is to stay open in the program's table.
    kept: bool,
    offset: u64,
    encoder: Encoder,
    zstd: Zstd,
    out: Vec<u8>,
    written: Written,
    /// What a drainer wrote is known.
    caught_up: bool,
    memory: Vec<MemorySample>,
    last_rss: u64,
    /// Why nothing is written any more.
    failed: Option<Errno>,
    /// The trace has its end.
    finished: bool,
    /// Blocks that a model's writer has taken: stream, position, words.
    #[cfg(loom)]
    pub taken: Vec<(u32, u64, Vec<u64>)>,
}

/// A sample as the trace has it.
const fn as_recorded(sample: Sample) -> ClockSample {
    ClockSample { stamp: sample.stamp, monotonic_ns: sample.monotonic_ns, realtime_ns: sample.realtime_ns }
}

/// What a trace is called until it is published.
fn draft_of(path: &CStr) -> Result<CString, Errno> {
    CString::new([path.to_bytes(), b".new"].concat()).map_err(|_| Errno(libc::EINVAL))
}

impl Sink {
    /// Makes a draft of the trace at `path`, with its first frames. A trace that is there already is `EEXIST`.
    pub fn draft(path: &CStr, process: &meta::Process, samples: &[Sample]) -> Result<Self, Errno> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let draft = draft_of(path)?;
        if file::accessible(path, libc::F_OK) {
            return Err(Errno::EEXIST);
        }
        let zstd = Zstd::new().ok_or(Errno(libc::ENOMEM))?;
        // A draft that is there already (`EEXIST`) is left alone: the same number may be that of a process in another namespace.
        let file = File::open_briefly(&draft, flags, 0o600)?;
        let identity = file.restrict(0o600).and_then(|()| file.identity()).inspect_err(|_| {
            let _ = file::remove(&draft);
        })?;
        let mut encoder = Encoder::new();
        encoder.set_unit(rhythm::unit(process.clock_hz));
        let mut sink = Self {
            path: path.into(),
            file: Some(file),
            identity,
            own_table: false,
            kept: false,
            offset: 0,
            encoder,
            zstd,
            out: Vec::new(),
            written: Written::new(),
            caught_up: false,
            memory: Vec::new(),
            last_rss: 0,
            failed: None,
            finished: false,
            #[cfg(loom)]
            taken: Vec::new(),
        };
        sink.out.extend_from_slice(&memscope_shared::trace::frame::file_header());
        meta::write_process(&mut sink.out, process);
        let samples: Vec<_> = samples.iter().copied().map(as_recorded).collect();
        meta::write_clock(&mut sink.out, &samples);
        sink.sample_memory();
        sink.write_samples().inspect_err(|_| sink.discard())?;
        Ok(sink)
    }

    /// Gives the draft its name, now that there is something in it, and what it names is there. Where that fails, it is removed.
    pub fn publish(&mut self) -> Result<(), Errno> {
        draft_of(&self.path)
            .and_then(|draft| file::rename_new(&draft, &self.path))
            .inspect_err(|_| self.discard())?;
        self.file = None;
        Ok(())
    }

    /// Removes the draft.
    pub fn discard(&self) {
        if let Ok(draft) = draft_of(&self.path) {
            let _ = file::remove(&draft);
        }
    }

    /// The descriptor that is kept.
    #[must_use]
    pub fn descriptor(&self) -> Option<i32> {
        self.file.as_ref().map(File::fd)
    }

    /// Our thread ends: whoever comes after it opens the file by its path.
    pub fn leaves_own_table(&mut self) {
        self.own_table = false;
        self.file = None;
    }

    /// From now on only our thread uses the sink, with a table of descriptors of its own.
    pub const fn moves_to_own_table(&mut self) {
        self.own_table = true;
    }

    /// True where only our thread may use the sink, or might when it lived.
    #[must_use]
    pub const fn is_in_own_table(&self) -> bool {
        self.own_table
    }

    /// True once the trace has its end, behind which nothing may follow.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    /// True once a write has failed: nothing is written any more.
    #[must_use]
    pub const fn failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Appends what `out` holds.
    fn append(&mut self) -> Result<(), Errno> {
        let result = self.failed.map_or_else(|| self.write_out(), Err);
        self.out.clear();
        self.failed = result.err();
        result
    }

    fn write_out(&mut self) -> Result<(), Errno> {
        if heap::is_low() {
            return Err(Errno(libc::ENOMEM));
        }
        let file = self.open()?;
        let result = file.write_at(&self.out, self.offset);
        if result.is_err() {
            // Completion follows whole frames with its own.
            let _ = file.set_len(self.offset);
        }
        self.keep(file);
        result?;
        self.offset += self.out.len() as u64;
        Ok(())
    }

    /// Keeps the descriptor where it is to be kept; but where the program has few, it may count on the number.
    fn keep(&mut self, file: File) {
        if self.own_table || self.kept && !file.is_low() {
            self.file = Some(file);
        }
    }

    /// From now on the descriptor stays open.
    pub fn keep_open(&mut self) {
        self.kept = true;
        if let Ok(file) = self.open() {
            self.keep(file);
        }
    }

    /// Where a drainer has let go: takes note of what it wrote, and cuts off what it could not finish.
    #[cfg(not(loom))]
    pub fn catch_up(&mut self) -> Result<(), Errno> {
        if self.caught_up {
            return Ok(());
        }
        let file = self.open()?;
        let len = file.length()?;
        let header = |offset| {
            let mut bytes = [0; memscope_shared::trace::frame::FRAME_HEADER_BYTES];
            (file.read_at(&mut bytes, offset) == Ok(bytes.len())).then_some(bytes)
        };
        let (offset, _) = self.written.follow(self.offset, len, header).ok_or(Errno(libc::EIO))?;
        if offset < len {
            file.set_len(offset)?;
        }
        self.keep(file);
        self.offset = offset;
        self.caught_up = true;
        Ok(())
    }

    /// True where the lock that goes with a drainer's claim is free.
    #[cfg(not(loom))]
    pub fn drainer_is_dead(&mut self) -> bool {
        let Ok(file) = self.open() else { return false };
        let dead = file.is_locked() == Ok(false);
        self.keep(file);
        dead
    }

    /// The file, by the descriptor that was kept or else by its path. `ENOENT`: it was deleted. `ESTALE`: it is not there, whatever
    /// became of it.
    fn open(&mut self) -> Result<File, Errno> {
        if let Some(file) = self.file.take() {
            match file.identity() {
                Ok(identity) if identity == self.identity => return Ok(file),
                Err(error) if error != Errno(libc::EBADF) => return Err(error),
                _ if self.own_table => drop(file),
                _ => file.forget(),
            }
        }
        match File::open(&self.path, libc::O_RDWR, 0) {
            Ok(file) if file.identity()? == self.identity => Ok(file),
            Ok(_) | Err(Errno::ENOENT) => Err(Errno::ESTALE),
            Err(error) => Err(error),
        }
    }

    /// Writes what a run of buffers of one stream holds beyond what is in the trace already.
    pub fn take(&mut self, buffers: &[Option<Buffer>]) -> Result<(), Errno> {
        let mut rest = buffers;
        while !rest.is_empty() {
            rest = self.take_adjacent(rest)?;
        }
        Ok(())
    }

    /// The same for the buffer that a thread is filling: only if it continues what the trace has. Else the buffer
    /// before it is still on its way to us.
    pub fn take_part(&mut self, buffer: Buffer) -> Result<(), Errno> {
        self.take_following(&[Some(buffer)])
    }

    /// Of a run of buffers of one stream, writes those that continue what the trace has.
    pub fn take_following(&mut self, buffers: &[Option<Buffer>]) -> Result<(), Errno> {
        let Some(Some(first)) = buffers.first() else { return Ok(()) };
        let header = first.header();
        let stream = header.stream.load(Ordering::Acquire) as u32;
        if header.position.load(Ordering::Relaxed) > self.written.end(stream) {
            return Ok(());
        }
        self.take_adjacent(buffers).map(drop)
    }

    /// How many words of a stream the trace has.
    #[must_use]
    pub fn written_of(&self, stream: u32) -> u64 {
        self.written.end(stream)
    }

    /// Whether all that a buffer holds is in the trace.
    #[must_use]
    pub fn has(&self, buffer: Buffer) -> bool {
        let header = buffer.header();
        let end = header.position.load(Ordering::Relaxed) + header.committed.load(Ordering::Acquire);
        end <= self.written.end(header.stream.load(Ordering::Acquire) as u32)
    }

    /// Writes the buffers that follow each other without a gap in the stream; returns those behind them.
    fn take_adjacent<'b>(&mut self, buffers: &'b [Option<Buffer>]) -> Result<&'b [Option<Buffer>], Errno> {
        let mut parts: [&[u64]; BATCH] = [&[]; BATCH];
        let Some(Some(first)) = buffers.first() else { return Ok(&[]) };
        let header = first.header();
        let (stream, thread) =
            (header.stream.load(Ordering::Relaxed) as u32, header.thread.load(Ordering::Relaxed));
        let pieces = buffers.iter().flatten().map(Buffer::untaken);
        let run = self.written.run(stream, pieces, &mut parts);
        let parts = &parts[..run.pieces];
        if run.end > run.start {
            let block = Block { stream, thread: thread as u32, position: run.start };
            self.write_block(block, parts)?;
            self.written.reach(stream, run.end);
        }
        for buffer in buffers[..run.pieces].iter().flatten() {
            let header = buffer.header();
            let taken = run.end.saturating_sub(header.position.load(Ordering::Relaxed));
            header.taken.store(taken.min(header.committed.load(Ordering::Relaxed)), Ordering::Release);
        }
        Ok(&buffers[run.pieces..])
    }

    #[cfg(not(loom))]
    fn write_block(&mut self, block: Block, parts: &[&[u64]]) -> Result<(), Errno> {
        self.encoder.encode_parts(&mut self.zstd, block, parts, &mut self.out);
        self.append()
    }

    /// Notes the resident set.
    pub fn sample_memory(&mut self) {
        let Some(rss_bytes) = os::memory().map(|memory| memory.resident) else { return };
        if rss_bytes != self.memory.last().map_or(self.last_rss, |last| last.rss_bytes) {
            self.memory.push(MemorySample { stamp: clock::stamp(), rss_bytes });
        }
    }

    /// Notes the names that threads have now.
    pub fn sample_names(&mut self, process: &Process) {
        let mut names = Vec::new();
        for state in
            process.each_state().filter(|s| s.outer.load(Ordering::Relaxed).is_null()).take(NAMES_AT_ONCE)
        {
            let tid = state.tid.load(Ordering::Acquire);
            if tid == 0 || state.ending.load(Ordering::Relaxed) == 1 {
                continue;
            }
            let Some(name) = thread_name(tid) else { continue };
            let (a, b) = name_words(name);
            if (a, b) != (state.name[0].load(Ordering::Relaxed), state.name[1].load(Ordering::Relaxed)) {
                state.name[0].store(a, Ordering::Relaxed);
                state.name[1].store(b, Ordering::Relaxed);
                let name = name.iter().copied().take_while(|&byte| byte != 0).collect();
                let thread = state.number.load(Ordering::Acquire);
                names.push(ThreadName { thread, stamp: clock::stamp(), name });
            }
        }
        if !names.is_empty() {
            meta::write_names(&mut self.out, &names);
        }
    }

    /// Notes the clocks.
    pub fn sample_clocks(&mut self, process: &Process) {
        let sample = clock::sample();
        for (offset, value) in [(header::CLOCK_STAMP, sample.stamp), (header::CLOCK_NS, sample.monotonic_ns)]
        {
            process.spool().word(offset).into_iter().for_each(|word| word.set(value));
        }
        meta::write_clock(&mut self.out, &[as_recorded(sample)]);
    }

    fn note_memory(&mut self) {
        if let Some(last) = self.memory.last().copied() {
            meta::write_memory(&mut self.out, &self.memory);
            self.memory.clear();
            self.last_rss = last.rss_bytes;
        }
    }

    /// Writes what has been noted.
    pub fn write_samples(&mut self) -> Result<(), Errno> {
        self.note_memory();
        if self.out.is_empty() { Ok(()) } else { self.append() }
    }

    /// Writes the end of the trace and removes the spool.
    pub fn finish(&mut self, process: &Process) -> Result<(), Errno> {
        self.sample_memory();
        self.sample_names(process);
        self.sample_clocks(process);
        self.note_memory();
        let end = end::describe(process, self.encoder.records());
        meta::write_end(&mut self.out, &end);
        self.append()?;
        self.finished = true;
        process.set_phase(Phase::Finished);
        end::make_last_files_of_notes();
        process.spool().remove();
        Ok(())
    }
}

/// Name of a thread of this process, zero-padded.
fn thread_name(tid: u32) -> Option<[u8; 16]> {
    if tid == os::tid() {
        return Some(os::thread_name());
    }
    let mut path = String::with_capacity(48);
    write!(path, "/proc/self/task/{tid}/comm\0").ok()?;
    let mut name = [0; 16];
    let n = os::read_file(CStr::from_bytes_with_nul(path.as_bytes()).ok()?, &mut name).ok()?;
    let end = name[..n].iter().position(|&byte| byte == b'\n').unwrap_or(n.min(15));
    name[end..].fill(0);
    Some(name)
}

/// What a model's writer has taken, instead of a trace.
#[cfg(loom)]
impl Sink {
    /// A sink without a file.
    #[must_use]
    pub fn model() -> Self {
        Self {
            path: CString::default(),
            file: None,
            identity: Identity::default(),
            own_table: false,
            kept: false,
            offset: 0,
            encoder: Encoder::new(),
            zstd: Zstd::new().expect("memory"),
            out: Vec::new(),
            written: Written::new(),
            caught_up: false,
            memory: Vec::new(),
            last_rss: 0,
            failed: None,
            finished: false,
            taken: Vec::new(),
        }
    }

    fn write_block(&mut self, block: Block, parts: &[&[u64]]) -> Result<(), Errno> {
        self.model_write(block.stream, block.position, parts.concat());
        Ok(())
    }

    /// Adds to what stands for the trace. Two at a time are a fault.
    pub fn model_write(&mut self, stream: u32, position: u64, words: Vec<u64>) {
        crate::sync::writes((&raw const self.taken).cast(), 1);
        self.taken.push((stream, position, words));
    }

    /// What the trace holds.
    #[must_use]
    pub fn model_written(&self) -> Written {
        crate::sync::reads((&raw const self.taken).cast(), 1);
        let mut written = Written::new();
        for (stream, position, words) in &self.taken {
            written.reach(*stream, position + words.len() as u64);
        }
        written
    }

    /// Takes note of what a drainer wrote.
    pub fn catch_up(&mut self) -> Result<(), Errno> {
        if !self.caught_up {
            self.written = self.model_written();
            self.caught_up = true;
        }
        Ok(())
    }

    /// Whether the model's drainer has died.
    #[must_use]
    pub fn drainer_is_dead(&self) -> bool {
        crate::sync::model::drainer_is_dead()
    }
}
