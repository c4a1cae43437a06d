//! Two cores: one decodes and merges, the other pairs and counts.
//!
//! The events go over in batches; the emptied ones go back, so that nothing is allocated on the way.

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::event::{Event, EventSink};
use super::merge::{Outcome, merge};
use super::source::EventSource;

/// Events that go over at once.
const BATCH: usize = 1 << 10;
/// Batches on the way.
const DEPTH: usize = 16;

/// Does what [`merge`] does, with the merge on a thread of its own where there is a core for it.
pub fn merge_aside<S: EventSource + Send>(
    source: &mut S,
    ended: u64,
    sink: &mut impl EventSink,
    progress: impl FnMut(u64),
) -> Outcome {
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        return merge(source, ended, sink, progress);
    }
    on_two_threads(source, ended, sink, progress)
}

fn on_two_threads<S: EventSource + Send>(
    source: &mut S,
    ended: u64,
    sink: &mut impl EventSink,
    mut progress: impl FnMut(u64),
) -> Outcome {
    let words = AtomicU64::new(0);
    let (full, taken) = bounded(DEPTH);
    let (emptied, spare) = unbounded();
    // Locked once, by whichever of the two threads gets to merge.
    let source = Mutex::new(source);
    let merge_here = |sink: &mut dyn FnMut(&[Event]), progress: &mut dyn FnMut(u64)| {
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        merge(&mut **source, ended, &mut { sink }, progress)
    };
    thread::scope(|scope| {
        let merging = thread::Builder::new().name("merge".into()).spawn_scoped(scope, || {
            let mut sender = BatchSender { batch: Vec::with_capacity(BATCH), full, spare };
            let outcome = merge_here(&mut |events| sender.take(events), &mut |done| {
                words.store(done, Ordering::Relaxed);
            });
            sender.send();
            outcome
        });
        // Without a thread nothing comes: its end of the channel is gone.
        receive(&taken, &emptied, sink, || progress(words.load(Ordering::Relaxed)));
        let outcome = match merging.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => merge_here(&mut |events| sink.batch(events), &mut progress),
        };
        progress(words.load(Ordering::Relaxed));
        outcome
    })
}

/// The merging side.
struct BatchSender {
    batch: Vec<Event>,
    full: Sender<Vec<Event>>,
    spare: Receiver<Vec<Event>>,
}

impl BatchSender {
    fn take(&mut self, events: &[Event]) {
        self.batch.extend_from_slice(events);
        if self.batch.len() >= BATCH {
            self.send();
        }
    }

    fn send(&mut self) {
        let next = self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH + BATCH / 8));
        // It fails only if the other side has panicked, and then nothing matters any more.
        let _ = self.full.send(std::mem::replace(&mut self.batch, next));
    }
}

/// The other side: until the merge has ended.
fn receive(
    taken: &Receiver<Vec<Event>>,
    emptied: &Sender<Vec<Event>>,
    sink: &mut impl EventSink,
    mut progress: impl FnMut(),
) {
    for mut batch in taken {
        sink.batch(&batch);
        batch.clear();
        progress();
        let _ = emptied.send(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::MemorySource;
    use super::super::testing::Words;
    use super::*;

    #[test]
    fn two_threads_give_the_same() {
        for count in [0, 1, 1_000, 60_000] {
            let mut source = MemorySource::new();
            for thread in 1..4 {
                let words =
                    (0..count).fold(Words::new(), |words, n| words.alloc(n + 1, n * 7 * thread, 1, n));
                source.push(thread as u32, &[words.0]);
            }
            let (mut one, mut two) = (Vec::new(), Vec::new());
            merge(&mut source, 200_000, &mut |events: &[Event]| one.extend_from_slice(events), |_| {});
            let (mut last, mut sorted) = (0, true);
            let progress = |done| {
                sorted &= last <= done;
                last = done;
            };
            let sink = &mut |events: &[Event]| two.extend_from_slice(events);
            let outcome = on_two_threads(&mut source, 200_000, sink, progress);
            assert!(one == two, "{} events and {}", one.len(), two.len());
            assert_eq!(outcome.lost, count * 3 - one.len() as u64);
            assert!(sorted);
            assert_eq!(last, count * 9);
        }
    }
}
