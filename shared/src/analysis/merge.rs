//! The merge: all streams' events in order of their stamps.
//!
//! Only streams that are due are open, and each open one holds a piece of one decoded block. How
//! large the pieces are depends on how many streams are ever open at once, so that ten thousand
//! threads that sleep most of the time take no more memory than a few busy ones; their blocks are
//! decoded a few times instead.
//!
//! While one stream is behind all others, its records run through without a look at the others.

use super::cursor::{Cursor, Failure, Reader, Stop};
use super::event::{Event, EventSink};
use super::source::{EventSource, Stream};
use super::tournament::{OUT, Tournament};

/// Events that a sink gets at once.
pub const BATCH: usize = 64;
/// Bytes that all decoded pieces may take, roughly.
const BUDGET: usize = 64 << 20;
/// Limits of a piece in words.
const PIECE: std::ops::RangeInclusive<usize> = 256..=1 << 20;

/// What a merge has to say at its end.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Events after the end of recording.
    pub lost: u64,
    /// Blocks that could not be read.
    pub failures: Vec<Failure>,
}

/// Merges all streams of `source` into `sink`. Events with stamps above `ended` are only counted.
/// `progress` hears now and then how many words are done.
pub fn merge<S: EventSource>(
    source: &mut S,
    ended: u64,
    sink: &mut impl EventSink,
    mut progress: impl FnMut(u64),
) -> Outcome {
    let quota = piece_words(source.streams());
    let mut waiting = opening_order(source.streams());
    let mut merge = Merge {
        reader: Reader::new(source, quota, ended),
        open: Vec::new(),
        game: Tournament::new(),
        events: Vec::with_capacity(BATCH),
    };
    let mut reported = 0;
    loop {
        let due = waiting.last().map_or(OUT, |&(stamp, _)| stamp);
        match merge.game.winner() {
            Some((stamp, player)) if stamp < due => merge.advance(player, due, sink),
            _ => match waiting.pop() {
                Some((_, stream)) => merge.enter(stream),
                None => break,
            },
        }
        if merge.reader.words_done - reported >= 1 << 20 {
            reported = merge.reader.words_done;
            progress(reported);
        }
    }
    merge.flush(sink);
    progress(merge.reader.words_done);
    Outcome { lost: merge.reader.lost, failures: merge.reader.failures }
}

/// When streams have to be opened: (first stamp, stream), the earliest last.
fn opening_order(streams: &[Stream]) -> Vec<(u64, u32)> {
    let first = |stream: &Stream| stream.blocks.first().map(|block| block.first_stamp.min(OUT - 1));
    let mut order: Vec<_> =
        streams.iter().enumerate().filter_map(|(at, stream)| Some((first(stream)?, at as u32))).collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    order
}

/// Words that a piece may have, so that all streams that are open at once keep to the budget.
fn piece_words(streams: &[Stream]) -> usize {
    let mut changes = Vec::with_capacity(streams.len() * 2);
    for stream in streams {
        if let (Some(first), Some(last)) = (stream.blocks.first(), stream.blocks.last()) {
            // At the same stamp the opening counts first: false < true.
            changes.push((first.first_stamp, false));
            changes.push((last.last_stamp.max(first.first_stamp), true));
        }
    }
    changes.sort_unstable();
    let (mut open, mut most) = (0usize, 1usize);
    for (_, closes) in changes {
        open = if closes { open.saturating_sub(1) } else { open + 1 };
        most = most.max(open);
    }
    share(&mut largest_blocks(streams), most).clamp(*PIECE.start(), *PIECE.end())
}

/// Of each stream the words of its largest block.
fn largest_blocks(streams: &[Stream]) -> Vec<usize> {
    let words = |stream: &Stream| stream.blocks.iter().map(|block| block.words as usize).max().unwrap_or(0);
    streams.iter().map(words).collect()
}

/// Words for each of the `most` largest of these, where what the smaller ones leave is shared by the larger: a stream of large
/// blocks beside thousands with small ones has room for a whole block, which is then decoded once.
fn share(largest: &mut [usize], most: usize) -> usize {
    largest.sort_unstable();
    let open = &largest[largest.len().saturating_sub(most)..];
    let mut budget = BUDGET / 8;
    for (at, &words) in open.iter().enumerate() {
        let each = budget / (open.len() - at);
        if words > each {
            return each;
        }
        budget -= words;
    }
    *PIECE.end()
}

struct Merge<'a, S> {
    reader: Reader<'a, S>,
    /// Cursors by their players' numbers.
    open: Vec<Option<Cursor>>,
    game: Tournament,
    events: Vec<Event>,
}

impl<S: EventSource> Merge<'_, S> {
    /// Opens a stream. A limit of 0 only asks when it is due.
    fn enter(&mut self, stream: u32) {
        let mut cursor = Cursor::open(stream, &mut self.reader);
        match cursor.run(&mut self.reader, 0, usize::MAX, &mut self.events) {
            Stop::Due(stamp) => self.seat(cursor, stamp),
            Stop::Full | Stop::End => cursor.close(&mut self.reader),
        }
    }

    fn seat(&mut self, cursor: Cursor, stamp: u64) {
        let player = self.game.enter(stamp.min(OUT - 1)) as usize;
        if self.open.len() <= player {
            self.open.resize_with(player + 1, || None);
        }
        self.open[player] = Some(cursor);
    }

    /// Lets the winner run until another stream is due.
    fn advance(&mut self, player: u32, due: u64, sink: &mut impl EventSink) {
        let limit = self.game.runner_up().min(due);
        let Some(cursor) = self.open[player as usize].as_mut() else { return self.game.leave(player) };
        loop {
            match cursor.run(&mut self.reader, limit, BATCH, &mut self.events) {
                Stop::Full => {
                    sink.batch(&self.events);
                    self.events.clear();
                }
                Stop::Due(stamp) => return self.game.set(player, stamp.min(OUT - 1)),
                Stop::End => break,
            }
        }
        self.game.leave(player);
        if let Some(cursor) = self.open[player as usize].take() {
            cursor.close(&mut self.reader);
        }
    }

    fn flush(&mut self, sink: &mut impl EventSink) {
        if !self.events.is_empty() {
            sink.batch(&self.events);
            self.events.clear();
        }
    }
}

#[cfg(test)]
mod tests;
