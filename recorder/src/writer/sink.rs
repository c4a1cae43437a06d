//! The trace's file: frames go to its end.
//!
//! The descriptor may be closed behind our back and its number given to a file of the program's, so before
//! every write the file behind it is compared with ours, and opened again by its path if it is another one.

use super::compress::Zstd;
use crate::clock::{self, Sample};
use crate::process::{Phase, Process};
use crate::program::birth::name_words;
use crate::spool::buffer::Buffer;
use crate::start::end;
use crate::sys::file::{self, File, Identity};
use crate::sys::{Errno, process as os};
use core::ffi::CStr;
use core::fmt::Write as _;
use core::sync::atomic::Ordering;
use memscope_shared::record::Records;
use memscope_shared::spool::header;
use memscope_shared::trace::{Block, ClockSample, Encoder, MemorySample, ThreadName, meta};
use std::ffi::CString;

/// Threads whose names are read in one go.
const NAMES_AT_ONCE: usize = 256;
/// Stamps are kept to this resolution: the TSC of common processors steps by about as much.
const STEPS_PER_SECOND: u64 = 100_000_000;

/// The open trace.
#[derive(Debug)]
pub struct Sink {
    path: CString,
    file: Option<(File, Identity)>,
    offset: u64,
    encoder: Encoder,
    zstd: Zstd,
    out: Vec<u8>,
    /// Position up to which each stream is in the trace, by stream number.
    written: Vec<u64>,
    memory: Vec<MemorySample>,
    records: u64,
    failed: bool,
}

/// A sample as the trace has it.
const fn as_recorded(sample: Sample) -> ClockSample {
    ClockSample {
        stamp: sample.stamp,
        monotonic_ns: sample.monotonic_ns,
        realtime_ns: sample.realtime_ns,
    }
}

impl Sink {
    /// Makes the trace at `path`, which must not exist, and writes its first frames.
    pub fn create(path: &CStr, process: &meta::Process, samples: &[Sample]) -> Result<Self, Errno> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let file = File::open(path, flags, 0o600)?;
        let identity = file.identity()?;
        let mut encoder = Encoder::new();
        encoder.set_unit(u32::try_from(process.clock_hz / STEPS_PER_SECOND).unwrap_or(1).max(1));
        let mut sink = Self {
            path: path.into(),
            file: Some((file, identity)),
            offset: 0,
            encoder,
            zstd: Zstd::new().ok_or(Errno(libc::ENOMEM))?,
            out: Vec::new(),
            written: Vec::new(),
            memory: Vec::new(),
            records: 0,
            failed: false,
        };
        sink.out.extend_from_slice(&memscope_shared::trace::frame::file_header());
        meta::write_process(&mut sink.out, process);
        let samples: Vec<_> = samples.iter().copied().map(as_recorded).collect();
        meta::write_clock(&mut sink.out, &samples);
        sink.append().inspect_err(|_| {
            let _ = file::remove(path);
        })?;
        Ok(sink)
    }

    /// True once a write has failed: nothing is written any more.
    #[must_use]
    pub const fn failed(&self) -> bool {
        self.failed
    }

    /// Appends what `out` holds.
    fn append(&mut self) -> Result<(), Errno> {
        let result = self.write_out();
        self.out.clear();
        self.failed |= result.is_err();
        result
    }

    fn write_out(&mut self) -> Result<(), Errno> {
        let ours = |(file, identity): &(File, Identity)| file.identity() == Ok(*identity);
        if !self.file.as_ref().is_some_and(ours) {
            let known = self.file.take().map(|(file, identity)| {
                file.forget();
                identity
            });
            let file = File::open(&self.path, libc::O_WRONLY, 0)?;
            let identity = file.identity()?;
            if known.is_some_and(|known| known != identity) {
                return Err(Errno::ENOENT);
            }
            self.file = Some((file, identity));
        }
        let Some((file, _)) = &self.file else { return Err(Errno::ENOENT) };
        file.write_at(&self.out, self.offset)?;
        self.offset += self.out.len() as u64;
        Ok(())
    }

    /// Writes what a run of buffers of one stream holds beyond what is in the trace already.
    pub fn take(&mut self, buffers: &[Option<Buffer>]) -> Result<(), Errno> {
        let mut parts: [&[u64]; 16] = [&[]; 16];
        let mut committed = [0; 16];
        let Some(Some(first)) = buffers.first() else { return Ok(()) };
        let (stream, thread) = {
            let header = first.header();
            (header.stream.load(Ordering::Relaxed), header.thread.load(Ordering::Relaxed))
        };
        let index = stream as usize;
        if self.written.len() <= index {
            self.written.resize(index + 1, 0);
        }
        let start = self.written[index];
        let mut at = start;
        for ((buffer, part), committed) in buffers.iter().flatten().zip(&mut parts).zip(&mut committed) {
            let (position, words) = buffer.untaken();
            // A thread that moved to another buffer copied words that may be written already.
            let known = usize::try_from(at.saturating_sub(position)).unwrap_or(usize::MAX).min(words.len());
            *part = &words[known..];
            *committed = position + words.len() as u64 - buffer.header().position.load(Ordering::Relaxed);
            at = at.max(position) + part.len() as u64;
        }
        if parts.iter().all(|part| part.is_empty()) {
            return Ok(());
        }
        self.records += parts.iter().map(|part| Records::new(part).count() as u64).sum::<u64>();
        let block = Block { stream: stream as u32, thread: thread as u32, position: start };
        self.encoder.encode_parts(&mut self.zstd, block, &parts[..buffers.len()], &mut self.out);
        self.append()?;
        self.written[index] = at;
        for (buffer, committed) in buffers.iter().flatten().zip(committed) {
            buffer.header().taken.store(committed, Ordering::Release);
        }
        Ok(())
    }

    /// Notes the resident set.
    pub fn sample_memory(&mut self) {
        let Some(rss_bytes) = os::resident_bytes() else { return };
        if self.memory.last().is_none_or(|last| last.rss_bytes != rss_bytes) {
            self.memory.push(MemorySample { stamp: clock::stamp(), rss_bytes });
        }
    }

    /// Notes the names that threads have now.
    pub fn sample_names(&mut self, process: &Process) {
        let mut names = Vec::new();
        for state in process.each_state().filter(|s| s.outer.load(Ordering::Relaxed).is_null()).take(NAMES_AT_ONCE) {
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

    /// Writes a sample of the clocks, and what else has gathered.
    pub fn sample_clocks(&mut self, process: &Process) -> Result<(), Errno> {
        let sample = clock::sample();
        for (offset, value) in [(header::CLOCK_STAMP, sample.stamp), (header::CLOCK_NS, sample.monotonic_ns)] {
            process.spool().word(offset).into_iter().for_each(|word| word.set(value));
        }
        meta::write_clock(&mut self.out, &[as_recorded(sample)]);
        if !self.memory.is_empty() {
            meta::write_memory(&mut self.out, &self.memory);
            self.memory.clear();
        }
        self.append()
    }

    /// Writes the end of the trace and removes the spool.
    pub fn finish(&mut self, process: &Process) -> Result<(), Errno> {
        self.sample_memory();
        self.sample_names(process);
        self.sample_clocks(process)?;
        let end = end::describe(process, self.records);
        meta::write_end(&mut self.out, &end);
        self.append()?;
        process.set_phase(Phase::Finished);
        process.spool().remove();
        Ok(())
    }
}

/// Name of a thread of this process, zero-padded.
fn thread_name(tid: u32) -> Option<[u8; 16]> {
    let mut path = String::with_capacity(48);
    write!(path, "/proc/self/task/{tid}/comm\0").ok()?;
    let mut name = [0; 16];
    let n = os::read_file(CStr::from_bytes_with_nul(path.as_bytes()).ok()?, &mut name).ok()?;
    let end = name[..n].iter().position(|&byte| byte == b'\n').unwrap_or(n.min(15));
    name[end..].fill(0);
    Some(name)
}
