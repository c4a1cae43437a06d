//! A trace file as a source of events.

use super::source::{Block, EventSource, Stream};
use crate::trace::{EventBuf, FrameInfo, TraceFile, frame};

/// Reads a trace frame by frame.
#[derive(Debug)]
pub struct TraceSource<'a> {
    trace: &'a TraceFile,
    streams: Vec<Stream>,
    buffer: EventBuf,
}

impl<'a> TraceSource<'a> {
    /// The streams of `trace`.
    #[must_use]
    pub fn new(trace: &'a TraceFile) -> Self {
        let blocks = |frames: &[usize]| frames.iter().map(|&at| block(at, &trace.frames()[at])).collect();
        let streams = trace.streams().iter();
        let streams = streams.map(|stream| Stream { thread: stream.thread, blocks: blocks(&stream.frames) });
        Self { trace, streams: streams.collect(), buffer: EventBuf::new() }
    }
}

fn block(at: usize, frame: &FrameInfo) -> Block {
    let header = &frame.header;
    Block {
        id: at as u32,
        words: header.words() as u32,
        skip: 0,
        first_stamp: header.first_stamp,
        last_stamp: header.last_stamp,
        special: header.flags & frame::FLAG_PLAIN == 0,
    }
}

impl EventSource for TraceSource<'_> {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn read(&mut self, block: u32) -> Result<&[u64], String> {
        self.trace.read_events(block as usize, &mut self.buffer).map_err(|error| error.to_string())?;
        Ok(self.buffer.words())
    }

    fn read_special(&mut self, block: u32) -> Result<&[u64], String> {
        self.trace.read_special(block as usize, &mut self.buffer).map_err(|error| error.to_string())?;
        Ok(self.buffer.words())
    }

    fn take(&mut self, block: u32, words: &mut Vec<u64>) -> Result<(), String> {
        self.read(block)?;
        // Room that another block has needed may be far more than this one's.
        if self.buffer.has_little_to_spare() {
            self.buffer.swap(words);
        } else {
            words.clear();
            words.extend_from_slice(self.buffer.words());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::is_special;
    use super::super::testing::{TraceBuilder, Words};
    use super::*;
    use crate::record::{Records, kind};

    fn special(words: &[u64]) -> Vec<u64> {
        Records::new(words).filter(|record| is_special(record[0])).collect::<Vec<_>>().concat()
    }

    #[test]
    fn only_blocks_with_more_than_events_are_special() {
        let events = |words: Words, from: u64| {
            (from..from + 10).fold(words, |words, n| {
                let words = words.alloc(n * 16, n * 100, 1, n).begin(n * 16, n * 100 + 1);
                words.moved(n * 16, n * 100 + 2, 1, n).free(n * 16, n * 100 + 3).failed(n * 100 + 4)
            })
        };
        let words = events(Words::new(), 100).node(kind::NODE, 5, 1, 0);
        let words = events(words.module(0, 1, 2, "a"), 200).thread(kind::THREAD_END, 1, 30_000, "x");
        let words = events(words.node(kind::NODE_ROOT, 0, 2, 0), 400).alloc(0x10, 50_000, 1, 1 << 40);
        let trace = TraceBuilder { frame_records: 7, ..TraceBuilder::new(90_000) }.stream(1, words);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &trace.bytes()).unwrap();
        let trace = TraceFile::open(file.path()).unwrap();
        let mut source = TraceSource::new(&trace);
        let blocks = source.streams()[0].blocks.clone();
        for block in &blocks {
            let words = source.read(block.id).unwrap();
            let expected = special(words);
            assert_eq!(block.special, !expected.is_empty());
            assert_eq!(special(source.read_special(block.id).unwrap()), expected);
        }
        let special = blocks.iter().filter(|block| block.special).count();
        assert!(special > 0 && special < blocks.len() / 2, "{special} of {}", blocks.len());
    }

    #[test]
    fn small_blocks_get_little_room() {
        let events =
            |count: u64| (1..=count).fold(Words::new(), |words, n| words.alloc(n * 16, n * 10, 0, n));
        let trace = TraceBuilder { frame_records: 50_000, ..TraceBuilder::new(1 << 40) };
        let trace = trace.stream(1, events(50_000)).stream(2, events(10)).stream(3, events(10));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &trace.bytes()).unwrap();
        let trace = TraceFile::open(file.path()).unwrap();
        let mut source = TraceSource::new(&trace);
        let blocks: Vec<_> = source.streams().iter().map(|stream| stream.blocks[0]).collect();
        for large_before in [false, true] {
            for block in &blocks[1..] {
                if large_before {
                    source.read(blocks[0].id).unwrap();
                }
                let mut words = Vec::new();
                source.take(block.id, &mut words).unwrap();
                assert_eq!(words.len(), block.words as usize);
                assert!(words.capacity() < 2_000, "{}", words.capacity());
            }
        }
    }
}
