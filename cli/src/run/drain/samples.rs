//! What we look at from time to time in a process that we drain: its resident set, its threads' names, the clocks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use memscope_shared::record::{kind, kind_of, operand};
use memscope_shared::rhythm::NAMES_AT_ONCE;
use memscope_shared::stat;
use memscope_shared::trace::{ClockKind, ClockSample, MemorySample, Process, ThreadName, meta};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::time::{ClockId, clock_gettime};

use super::meeting;

/// Threads that are remembered: a broken program's records may tell of any number.
const MOST_THREADS: usize = 1 << 16;

/// A thread that we know of.
#[derive(Debug)]
struct Thread {
    tid: u32,
    name: Vec<u8>,
}

/// What is known of a process's state.
#[derive(Debug)]
pub struct Samples {
    /// `/proc/PID`; once the process has gone, nobody else's.
    proc: OwnedFd,
    clock: ClockKind,
    page_size: u64,
    last_rss: u64,
    threads: BTreeMap<u32, Thread>,
}

impl Samples {
    /// Of this process; `None` where it is not to be seen.
    pub fn of(process: &Process) -> Option<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let proc = open(format!("/proc/{}", process.pid), flags, Mode::empty()).ok()?;
        let samples = Self {
            proc,
            clock: process.clock,
            page_size: process.page_size,
            last_rss: 0,
            threads: BTreeMap::new(),
        };
        let is_it = stat::start_ticks(&samples.read("stat")?) == Some(process.start_ticks);
        is_it.then_some(samples)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let file = openat(&self.proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = Vec::new();
        File::from(file).take(4096).read_to_end(&mut text).ok()?;
        Some(text)
    }

    /// Whether the process is still there.
    pub fn lives(&self) -> bool {
        self.read("stat").is_some()
    }

    /// The recording's clock.
    pub fn stamp(&self) -> u64 {
        match self.clock {
            ClockKind::Tsc => meeting::tsc(),
            ClockKind::Monotonic => ns(ClockId::Monotonic),
        }
    }

    /// Takes note of the threads that records tell of.
    pub fn learn(&mut self, record: &[u64]) {
        let &[head, _, a, b] = record else { return };
        let number = (operand(head) >> 32) as u32;
        match kind_of(head) {
            kind::THREAD_START if self.threads.len() < MOST_THREADS => {
                let name = [a.to_le_bytes(), b.to_le_bytes()].concat();
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
                self.threads.insert(number, Thread { tid: operand(head) as u32, name });
            }
            kind::THREAD_END => {
                self.threads.remove(&number);
            }
            _ => {}
        }
    }

    /// The resident set, where it has changed.
    pub fn memory(&mut self, out: &mut Vec<u8>) {
        let Some(text) = self.read("statm") else { return };
        let pages = text.split(|byte| *byte == b' ').nth(1).and_then(|field| std::str::from_utf8(field).ok());
        let Some(pages) = pages.and_then(|field| field.parse::<u64>().ok()) else { return };
        let rss_bytes = pages.saturating_mul(self.page_size);
        if rss_bytes != self.last_rss {
            self.last_rss = rss_bytes;
            meta::write_memory(out, &[MemorySample { stamp: self.stamp(), rss_bytes }]);
        }
    }

    /// The names of threads, where they have changed.
    pub fn names(&mut self, out: &mut Vec<u8>) {
        let mut changed = Vec::new();
        for (&thread, known) in self.threads.iter().take(NAMES_AT_ONCE) {
            let Some(name) = self.read(&format!("task/{}/comm", known.tid)) else { continue };
            let name = name.strip_suffix(b"\n").unwrap_or(&name);
            if name != known.name {
                changed.push(ThreadName { thread, stamp: self.stamp(), name: name.to_vec() });
            }
        }
        for name in &changed {
            if let Some(known) = self.threads.get_mut(&name.thread) {
                known.name.clone_from(&name.name);
            }
        }
        meta::write_names(out, &changed);
    }

    /// The clocks; of three tries the one in which the stamps before and after lay closest.
    pub fn clocks(&self, out: &mut Vec<u8>) {
        let one = |_| {
            let before = self.stamp();
            let monotonic_ns = ns(ClockId::Monotonic);
            let width = self.stamp().wrapping_sub(before);
            let sample = ClockSample {
                stamp: before.wrapping_add(width / 2),
                monotonic_ns,
                realtime_ns: ns(ClockId::Realtime),
            };
            (width, sample)
        };
        let best = (0..3).map(one).min_by_key(|(width, _)| *width);
        meta::write_clock(out, &best.map(|(_, sample)| sample).into_iter().collect::<Vec<_>>());
    }
}

fn ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use memscope_shared::record::{head, thread_operand};

    fn own() -> Process {
        let text = std::fs::read("/proc/self/stat").expect("read");
        Process {
            pid: std::process::id(),
            start_ticks: stat::start_ticks(&text).expect("a number"),
            page_size: 4096,
            clock: ClockKind::Monotonic,
            ..Process::default()
        }
    }

    #[test]
    fn of_this_process() {
        let mut samples = Samples::of(&own()).expect("it runs");
        assert!(samples.lives());
        assert!(Samples::of(&Process { start_ticks: 1, ..own() }).is_none(), "another one");
        let mut out = Vec::new();
        samples.memory(&mut out);
        samples.clocks(&mut out);
        assert!(samples.last_rss > 100_000 && out.len() > 100);
        let me = thread_operand(7, rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
        samples.learn(&[head(kind::THREAD_START, me), 1, u64::from_le_bytes(*b"elsewise"), 0]);
        assert_eq!(samples.threads[&7].name, b"elsewise");
        out.clear();
        samples.names(&mut out);
        assert!(!out.is_empty() && samples.threads[&7].name != b"elsewise");
        out.clear();
        samples.names(&mut out);
        assert!(out.is_empty(), "told already");
        samples.learn(&[head(kind::THREAD_END, me), 1, 0, 0]);
        assert!(samples.threads.is_empty());
    }
}
