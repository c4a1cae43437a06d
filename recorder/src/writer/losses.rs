//! What is lost with the process: where the spool could not grow, records lay in memory of its own, and where the trace takes no
//! more, nobody else will have them. They are counted, at the latest when the process ends.

use super::sink::Sink;
use crate::process::Process;
use crate::spool::buffer::Buffer;
use crate::sync::atomic::Ordering;
use memscope_shared::record::{Records, is_call};
use memscope_shared::spool::header;

/// Counts the calls in those of these buffers that are private, as far as the trace hasn't got them. Each is counted once.
pub fn count(process: &Process, sink: &Sink, buffers: impl Iterator<Item = Buffer>) {
    let lost: u64 = buffers.map(|buffer| calls_lost(sink, buffer)).sum();
    process
        .spool()
        .word(header::LOST_EVENTS)
        .filter(|_| lost > 0)
        .into_iter()
        .for_each(|word| word.add(lost));
}

/// The same for all buffers that there are. The trace takes no more.
pub fn count_all(process: &Process, sink: &Sink) {
    let queued = core::iter::from_fn(|| process.writer.channel()?.receive());
    count(process, sink, queued);
    count(process, sink, process.each_state().filter_map(|state| state.filling()));
}

fn calls_lost(sink: &Sink, buffer: Buffer) -> u64 {
    if buffer.header().private.load(Ordering::Relaxed) == 0 {
        return 0;
    }
    let (position, words) = buffer.untaken();
    buffer.header().taken.fetch_add(words.len() as u64, Ordering::Relaxed);
    let stream = buffer.header().stream.load(Ordering::Relaxed) as u32;
    let known = sink.written_of(stream).saturating_sub(position) as usize;
    let unknown = words.get(known..).unwrap_or_default();
    Records::new(unknown).filter(|record| is_call(record[0])).count() as u64
}
