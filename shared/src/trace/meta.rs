//! The small frames: what a process is, its clocks, memory, threads' names and end.
//!
//! `PROCESS`, `END` and `NOTE` are lists of fields, each `tag u32 | length u32 | bytes` without
//! padding; a reader skips tags that it doesn't know. The others are lists of fixed little-endian
//! numbers. Every function here that starts with `write_` appends a whole frame to a buffer.

use super::frame::{FrameHeader, Kind, OpenFrame, u32_at, u64_at};

/// Which clock the stamps are readings of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockKind {
    /// `CLOCK_MONOTONIC` in ns.
    #[default]
    Monotonic,
    /// The processor's time stamp counter.
    Tsc,
}

/// A process image: from its start or `exec` to its end or next `exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Process id of the parent.
    pub parent_pid: u32,
    /// Start of the process in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    /// The same of the parent, where it is known; else 0.
    pub parent_start_ticks: u64,
    /// The namespace that the process ids are numbers of (inode of `/proc/PID/ns/pid`), where it is known; else 0.
    pub namespace: u64,
    /// Path of the executable. Any bytes.
    pub exe: Vec<u8>,
    /// Arguments, the program's name first. Any bytes.
    pub args: Vec<Vec<u8>>,
    /// The command as the user gave it to `run`, for the first image of the first process; empty elsewhere. It differs from
    /// the arguments for a script, which the kernel hands to its interpreter. Any bytes.
    pub command: Vec<Vec<u8>>,
    /// Size of a page of memory.
    pub page_size: u64,
    /// The clock that stamps are readings of.
    pub clock: ClockKind,
    /// Steps of that clock in a second, as far as it was known at the start; else 0.
    pub clock_hz: u64,
    /// Path of the spool. Any bytes; empty where there is none.
    pub spool: Vec<u8>,
    /// The image came from a `fork` without `exec`: it has its parent's blocks.
    pub forked: bool,
    /// The image came from an `exec` of a process that was recorded before.
    pub execed: bool,
    /// Version of the library that recorded.
    pub library: Vec<u8>,
}

/// One reading of all clocks at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockSample {
    /// The recording's clock.
    pub stamp: u64,
    /// `CLOCK_MONOTONIC` in ns.
    pub monotonic_ns: u64,
    /// `CLOCK_REALTIME` in ns since the Unix epoch.
    pub realtime_ns: u64,
}

/// One reading of the resident set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySample {
    /// When.
    pub stamp: u64,
    /// Its size in bytes.
    pub rss_bytes: u64,
}

/// A thread's name from `stamp` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadName {
    /// Number of the thread.
    pub thread: u32,
    /// Since when.
    pub stamp: u64,
    /// The name. Any bytes.
    pub name: Vec<u8>,
}

/// How a process image ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndKind {
    /// Nobody saw it.
    #[default]
    Unknown,
    /// `exit`, `quick_exit` or a return from `main`.
    Exit,
    /// `_exit` or `_Exit`.
    UnderscoreExit,
    /// Killed by a signal.
    Signal,
    /// Replaced by `exec`.
    Exec,
    /// It had not ended when the trace was closed.
    Running,
}

/// The end of a process image and of its recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub kind: EndKind,
    /// Exit status, where it is known.
    pub exit_code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// When; where nobody saw it, the last event's stamp.
    pub stamp: u64,
    /// False where events were lost or cut.
    pub complete: bool,
    /// Why it is incomplete.
    pub reason: Option<String>,
    /// Since when.
    pub incomplete_since: Option<u64>,
    /// Events that were counted but not recorded.
    pub lost_events: u64,
    /// Records in all `EVENTS` frames of the trace, as a cross check.
    pub records: u64,
}

/// Tags of `PROCESS`.
mod process_tag {
    pub const PID: u32 = 1;
    pub const PARENT_PID: u32 = 2;
    pub const START_TICKS: u32 = 3;
    pub const PARENT_START_TICKS: u32 = 4;
    pub const EXE: u32 = 5;
    pub const ARG: u32 = 6;
    pub const PAGE_SIZE: u32 = 7;
    pub const CLOCK: u32 = 8;
    pub const CLOCK_HZ: u32 = 9;
    pub const SPOOL: u32 = 10;
    pub const FORKED: u32 = 11;
    pub const EXECED: u32 = 12;
    pub const LIBRARY: u32 = 13;
    pub const NAMESPACE: u32 = 14;
    pub const COMMAND: u32 = 20;
}

/// Tags of `END`.
mod end_tag {
    pub const KIND: u32 = 1;
    pub const EXIT_CODE: u32 = 2;
    pub const SIGNAL: u32 = 3;
    pub const STAMP: u32 = 4;
    pub const COMPLETE: u32 = 5;
    pub const REASON: u32 = 6;
    pub const INCOMPLETE_SINCE: u32 = 7;
    pub const LOST_EVENTS: u32 = 8;
    pub const RECORDS: u32 = 9;
}

fn put_field(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, tag: u32, value: u64) {
    put_field(out, tag, &value.to_le_bytes());
}

/// Walks the fields of a payload; ends at the first that is cut.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.len() < 8 {
            return None;
        }
        let len = u32_at(self.0, 4) as usize;
        let (bytes, rest) = self.0[8..].split_at_checked(len)?;
        let tag = u32_at(self.0, 0);
        self.0 = rest;
        Some((tag, bytes))
    }
}

/// A number of 1, 4 or 8 bytes; 0 where there are others.
fn number(bytes: &[u8]) -> u64 {
    match bytes.len() {
        8 => u64_at(bytes, 0),
        4 => u64::from(u32_at(bytes, 0)),
        1 => u64::from(bytes[0]),
        _ => 0,
    }
}

/// Finishes a frame whose raw payload is stored as it is.
fn finish_plain(out: &mut Vec<u8>, frame: OpenFrame, mut header: FrameHeader) {
    header.raw_len = (out.len() - frame.payload()) as u32;
    frame.finish(out, header);
}

fn header(kind: Kind, records: usize, first_stamp: u64, last_stamp: u64) -> FrameHeader {
    FrameHeader { records: records as u32, first_stamp, last_stamp, ..FrameHeader::new(kind) }
}

/// Appends the `PROCESS` frame.
pub fn write_process(out: &mut Vec<u8>, process: &Process) {
    use process_tag as tag;
    let frame = OpenFrame::begin(out);
    put_number(out, tag::PID, u64::from(process.pid));
    put_number(out, tag::PARENT_PID, u64::from(process.parent_pid));
    put_number(out, tag::START_TICKS, process.start_ticks);
    put_number(out, tag::PARENT_START_TICKS, process.parent_start_ticks);
    put_field(out, tag::EXE, &process.exe);
    for arg in &process.args {
        put_field(out, tag::ARG, arg);
    }
    for word in &process.command {
        put_field(out, tag::COMMAND, word);
    }
    put_number(out, tag::PAGE_SIZE, process.page_size);
    put_number(out, tag::CLOCK, u64::from(process.clock == ClockKind::Tsc));
    put_number(out, tag::CLOCK_HZ, process.clock_hz);
    put_field(out, tag::SPOOL, &process.spool);
    put_number(out, tag::FORKED, u64::from(process.forked));
    put_number(out, tag::EXECED, u64::from(process.execed));
    put_field(out, tag::LIBRARY, &process.library);
    put_number(out, tag::NAMESPACE, process.namespace);
    finish_plain(out, frame, header(Kind::PROCESS, 1, 0, 0));
}

/// Reads the payload of a `PROCESS` frame.
#[must_use]
pub fn read_process(payload: &[u8]) -> Process {
    use process_tag as tag;
    let mut process = Process::default();
    for (field, bytes) in Fields(payload) {
        match field {
            tag::PID => process.pid = number(bytes) as u32,
            tag::PARENT_PID => process.parent_pid = number(bytes) as u32,
            tag::START_TICKS => process.start_ticks = number(bytes),
            tag::PARENT_START_TICKS => process.parent_start_ticks = number(bytes),
            tag::EXE => process.exe = bytes.to_vec(),
            tag::ARG => process.args.push(bytes.to_vec()),
            tag::COMMAND => process.command.push(bytes.to_vec()),
            tag::PAGE_SIZE => process.page_size = number(bytes),
            tag::CLOCK if number(bytes) == 1 => process.clock = ClockKind::Tsc,
            tag::CLOCK_HZ => process.clock_hz = number(bytes),
            tag::SPOOL => process.spool = bytes.to_vec(),
            tag::FORKED => process.forked = number(bytes) != 0,
            tag::EXECED => process.execed = number(bytes) != 0,
            tag::LIBRARY => process.library = bytes.to_vec(),
            tag::NAMESPACE => process.namespace = number(bytes),
            _ => {}
        }
    }
    process
}

/// Appends a `CLOCK` frame.
pub fn write_clock(out: &mut Vec<u8>, samples: &[ClockSample]) {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return };
    let frame = OpenFrame::begin(out);
    for sample in samples {
        for number in [sample.stamp, sample.monotonic_ns, sample.realtime_ns] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    finish_plain(out, frame, header(Kind::CLOCK, samples.len(), first.stamp, last.stamp));
}

/// Reads the payload of a `CLOCK` frame.
pub fn read_clock(payload: &[u8]) -> impl Iterator<Item = ClockSample> + '_ {
    payload.chunks_exact(24).map(|b| ClockSample {
        stamp: u64_at(b, 0),
        monotonic_ns: u64_at(b, 8),
        realtime_ns: u64_at(b, 16),
    })
}

/// Appends a `MEMORY` frame.
pub fn write_memory(out: &mut Vec<u8>, samples: &[MemorySample]) {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return };
    let frame = OpenFrame::begin(out);
    for sample in samples {
        out.extend_from_slice(&sample.stamp.to_le_bytes());
        out.extend_from_slice(&sample.rss_bytes.to_le_bytes());
    }
    finish_plain(out, frame, header(Kind::MEMORY, samples.len(), first.stamp, last.stamp));
}

/// Reads the payload of a `MEMORY` frame.
pub fn read_memory(payload: &[u8]) -> impl Iterator<Item = MemorySample> + '_ {
    payload.chunks_exact(16).map(|b| MemorySample { stamp: u64_at(b, 0), rss_bytes: u64_at(b, 8) })
}

/// Appends a `NAMES` frame: for each name `thread u32 | length u32 | stamp u64 | bytes`.
pub fn write_names(out: &mut Vec<u8>, names: &[ThreadName]) {
    let (Some(first), Some(last)) = (names.first(), names.last()) else { return };
    let frame = OpenFrame::begin(out);
    for name in names {
        out.extend_from_slice(&name.thread.to_le_bytes());
        out.extend_from_slice(&(name.name.len() as u32).to_le_bytes());
        out.extend_from_slice(&name.stamp.to_le_bytes());
        out.extend_from_slice(&name.name);
    }
    finish_plain(out, frame, header(Kind::NAMES, names.len(), first.stamp, last.stamp));
}

/// Reads the payload of a `NAMES` frame; ends at the first name that is cut.
pub fn read_names(mut payload: &[u8]) -> impl Iterator<Item = ThreadName> + '_ {
    std::iter::from_fn(move || {
        let rest = payload.get(16..)?;
        let (name, rest) = rest.split_at_checked(u32_at(payload, 4) as usize)?;
        let (thread, stamp) = (u32_at(payload, 0), u64_at(payload, 8));
        payload = rest;
        Some(ThreadName { thread, stamp, name: name.to_vec() })
    })
}

/// Appends the `END` frame.
pub fn write_end(out: &mut Vec<u8>, end: &End) {
    use end_tag as tag;
    let frame = OpenFrame::begin(out);
    let kind = match end.kind {
        EndKind::Unknown => 0,
        EndKind::Exit => 1,
        EndKind::UnderscoreExit => 2,
        EndKind::Signal => 3,
        EndKind::Exec => 4,
        EndKind::Running => 5,
    };
    put_number(out, tag::KIND, kind);
    for (field, value) in [(tag::EXIT_CODE, end.exit_code), (tag::SIGNAL, end.signal)] {
        if let Some(value) = value {
            put_field(out, field, &value.to_le_bytes());
        }
    }
    put_number(out, tag::STAMP, end.stamp);
    put_number(out, tag::COMPLETE, u64::from(end.complete));
    if let Some(reason) = &end.reason {
        put_field(out, tag::REASON, reason.as_bytes());
    }
    if let Some(since) = end.incomplete_since {
        put_number(out, tag::INCOMPLETE_SINCE, since);
    }
    put_number(out, tag::LOST_EVENTS, end.lost_events);
    put_number(out, tag::RECORDS, end.records);
    finish_plain(out, frame, header(Kind::END, 1, end.stamp, end.stamp));
}

/// Reads the payload of an `END` frame.
#[must_use]
pub fn read_end(payload: &[u8]) -> End {
    use end_tag as tag;
    let mut end = End::default();
    for (field, bytes) in Fields(payload) {
        match field {
            tag::KIND => {
                end.kind = match number(bytes) {
                    1 => EndKind::Exit,
                    2 => EndKind::UnderscoreExit,
                    3 => EndKind::Signal,
                    4 => EndKind::Exec,
                    5 => EndKind::Running,
                    _ => EndKind::Unknown,
                }
            }
            tag::EXIT_CODE => end.exit_code = Some(number(bytes) as i32),
            tag::SIGNAL => end.signal = Some(number(bytes) as i32),
            tag::STAMP => end.stamp = number(bytes),
            tag::COMPLETE => end.complete = number(bytes) != 0,
            tag::REASON => end.reason = Some(String::from_utf8_lossy(bytes).into_owned()),
            tag::INCOMPLETE_SINCE => end.incomplete_since = Some(number(bytes)),
            tag::LOST_EVENTS => end.lost_events = number(bytes),
            tag::RECORDS => end.records = number(bytes),
            _ => {}
        }
    }
    end
}

/// Appends a `NOTE` frame: a remark as text.
pub fn write_note(out: &mut Vec<u8>, stamp: u64, text: &str) {
    let frame = OpenFrame::begin(out);
    put_field(out, 1, text.as_bytes());
    finish_plain(out, frame, header(Kind::NOTE, 1, stamp, stamp));
}

/// Reads the payload of a `NOTE` frame.
#[must_use]
pub fn read_note(payload: &[u8]) -> String {
    let text = Fields(payload).find(|&(tag, _)| tag == 1).map_or(&[][..], |(_, bytes)| bytes);
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::frame::FRAME_HEADER_BYTES;
    use super::*;

    fn payload(out: &[u8]) -> &[u8] {
        let header = FrameHeader::from_bytes(out).unwrap();
        assert_eq!(header.stored_len, header.raw_len);
        assert_eq!(header.total_bytes() as usize, out.len());
        &out[FRAME_HEADER_BYTES..][..header.stored_len as usize]
    }

    #[test]
    fn process_comes_back() {
        let process = Process {
            pid: 4_000_000,
            parent_pid: 1,
            start_ticks: 1 << 40,
            parent_start_ticks: 3,
            exe: b"/bin/a \xff b".to_vec(),
            args: vec![b"a".to_vec(), Vec::new(), b"\xfe".to_vec()],
            command: vec![b"./a".to_vec(), Vec::new()],
            page_size: 4096,
            clock: ClockKind::Tsc,
            clock_hz: 2_600_000_000,
            spool: b"/dev/shm/x".to_vec(),
            forked: true,
            execed: true,
            library: b"0.1.0".to_vec(),
            namespace: 4_026_531_836,
        };
        let mut out = Vec::new();
        write_process(&mut out, &process);
        assert_eq!(read_process(payload(&out)), process);
    }

    #[test]
    fn end_comes_back() {
        let end = End {
            kind: EndKind::Signal,
            exit_code: Some(-1),
            signal: Some(9),
            stamp: 77,
            complete: false,
            reason: Some("no space".into()),
            incomplete_since: Some(70),
            lost_events: 5,
            records: 1 << 33,
        };
        let mut out = Vec::new();
        write_end(&mut out, &end);
        assert_eq!(read_end(payload(&out)), end);
        for kind in
            [EndKind::Unknown, EndKind::Exit, EndKind::UnderscoreExit, EndKind::Exec, EndKind::Running]
        {
            let end = End { kind, ..End::default() };
            out.clear();
            write_end(&mut out, &end);
            assert_eq!(read_end(payload(&out)), end);
        }
    }

    #[test]
    fn lists_come_back() {
        let clock = [1, 2].map(|n| ClockSample { stamp: n, monotonic_ns: n * 10, realtime_ns: n << 60 });
        let memory = [3, 4].map(|n| MemorySample { stamp: n, rss_bytes: n << 20 });
        let names =
            ["main", "", "worker 2"].map(|n| ThreadName { thread: n.len() as u32, stamp: 9, name: n.into() });
        let mut out = Vec::new();
        write_clock(&mut out, &clock);
        assert_eq!(read_clock(payload(&out)).collect::<Vec<_>>(), clock);
        out.clear();
        write_memory(&mut out, &memory);
        assert_eq!(read_memory(payload(&out)).collect::<Vec<_>>(), memory);
        out.clear();
        write_names(&mut out, &names);
        assert_eq!(read_names(payload(&out)).collect::<Vec<_>>(), names);
        out.clear();
        write_note(&mut out, 1, "text");
        assert_eq!(read_note(payload(&out)), "text");
    }

    #[test]
    fn unknown_tags_and_cut_payloads_are_harmless() {
        let mut fields = Vec::new();
        put_field(&mut fields, 999, b"future");
        put_number(&mut fields, process_tag::PID, 42);
        put_field(&mut fields, process_tag::EXE, b"/bin/true");
        assert_eq!(read_process(&fields).pid, 42);
        for cut in 0..fields.len() {
            let _ = read_process(&fields[..cut]);
            let _ = read_end(&fields[..cut]);
            assert!(read_names(&fields[..cut]).count() < 10);
        }
    }
}
