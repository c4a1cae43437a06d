//! A trace file as a source of events.

use super::source::{Block, EventSource, Stream};
use crate::trace::{EventBuf, FrameInfo, TraceFile};

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
        special: true,
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
}
