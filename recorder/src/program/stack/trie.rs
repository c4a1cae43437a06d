//! Stacks as numbers: a trie whose nodes are frames, shared by all threads, without locks.
//!
//! A node is (parent, key), its id a u32; a stack is the id of its leaf. The key is the first word of the
//! node's record: pc and kind. Ids count up from 1. Three ways lead to the child (parent, key), the next where one fails:
//!
//! 1. **The hint.** Each node remembers the child that was asked for last. Most stacks repeat, so this nearly
//!    always answers.
//! 2. **What came after it.** Each node also remembers which of its siblings was asked for after it. A program that goes
//!    through the same calls again does so in the same order: this answers, and costs nothing but the child's own cache line.
//! 3. **The hash table.** Lines of eight `u64` entries (hash << 32 | id), one cache line each; the high
//!    bits of the 32-bit hash choose the line, full lines run over into the next ones.
//!
//! Nodes lie in chunks of 6 MiB, and never move. The hash table is copied into one twice the size when it
//! is 5/8 full. As the line number is the top of the hash, lines 2n and 2n+1 of the new table take what line n of the
//! old one held: the copy runs through both in order.
//!
//! Where stacks are new to the caches, going down waits for memory at each cache line of nodes. But what was interned
//! together stands together: the children below a node that was found mostly follow it, so the lines
//! behind it are fetched ahead.
//!
//! **Races are allowed to lose, never to lie.** An id is published (by a release store into a hint or the table)
//! after its node is written *and its record is in the thread's buffer*, so whoever sees an id may use it. Two
//! threads may insert the same child at once, or one may insert into a table that another has just copied: then the
//! child gets a second id, which readers of the trace join with the first. Nothing is ever removed.
//!
//! **Memory** is private and reads as zero in a forked child: zero means empty everywhere, so a child starts with an
//! empty trie, and with node 0, which the trie marks when it is first used, unmarked: that is how it is noticed.
//! All chunks but the first (most programs need no other) are on huge pages where the system gives them.

use crate::heap;
use crate::sys::memory;
use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

const HUGE_PAGE: usize = 2 << 20;
/// Nodes of a chunk, as a power of two.
const CHUNK_BITS: u32 = 18;
const CHUNK_BYTES: usize = size_of::<Node>() << CHUNK_BITS;
const CHUNKS: usize = 1 << (32 - CHUNK_BITS);
const LINE: usize = 8;
const FIRST_LINES_BITS: u32 = 6;
/// Lines that are looked at, from the first one on.
const PROBES: usize = 16;
/// Cache lines of nodes that are fetched at once, where a stack is followed outwards.
const NODES_BEFORE: usize = 8;
/// Key of node 0 once the trie is used: no record has it.
const MARK: u64 = u64::MAX;

#[repr(C)]
struct Node {
    key: AtomicU64,
    parent: AtomicU32,
    /// The child that was found last.
    hint: AtomicU32,
    /// The child of the same parent that was asked for after this one.
    after: AtomicU32,
}

const _: () = assert!(CHUNK_BYTES.is_multiple_of(HUGE_PAGE));

impl Node {
    /// Begins to fetch a cache line behind this node's.
    #[inline(always)]
    fn fetch_line_behind(&self, lines: usize) {
        let place = core::ptr::from_ref(self).cast::<i8>().wrapping_add(lines * 64);
        // SAFETY: a hint to the processor, which ignores addresses where nothing is.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place) };
    }
}

/// A trie. [`Trie::new`] is usable at once and maps memory when it is first asked.
pub struct Trie {
    next: AtomicU32,
    chunks: [AtomicPtr<Node>; CHUNKS],
    /// Address of the table's first line, and the binary logarithm of the number of its lines in the low bits.
    table: AtomicUsize,
    growing: AtomicU32,
}

/// A node on the way down.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Its id; 0 where there was no memory.
    pub id: u32,
    node: &'a Node,
}

impl Place<'_> {
    /// The node's key.
    #[inline(always)]
    #[must_use]
    pub fn key(self) -> u64 {
        self.node.key.load(Ordering::Relaxed)
    }

    /// Begins to fetch the nodes that were made before this one.
    #[inline(always)]
    pub fn fetch_lines_before(self) {
        for lines in 1..=NODES_BEFORE {
            let place = core::ptr::from_ref(self.node).cast::<i8>().wrapping_sub(lines * 64);
            // SAFETY: a hint to the processor, which ignores addresses where nothing is.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(place) };
        }
    }
}

/// What happens before a new node can be seen: its record is written. (id, parent, key)
pub trait Emit {
    /// Writes the record of a new node.
    fn emit(&mut self, id: u32, parent: u32, key: u64);
}

#[derive(Clone, Copy)]
struct Table {
    lines: *const [AtomicU64; LINE],
    bits: u32,
}

impl Table {
    fn unpack(packed: usize) -> Option<Self> {
        (packed != 0).then_some(Self { lines: (packed & !4095) as *const _, bits: (packed & 4095) as u32 })
    }

    fn pack(self) -> usize {
        self.lines as usize | self.bits as usize
    }

    fn map(bits: u32) -> Option<Self> {
        let lines = map(size_of::<[u64; LINE]>() << bits)?.cast_const().cast();
        Some(Self { lines, bits })
    }

    fn bytes(self) -> usize {
        size_of::<[u64; LINE]>() << self.bits
    }

    /// The `probe`th line for a hash.
    #[inline(always)]
    fn line(&self, hash: u32, probe: usize) -> &[AtomicU64; LINE] {
        let home = (hash >> (32 - self.bits)) as usize;
        // SAFETY: the index is below the number of lines, and tables are never unmapped.
        unsafe { &*self.lines.add((home + probe) & ((1 << self.bits) - 1)) }
    }

    /// Puts an entry into the first free place; false where there is none near enough.
    fn insert(&self, entry: u64) -> bool {
        let hash = (entry >> 32) as u32;
        for probe in 0..PROBES {
            for place in self.line(hash, probe) {
                if place.load(Ordering::Relaxed) == 0
                    && place.compare_exchange(0, entry, Ordering::Release, Ordering::Relaxed).is_ok()
                {
                    return true;
                }
            }
        }
        false
    }
}

fn map(bytes: usize) -> Option<*mut u8> {
    if bytes < HUGE_PAGE {
        return heap::map_wiped(bytes);
    }
    let base = memory::map_private_aligned(bytes, HUGE_PAGE).ok()?;
    // SAFETY: a fresh mapping of ours.
    unsafe {
        let _ = memory::advise(base, bytes, libc::MADV_WIPEONFORK);
        let _ = memory::advise(base, bytes, libc::MADV_HUGEPAGE);
    }
    Some(base)
}

#[inline(always)]
fn hash(parent: u32, key: u64) -> u32 {
    let mixed = (key ^ 0x9e37_79b9_7f4a_7c15) as u128
        * ((u64::from(parent) ^ 0x5851_f42d).wrapping_mul(0xd1b5_4a32_d192_ed03) | 1) as u128;
    ((mixed as u64) ^ (mixed >> 64) as u64).wrapping_mul(0xff51_afd7_ed55_8ccd).wrapping_shr(32) as u32
}

impl Trie {
    /// An empty trie.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: AtomicU32::new(1),
            chunks: [const { AtomicPtr::new(null_mut()) }; CHUNKS],
            table: AtomicUsize::new(0),
            growing: AtomicU32::new(0),
        }
    }

    /// Makes sure that the trie can be asked; true where this is its first use in this process image.
    ///
    /// To be called before [`Trie::child`] with parent 0; everything else follows from ids that were found after.
    #[inline]
    pub fn prepare(&self) -> Option<bool> {
        let first = self.chunks.first()?.load(Ordering::Acquire);
        // SAFETY: a chunk that is there is mapped for good, and node 0 is in the first one.
        if !first.is_null() && unsafe { (*first).key.load(Ordering::Relaxed) } == MARK {
            return Some(false);
        }
        self.begin()
    }

    #[cold]
    fn begin(&self) -> Option<bool> {
        let first = self.chunk(0)?;
        if self.table.load(Ordering::Acquire) == 0 {
            self.publish_table(0, Table::map(FIRST_LINES_BITS)?);
        }
        // SAFETY: node 0 is in the first chunk, which is mapped for good.
        let before = unsafe { (*first).key.swap(MARK, Ordering::AcqRel) };
        Some(before != MARK)
    }

    /// Forgets all nodes, in a child that has the memory of its parent no more.
    pub fn reset(&self) {
        self.next.store(1, Ordering::Relaxed);
        self.growing.store(0, Ordering::Relaxed);
    }

    /// The id that the next node gets.
    #[must_use]
    pub fn next_id(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn node(&self, id: u32) -> &Node {
        let (chunk, index) = (id >> CHUNK_BITS, id & ((1 << CHUNK_BITS) - 1));
        // SAFETY: ids are only known once their node's chunk is there (id 0: after `prepare`), chunks are
        // mapped for good, and there is a pointer for every u32.
        unsafe { &*self.chunks.get_unchecked(chunk as usize).load(Ordering::Acquire).add(index as usize) }
    }

    /// Key and parent of a node.
    #[must_use]
    pub fn get(&self, id: u32) -> (u64, u32) {
        let node = self.node(id);
        (node.key.load(Ordering::Relaxed), node.parent.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn is(&self, id: u32, parent: u32, key: u64) -> bool {
        let node = self.node(id);
        node.key.load(Ordering::Relaxed) == key && node.parent.load(Ordering::Relaxed) == parent
    }

    /// The id of a child; a new one is recorded first. 0 where there is no memory for it, or no id.
    pub fn child(&self, parent: u32, key: u64, emit: &mut impl Emit) -> u32 {
        self.descend(self.place(parent), key, emit).id
    }

    /// A node to descend from.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, id: u32) -> Place<'_> {
        Place { id, node: self.node(id) }
    }

    /// The node further out; that of node 0 is itself.
    #[inline(always)]
    #[must_use]
    pub fn parent<'a>(&'a self, place: Place<'a>) -> Place<'a> {
        let id = place.node.parent.load(Ordering::Relaxed);
        // Mostly it was made right before, so where it lies need not wait for what was loaded.
        if id.wrapping_add(1) == place.id && place.id & ((1 << CHUNK_BITS) - 1) != 0 {
            // SAFETY: the node is not the first of its chunk, so the one before is in it as well.
            return Place { id, node: unsafe { &*core::ptr::from_ref(place.node).sub(1) } };
        }
        self.place(id)
    }

    /// As [`Trie::child`].
    #[inline(always)]
    pub fn descend<'a>(&'a self, parent: Place<'a>, key: u64, emit: &mut impl Emit) -> Place<'a> {
        let hint = self.place(parent.node.hint.load(Ordering::Acquire));
        // Node 0 is nobody's child: its key is no record's.
        if hint.node.key.load(Ordering::Relaxed) == key
            && hint.node.parent.load(Ordering::Relaxed) == parent.id
        {
            hint.node.fetch_line_behind(2);
            return hint;
        }
        let after = self.place(hint.node.after.load(Ordering::Acquire));
        if after.node.key.load(Ordering::Relaxed) == key
            && after.node.parent.load(Ordering::Relaxed) == parent.id
        {
            after.node.fetch_line_behind(2);
            parent.node.hint.store(after.id, Ordering::Release);
            return after;
        }
        self.place(self.other_child(parent.id, key, emit))
    }

    #[inline(never)]
    fn other_child(&self, parent: u32, key: u64, emit: &mut impl Emit) -> u32 {
        let id = self.find(parent, key);
        if id == 0 {
            return self.add(parent, key, emit);
        }
        let node = self.node(id);
        node.fetch_line_behind(1);
        node.fetch_line_behind(2);
        self.asked_for(parent, id);
        id
    }

    /// Notes that a child was found.
    fn asked_for(&self, parent: u32, id: u32) {
        let parent = self.node(parent);
        let before = parent.hint.load(Ordering::Acquire);
        if before != 0 {
            self.node(before).after.store(id, Ordering::Release);
        }
        parent.hint.store(id, Ordering::Release);
    }

    #[inline]
    fn find(&self, parent: u32, key: u64) -> u32 {
        let Some(table) = Table::unpack(self.table.load(Ordering::Acquire)) else { return 0 };
        let hash = hash(parent, key);
        for probe in 0..PROBES {
            for place in table.line(hash, probe) {
                let entry = place.load(Ordering::Acquire);
                if entry == 0 {
                    return 0;
                }
                if (entry >> 32) as u32 == hash && self.is(entry as u32, parent, key) {
                    return entry as u32;
                }
            }
        }
        0
    }

    #[cold]
    #[inline(never)]
    fn add(&self, parent: u32, key: u64, emit: &mut impl Emit) -> u32 {
        let taken = self.next.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |id| id.checked_add(1));
        let Ok(id) = taken else { return 0 };
        if self.chunk(id >> CHUNK_BITS).is_none() {
            return 0;
        }
        let node = self.node(id);
        node.key.store(key, Ordering::Relaxed);
        node.parent.store(parent, Ordering::Relaxed);
        emit.emit(id, parent, key);
        let entry = u64::from(hash(parent, key)) << 32 | u64::from(id);
        self.insert(entry);
        self.asked_for(parent, id);
        id
    }

    fn insert(&self, entry: u64) {
        // Growing fails for want of memory only; then the node is found by hints, or becomes a second one.
        for _ in 0..2 {
            let packed = self.table.load(Ordering::Acquire);
            let Some(table) = Table::unpack(packed) else { return };
            let inserted = table.insert(entry);
            let capacity = LINE << table.bits;
            if !inserted || self.next_id() as usize > capacity / 8 * 5 {
                self.grow(packed, table, !inserted || self.next_id() as usize > capacity / 8 * 7);
            }
            if inserted {
                return;
            }
        }
    }

    /// Copies the table into a larger one. One thread does that; where it is pressing, whoever comes (the
    /// one that began may have been thrown out of it by a signal handler's `longjmp`).
    #[cold]
    fn grow(&self, packed: usize, old: Table, pressing: bool) {
        if self.growing.swap(1, Ordering::Acquire) != 0 && !pressing {
            return;
        }
        if self.table.load(Ordering::Acquire) == packed {
            let step = if old.bits < 12 { 2 } else { 1 };
            let mut bits = old.bits + step;
            while bits < 29 {
                let Some(new) = Table::map(bits) else { break };
                if copy(old, new) {
                    self.publish_table(packed, new);
                    break;
                }
                discard(new);
                bits += 1;
            }
        }
        self.growing.store(0, Ordering::Release);
    }

    fn publish_table(&self, before: usize, new: Table) {
        match self.table.compare_exchange(before, new.pack(), Ordering::AcqRel, Ordering::Relaxed) {
            // Others may still look into the old table, so it stays mapped, but its memory can go: empty is safe.
            Ok(_) => {
                if let Some(old) = Table::unpack(before) {
                    // SAFETY: a table of ours; a reader that finds nothing in it is allowed for.
                    let _ = unsafe { memory::advise(old.lines as *mut u8, old.bytes(), libc::MADV_DONTNEED) };
                }
            }
            Err(_) => discard(new),
        }
    }

    /// A chunk, mapped if it is not there yet.
    fn chunk(&self, index: u32) -> Option<*mut Node> {
        let slot = self.chunks.get(index as usize)?;
        let known = slot.load(Ordering::Acquire);
        if !known.is_null() {
            return Some(known);
        }
        let base = if index == 0 { heap::map_wiped(CHUNK_BYTES)? } else { map(CHUNK_BYTES)? };
        match slot.compare_exchange(null_mut(), base.cast(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(base.cast()),
            Err(other) => {
                // SAFETY: nobody else has seen the fresh mapping.
                let _ = unsafe { memory::unmap(base, CHUNK_BYTES) };
                Some(other)
            }
        }
    }
}

impl Default for Trie {
    fn default() -> Self {
        Self::new()
    }
}

fn discard(table: Table) {
    // SAFETY: the table was never published.
    let _ = unsafe { memory::unmap(table.lines as *mut u8, table.bytes()) };
}

fn copy(old: Table, new: Table) -> bool {
    for index in 0..1_usize << old.bits {
        // SAFETY: the index is below the number of lines.
        for place in unsafe { &*old.lines.add(index) } {
            let entry = place.load(Ordering::Acquire);
            if entry != 0 && !new.insert(entry) {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    #[derive(Default)]
    struct Log(Vec<(u32, u32, u64)>);

    impl Emit for Log {
        fn emit(&mut self, id: u32, parent: u32, key: u64) {
            self.0.push((id, parent, key));
        }
    }

    #[test]
    fn children_keep_their_ids_while_the_trie_grows() {
        let trie = Trie::new();
        let mut log = Log::default();
        assert_eq!((trie.prepare(), trie.prepare()), (Some(true), Some(false)));
        let mut ids = HashMap::new();
        let mut seed = 7_u64;
        let mut known = vec![0_u32];
        for _ in 0..300_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let parent = known[(seed >> 33) as usize % known.len()];
            let key = seed >> 20 & 0x7;
            let id = trie.child(parent, key, &mut log);
            assert_ne!(id, 0);
            let before = ids.entry((parent, key)).or_insert(id);
            assert_eq!(*before, id);
            if id as usize == known.len() {
                known.push(id);
            }
        }
        assert!(trie.next_id() > 200_000);
        assert_eq!(log.0.len(), trie.next_id() as usize - 1);
        for (index, (id, parent, key)) in log.0.iter().enumerate() {
            assert_eq!(*id as usize, index + 1);
            assert!(parent < id);
            assert_eq!(ids[&(*parent, *key)], *id);
        }
    }

    #[test]
    fn children_that_come_in_turn_lead_to_each_other() {
        let trie = Trie::new();
        let mut log = Log::default();
        trie.prepare();
        let parent = trie.child(0, 100, &mut log);
        let ids = [1, 2, 3].map(|key| trie.child(parent, key, &mut log));
        for _ in 0..2 {
            assert_eq!([1, 2, 3].map(|key| trie.child(parent, key, &mut log)), ids);
        }
        let after = ids.map(|id| trie.node(id).after.load(Ordering::Relaxed));
        assert_eq!(after, [ids[1], ids[2], ids[0]]);
        assert_eq!(trie.node(0).after.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn threads_agree_but_for_a_few_doubles() {
        let trie = Trie::new();
        trie.prepare();
        let logs: Vec<Log> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut log = Log::default();
                        for i in 0..50_000_u64 {
                            let parent = trie.child(0, i % 100, &mut log);
                            let id = trie.child(parent, i, &mut log);
                            assert!(trie.is(id, parent, i) && trie.is(parent, 0, i % 100));
                        }
                        log
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let all: Vec<_> = logs.into_iter().flat_map(|log| log.0).collect();
        assert_eq!(all.len() + 1, trie.next_id() as usize);
        let ids: HashSet<u32> = all.iter().map(|node| node.0).collect();
        assert_eq!(ids.len(), all.len());
        let distinct: HashSet<(u32, u64)> = all.iter().map(|node| (node.1, node.2)).collect();
        assert!(distinct.len() >= 50_100);
    }
}
