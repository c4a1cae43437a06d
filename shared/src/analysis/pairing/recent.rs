//! The last lives that ended: a ring.

use super::{By, Life, WINDOW};

/// Lives in the ring. At 20 M ends a second on all cores together they cover 50 µs.
const LENGTH: usize = 1024;

/// Most lives of one address that are looked at again.
const MOST: usize = 16;

/// A ring of lives; the oldest falls out when a new one comes.
#[derive(Debug, Default)]
pub struct Recent {
    lives: Vec<Life>,
    /// Where the next goes, once the ring is full: the oldest.
    next: usize,
}

impl Recent {
    /// Adds a life; `closes` hears of the one that falls out, where it lies: it is not copied, because what has just been
    /// written in other pieces than it is read in makes a processor wait.
    #[inline]
    pub fn push(&mut self, life: Life, closes: impl FnOnce(&Life)) {
        if self.lives.len() < LENGTH {
            return self.lives.push(life);
        }
        let oldest = &mut self.lives[self.next];
        closes(oldest);
        *oldest = life;
        self.next = (self.next + 1) % LENGTH;
    }

    /// The life in a slot.
    pub fn get(&self, slot: usize) -> Life {
        self.lives[slot]
    }

    /// Replaces the life in a slot.
    pub fn set(&mut self, slot: usize, life: Life) {
        self.lives[slot] = life;
    }

    /// Slots of the last lives at `address` that ended after `since`, oldest first.
    pub fn of_address(&self, address: u64, since: u64) -> Vec<usize> {
        let length = self.lives.len();
        // Events may have waited before they got in, so the order is only right to a few windows.
        let newest_first = (1..=length).map(|back| (self.next + length - back) % length);
        let near = newest_first.take_while(|&at| self.lives[at].end.time + 16 * WINDOW >= since);
        let here = near.filter(|&at| self.lives[at].block.address == address);
        let mut slots: Vec<_> = here
            .take_while(|&at| self.lives[at].end.by != By::Unseen && self.lives[at].end.time >= since)
            .take(MOST)
            .collect();
        slots.reverse();
        slots
    }

    /// Empties the ring, oldest first.
    pub fn drain(&mut self, mut each: impl FnMut(&Life)) {
        let (newer, older) = self.lives.split_at(self.next);
        older.iter().chain(newer).for_each(&mut each);
        self.lives.clear();
        self.next = 0;
    }
}
