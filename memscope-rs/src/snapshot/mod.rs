//! A snapshot: everything that was tracked, as it is at one instant.
//!
//! ```text
//! store -> View (lives at an instant, in order of their start) -> Made (model::Snapshot, its rows) -> export
//! ```
//!
//! Other threads go on tracking while a snapshot is made. What begins after its instant is not in it, what ends
//! after it lives.

mod frames;
mod make;

pub use make::Made;

use crate::store::{Slot, Store};
use crate::{clock, names, scope};
use frames::Frames;
use memscope_shared::model::{AllocationInfo, End, FreedBy, Stats};

/// What ends with the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: the program goes on, and what lives stays so.
    Running,
    /// The process, by `exit`, with this status.
    Exit(Option<i32>),
    /// The process, by this signal.
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no signals"))]
    Signal(i32),
    /// Perhaps the process: a thread panics.
    Panic,
}

impl Ending {
    const fn end(self) -> End {
        match self {
            Self::Running => End::Running,
            Self::Exit(_) => End::Exit,
            Self::Signal(_) => End::Signal,
            Self::Panic => End::Unknown,
        }
    }

    const fn freed_by(self) -> FreedBy {
        match self {
            Self::Running => FreedBy::Live,
            _ => FreedBy::Exit,
        }
    }
}

/// One life, as it stands at the view's instant. Times are the clock's.
#[derive(Clone, Copy, Debug)]
pub struct Life<'s> {
    slot: &'s Slot,
    address: usize,
    size: usize,
    start: u64,
    /// For what lives, the view's instant.
    end: u64,
    live: bool,
}

impl<'s> Life<'s> {
    /// The life of a slot at an instant; `None` where it has not begun.
    fn of(slot: &'s Slot, now: u64) -> Option<Self> {
        let start = slot.start();
        let live = !slot.had_ended(now);
        let end = if live { now } else { slot.end() };
        let begun = start != 0 && start <= now;
        begun.then(|| Self {
            slot,
            address: slot.address(),
            size: slot.size(),
            start,
            end: end.max(start),
            live,
        })
    }

    const fn lifetime(&self) -> u64 {
        self.end - self.start
    }

    /// Name, type and scope of its variable.
    fn texts(&self) -> [Option<&'s str>; 3] {
        let name = names::get(self.slot.name());
        let scope = scope::name(self.slot.scope()).or(name.and_then(|name| name.module));
        [name.and_then(|name| name.name.as_deref()), name.and_then(|name| name.type_name.as_deref()), scope]
    }
}

/// All lives at an instant, in order of their start.
#[derive(Debug)]
pub struct View<'s> {
    lives: Vec<Life<'s>>,
    ending: Ending,
    /// The instant; later where an end was told that lies behind it.
    end: u64,
    lost: u64,
}

impl<'s> View<'s> {
    /// The view of a store now.
    pub fn new(store: &'s Store, ending: Ending) -> Self {
        let now = clock::now();
        let mut lives: Vec<Life<'s>> = store.iter().filter_map(|slot| Life::of(slot, now)).collect();
        lives.sort_unstable_by_key(|life| (life.start, life.address));
        let end = lives.iter().map(|life| life.end).fold(now, u64::max);
        Self { lives, ending, end, lost: store.lost() }
    }

    /// Number of lives.
    pub const fn len(&self) -> usize {
        self.lives.len()
    }

    /// Everything, with stacks written out.
    pub fn rows(&self) -> impl Iterator<Item = AllocationInfo> {
        let mut frames = Frames::default();
        self.lives.iter().map(move |life| {
            let stack = frames.of(life.slot);
            AllocationInfo { stack_trace: Some(stack.to_vec()), ..self.row(life) }
        })
    }

    /// The totals.
    pub fn stats(&self) -> Stats {
        make::Sums::of(self).stats
    }

    fn row(&self, life: &Life<'_>) -> AllocationInfo {
        let slot = life.slot;
        let [var_name, type_name, scope_name] = life.texts().map(|text| text.map(str::to_owned));
        let freed_by = if life.live { self.ending.freed_by() } else { FreedBy::Free };
        AllocationInfo {
            ptr: life.address,
            size: life.size,
            timestamp_alloc: clock::epoch(life.start),
            timestamp_dealloc: (freed_by != FreedBy::Live).then(|| clock::epoch(life.end)),
            var_name,
            type_name,
            scope_name,
            stack_trace: None,
            borrow_count: slot.borrows() as usize,
            is_leaked: freed_by == FreedBy::Exit,
            lifetime_ms: Some(life.lifetime() / 1_000_000),
            lifetime_ns: life.lifetime(),
            freed_by,
            thread_id: u64::from(slot.thread()),
            dealloc_thread_id: (!life.live).then(|| u64::from(slot.end_thread())),
            stack_id: None,
        }
    }
}

#[cfg(test)]
mod tests;
