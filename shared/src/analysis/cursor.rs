//! A stream's place in the merge: holds a piece of one decoded block and turns records into events.
//!
//! A `REALLOC_BEGIN` ends a block only if what follows in its stream says so. The follower is
//! nearly always the next record, so the cursor looks ahead for it, and pairing hears of ends that
//! are certain and nothing of calls that failed.

use super::event::{Event, EventKind};
use super::source::{Block, EventSource, Stream};
use super::tournament::OUT;
use crate::record::{self, NAMED_UNIT, Records, kind, kind_of, operand};

/// A block that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its [`Block::id`].
    pub block: u32,
    /// Its first stamp.
    pub since: u64,
    /// What happened.
    pub why: String,
}

/// Adds a failure, once for each block.
pub fn note_failure(failures: &mut Vec<Failure>, block: &Block, why: String) {
    if !failures.iter().any(|failure| failure.block == block.id) {
        failures.push(Failure { block: block.id, since: block.first_stamp, why });
    }
}

/// Where blocks are decoded, how much of one a cursor may keep, and what went wrong.
#[derive(Debug)]
pub struct Reader<'a, S> {
    source: &'a mut S,
    /// Most words that a cursor holds, but at least one record.
    quota: usize,
    /// When recording ended: later events are only counted.
    ended: u64,
    /// Buffers of streams that have ended.
    spare: Vec<Vec<u64>>,
    /// Words that cursors are through with.
    pub words_done: u64,
    /// Events after the end of recording.
    pub lost: u64,
    /// Blocks that could not be read.
    pub failures: Vec<Failure>,
}

impl<'a, S: EventSource> Reader<'a, S> {
    /// Reads from `source`.
    pub fn new(source: &'a mut S, quota: usize, ended: u64) -> Self {
        Self { source, quota, ended, spare: Vec::new(), words_done: 0, lost: 0, failures: Vec::new() }
    }

    /// The source's streams.
    pub fn streams(&self) -> &[Stream] {
        self.source.streams()
    }

    /// Decodes block number `at` of a stream: its words, none where it cannot be read, and how many to
    /// leave out at the start. `None` behind the last block.
    fn decode(&mut self, stream: u32, at: usize) -> Option<(&[u64], usize)> {
        let block = *self.streams()[stream as usize].blocks.get(at)?;
        let words = match self.source.read(block.id) {
            Ok(words) => words,
            Err(why) => {
                note_failure(&mut self.failures, &block, why);
                &[]
            }
        };
        Some((words, (block.skip as usize).min(words.len())))
    }

    /// Decodes block number `at` of a stream into `words` if that may hold all of it; false if it may not.
    fn take(&mut self, stream: u32, at: usize, words: &mut Vec<u64>) -> bool {
        let block = self.streams()[stream as usize].blocks.get(at).copied();
        let Some(block) = block.filter(|block| block.skip == 0 && block.words as usize <= self.quota) else {
            return false;
        };
        if let Err(why) = self.source.take(block.id, words) {
            note_failure(&mut self.failures, &block, why);
            words.clear();
        }
        true
    }

    /// Keeps a buffer for the next stream.
    fn recycle(&mut self, mut words: Vec<u64>) {
        if self.spare.len() < 16 {
            words.clear();
            self.spare.push(words);
        }
    }
}

/// How a `REALLOC_BEGIN` went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Moved,
    Freed,
    /// It failed, or the process or the recording ended inside of the call: the block lives on.
    Lives,
}

/// What stopped [`Cursor::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The next event has this stamp, which is above the limit.
    Due(u64),
    /// The batch is full.
    Full,
    /// The stream has ended.
    End,
}

/// What stopped [`Place::events`].
enum Pause {
    Due(u64),
    Full,
    /// A `REALLOC_BEGIN` with this stamp is next.
    Begin(u64),
    /// No whole record is left.
    End,
}

/// A place in a piece of a stream.
#[derive(Debug, Default)]
struct Place {
    stream: u32,
    words: Vec<u64>,
    at: usize,
    /// The last stamp seen; stamps of a stream never fall.
    stamp: u64,
}

impl Place {
    /// Appends events up to `limit`: the loop that every event goes through.
    fn events(&mut self, limit: u64, full: usize, events: &mut Vec<Event>) -> Pause {
        loop {
            self.plain_events(limit, full, events);
            let words = &self.words[self.at..];
            let Some(length) = record::length(words) else { return Pause::End };
            let kind = kind_of(words[0]);
            if kind < kind::NODE {
                let stamp = self.stamp_of(words[1]);
                if stamp > limit {
                    return Pause::Due(stamp);
                }
                if kind == kind::REALLOC_BEGIN {
                    return Pause::Begin(stamp);
                }
                if events.len() >= full {
                    return Pause::Full;
                }
                events.extend(event(kind, &words[..length], stamp, self.stream));
                self.stamp = stamp;
            } else if kind == kind::NAMED {
                let stamp = self.stamp_of(words[1]);
                if stamp > limit {
                    return Pause::Due(stamp);
                }
                if events.len() >= full {
                    return Pause::Full;
                }
                events.push(named(&words[..length], stamp, self.stream));
                self.stamp = stamp;
            }
            self.at += length;
        }
    }

    fn stamp_of(&self, word: u64) -> u64 {
        word.max(self.stamp).min(OUT - 1)
    }

    /// Appends events as long as they come from records of the two commonest kinds. Which of the two it is
    /// can hardly be foreseen, so nothing here branches on it.
    #[inline]
    fn plain_events(&mut self, limit: u64, full: usize, events: &mut Vec<Event>) {
        const _: () = assert!(kind::FREE & 1 == 0 && kind::ALLOC == kind::FREE | 1);
        let (mut at, mut last) = (self.at, self.stamp);
        let room = full.saturating_sub(events.len());
        for _ in 0..room {
            let Some(&[word0, word1, word2]) = self.words.get(at..at + 3) else { break };
            let stamp = word1.max(last).min(OUT - 1);
            if kind_of(word0) & !1 != kind::FREE || stamp > limit {
                break;
            }
            let is_start = u64::from(kind_of(word0) & 1);
            let sized = word2 & is_start.wrapping_neg();
            events.push(Event {
                stamp,
                address: operand(word0),
                size: sized & 0xffff_ffff,
                stack: (sized >> 32) as u32,
                stream: self.stream,
                kind: [EventKind::Free, EventKind::Start][is_start as usize],
            });
            last = stamp;
            at += 2 + is_start as usize;
        }
        (self.at, self.stamp) = (at, last);
    }

    /// Steps over the records behind the end of recording; returns how many calls they were.
    fn skip_all(&mut self) -> u64 {
        let records = Records::new(&self.words[self.at..]);
        let calls =
            records.filter(|r| kind_of(r[0]) < kind::NODE && kind_of(r[0]) != kind::REALLOC_BEGIN).count();
        self.at = self.words.len();
        calls as u64
    }
}

/// The event that a record other than a `REALLOC_BEGIN` makes.
#[inline]
fn event(kind: u8, record: &[u64], stamp: u64, stream: u32) -> Option<Event> {
    let address = operand(record[0]);
    let plain = |kind| Event { stamp, address, size: 0, stack: 0, stream, kind };
    let start = |size| Event { size, stack: (record[2] >> 32) as u32, ..plain(EventKind::Start) };
    match kind {
        kind::FREE => Some(plain(EventKind::Free)),
        kind::ALLOC | kind::REALLOC_MOVED => Some(start(record[2] & 0xffff_ffff)),
        kind::ALLOC_LARGE | kind::REALLOC_MOVED_LARGE => Some(start(record[3])),
        kind::FAILED | kind::REALLOC_FAILED => Some(plain(EventKind::Failed)),
        _ => None,
    }
}

/// The event that a `NAMED` makes.
fn named(record: &[u64], stamp: u64, stream: u32) -> Event {
    let (number, reach) = (record[2] as u32, record[2] >> 32);
    let (address, size, kind) = (operand(record[0]), reach * NAMED_UNIT, EventKind::Named);
    Event { stamp, address, size, stack: number, stream, kind }
}

/// The first record in `words` that tells how a `realloc` went on; `Some(Lives)` if another one
/// begins before.
fn follower(words: &[u64], ended: u64) -> Option<Outcome> {
    Records::new(words).find_map(|record| match kind_of(record[0]) {
        kind::REALLOC_MOVED | kind::REALLOC_MOVED_LARGE if record[1] <= ended => Some(Outcome::Moved),
        kind::REALLOC_FREED => Some(Outcome::Freed),
        kind::REALLOC_BEGIN | kind::REALLOC_FAILED => Some(Outcome::Lives),
        kind::REALLOC_MOVED | kind::REALLOC_MOVED_LARGE => Some(Outcome::Lives),
        _ => None,
    })
}

/// A stream that is being merged.
#[derive(Debug)]
pub struct Cursor {
    place: Place,
    /// Number in the stream of the block that the words are a piece of.
    block: usize,
    /// Where in that block the next piece starts; `None`: the words reach to its end.
    rest: Option<usize>,
}

impl Cursor {
    /// At the start of a stream.
    pub fn open<S: EventSource>(stream: u32, reader: &mut Reader<S>) -> Self {
        let words = reader.spare.pop().unwrap_or_default();
        let mut cursor = Self { place: Place { stream, words, at: 0, stamp: 0 }, block: 0, rest: None };
        cursor.load(None, reader);
        cursor
    }

    /// Gives the buffer back.
    pub fn close<S: EventSource>(self, reader: &mut Reader<S>) {
        reader.recycle(self.place.words);
    }

    /// Appends events with stamps up to `limit`, until `events` has `full` of them.
    pub fn run<S: EventSource>(
        &mut self,
        reader: &mut Reader<S>,
        limit: u64,
        full: usize,
        events: &mut Vec<Event>,
    ) -> Stop {
        loop {
            match self.place.events(limit.min(reader.ended), full, events) {
                Pause::Full => return Stop::Full,
                Pause::Begin(stamp) => self.begin(stamp, reader, events),
                Pause::Due(stamp) if stamp <= limit => reader.lost += self.place.skip_all(),
                Pause::Due(stamp) => return Stop::Due(stamp),
                Pause::End => {
                    if !self.refill(reader) {
                        return Stop::End;
                    }
                }
            }
        }
    }

    /// Takes a `REALLOC_BEGIN`: the old block ends if the call came to something.
    fn begin<S: EventSource>(&mut self, stamp: u64, reader: &mut Reader<S>, events: &mut Vec<Event>) {
        let address = operand(self.place.words[self.place.at]);
        self.place.at += 2;
        self.place.stamp = stamp;
        let kind = match self.outcome(reader) {
            Outcome::Moved => EventKind::Realloc,
            Outcome::Freed => EventKind::Free,
            Outcome::Lives => return,
        };
        events.push(Event { stamp, address, size: 0, stack: 0, stream: self.place.stream, kind });
    }

    /// Looks for what follows the `REALLOC_BEGIN` that was just read.
    fn outcome<S: EventSource>(&self, reader: &mut Reader<S>) -> Outcome {
        if let Some(outcome) = follower(&self.place.words[self.place.at..], reader.ended) {
            return outcome;
        }
        // Rare: it lies behind the piece that we hold. Decoding it once more costs less than holding it.
        let (mut block, mut from) = (self.block, self.rest);
        loop {
            if from.is_none() {
                block += 1;
            }
            let ended = reader.ended;
            let Some((words, skip)) = reader.decode(self.place.stream, block) else { return Outcome::Lives };
            let words = words.get(from.take().unwrap_or(skip)..).unwrap_or_default();
            if let Some(outcome) = follower(words, ended) {
                return outcome;
            }
        }
    }

    /// Goes on to the next piece; false at the end of the stream.
    fn refill<S: EventSource>(&mut self, reader: &mut Reader<S>) -> bool {
        reader.words_done += self.place.words.len() as u64;
        let from = self.rest.take();
        if from.is_none() {
            self.block += 1;
        }
        self.load(from, reader)
    }

    /// Takes as much of the current block as the quota allows, from word `from` on or its start; false
    /// if there is no such block.
    fn load<S: EventSource>(&mut self, from: Option<usize>, reader: &mut Reader<S>) -> bool {
        let quota = reader.quota;
        let Place { words: piece, at, stream, .. } = &mut self.place;
        piece.clear();
        *at = 0;
        if from.is_none() && reader.take(*stream, self.block, piece) {
            return true;
        }
        let Some((words, skip)) = reader.decode(*stream, self.block) else { return false };
        let from = from.unwrap_or(skip).min(words.len());
        let mut length = words.len() - from;
        if length > quota {
            let mut records = Records::new(&words[from..]);
            while words.len() - from - records.rest().len() < quota && records.next().is_some() {}
            length -= records.rest().len();
            self.rest = (length > 0 && !records.rest().is_empty()).then_some(from + length);
        }
        piece.extend_from_slice(&words[from..from + length]);
        true
    }
}
