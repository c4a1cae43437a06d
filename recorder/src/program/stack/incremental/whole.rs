//! Whole stacks: where next to nothing of them can be joined.
//!
//! A program that allocates at the end of another deep call path each time gains nothing from the stack before: few frames
//! are common to both, and to look for them, to record frames and their words and to fill the memo costs more than it
//! saves. So the gain is watched. After [`PATIENCE`] captures in a row that had to walk most of a
//! deep stack, with no help of the memo in between, the next [`REST`] captures unwind all of their stacks and
//! record nothing; then joining is tried again. So the worst case is full unwinding and no more, and where those
//! stacks come again it is less: [`super::guide`].
//!
//! The steps, the rules and the trie are the same. With the feature `full` all captures are whole and without a guide, which
//! is what benchmarks compare with.

use super::{Emit, Outer, Recorded, Stack, Trie, Walk, Walked, interned};

/// Captures in a row without gain, before whole stacks are unwound.
const PATIENCE: u32 = 8;
/// Captures that it takes to see that there still is none.
const AGAIN: u32 = 2;
/// Captures that are whole before joining is tried again.
const REST: u32 = 256;
/// Walks of fewer frames are cheap in any case.
const DEEP: usize = 8;

/// How well joining works. Zero bytes say that nothing is known.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Gain {
    /// Not 0 if the memo has told a stack since the last walk.
    pub recalled: u32,
    /// Walks in a row without gain.
    fruitless: u32,
    /// Captures that are still to be whole.
    rest: u32,
}

impl Gain {
    /// A walk of so many frames has joined so many others.
    #[inline(always)]
    pub fn weigh(&mut self, walked: usize, joined: usize) {
        // A frame that is recorded costs about one and a half that are only interned.
        let fruitless = walked >= DEEP && joined * 2 < walked && self.recalled == 0;
        self.fruitless = if fruitless { self.fruitless + 1 } else { 0 };
        self.recalled = 0;
    }

    /// Whether it is time to stop joining for a while.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.fruitless >= PATIENCE
    }
}

impl Stack {
    /// Weighs a walk that has put its frames down from `last` on and joined the recorded ones before `joined`.
    #[inline(always)]
    pub(super) fn weigh(&mut self, last: *mut Walked, joined: *mut Recorded) {
        // SAFETY: a walk's frames lie at the end of the storage, recorded ones at its start.
        let (walked, joined) = unsafe {
            (
                self.storage.end().offset_from_unsigned(last),
                joined.offset_from_unsigned(self.storage.frames()),
            )
        };
        self.gain.weigh(walked, joined);
    }

    /// Whether the next capture is to be whole.
    #[inline(always)]
    pub fn take_whole(&mut self) -> bool {
        if cfg!(feature = "full") {
            return true;
        }
        if self.gain.rest == 0 {
            return false;
        }
        self.gain.rest -= 1;
        if self.gain.rest == 0 {
            self.recalls = self.generation;
        }
        true
    }

    /// Forgets the recorded stack.
    pub fn forget(&mut self) {
        self.set_end(self.storage.frames());
    }

    /// Whether no stack is kept.
    #[cfg(test)]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether captures are whole just now.
    #[cfg(test)]
    pub fn is_resting(&self) -> bool {
        self.gain.rest > 0
    }

    /// Number of stacks that a guide has led through to their end.
    #[cfg(test)]
    pub fn guided(&self) -> u32 {
        self.guided
    }

    /// Stops joining for a while.
    #[cold]
    #[inline(never)]
    pub(super) fn rest(&mut self) {
        self.recalls = 0;
        self.guides.make();
        self.forget();
        self.gain = Gain { recalled: 0, fruitless: PATIENCE - AGAIN, rest: REST };
    }

    /// Interns the frames of a walk while nothing is recorded.
    #[inline(always)]
    pub fn intern<E: Emit>(
        &self,
        walk: Walk,
        trie: &Trie,
        emit: &mut E,
        root: impl FnOnce(&mut E) -> u32,
    ) -> u32 {
        let Walk { last: mut walked, outer } = walk;
        debug_assert!(!matches!(outer, Outer::Recorded(_)), "nothing is recorded");
        let root = root(emit);
        // SAFETY: the frames from `last` up to the end of the storage were put down by the walk, one at least.
        unsafe {
            let mut place = trie.place(interned(trie, root, outer, (*walked).key, emit));
            walked = walked.add(1);
            while walked != self.storage.end() && place.id != 0 {
                place = trie.descend(place, (*walked).key, emit);
                walked = walked.add(1);
            }
            place.id
        }
    }
}
