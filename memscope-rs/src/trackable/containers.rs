//! Containers that own one block, and collections.

use super::{Trackable, where_any};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CString, OsString};
use std::path::PathBuf;

impl<T> Trackable for Vec<T> {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        where_any(self.as_ptr(), self.get_size_estimate())
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
}

impl Trackable for String {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        where_any(self.as_ptr(), self.capacity())
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        self.capacity()
    }
}

impl Trackable for OsString {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        where_any(self.as_encoded_bytes().as_ptr(), self.capacity())
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        self.capacity()
    }
}

impl Trackable for PathBuf {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        where_any(self.as_os_str().as_encoded_bytes().as_ptr(), self.capacity())
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        self.capacity()
    }
}

impl Trackable for CString {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        Some(self.as_ptr() as usize)
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        self.as_bytes_with_nul().len()
    }
}

impl<T> Trackable for BinaryHeap<T> {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        where_any(self.as_slice().as_ptr(), self.get_size_estimate())
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
}

impl<T> Trackable for VecDeque<T> {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        where_any(self.as_slices().0.as_ptr(), self.get_size_estimate())
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
    /// The ring's second part, where there is one, begins with the block. Where there is none, the first part begins
    /// anywhere in it, unless it fills it.
    fn get_block_ptr(&self) -> Option<usize> {
        match self.as_slices() {
            (first, []) if first.len() == self.capacity() => {
                where_any(first.as_ptr(), self.get_size_estimate())
            }
            (_, []) => None,
            (_, second) => where_any(second.as_ptr(), self.get_size_estimate()),
        }
    }
}

/// Bytes of a hash table with this capacity: entries and a control byte for each bucket, of which 7 in 8 are used.
const fn table_bytes(capacity: usize, entry: usize) -> usize {
    if capacity == 0 {
        return 0;
    }
    let buckets = if capacity < 4 { 4 } else { (capacity * 8).div_ceil(7).next_power_of_two() };
    buckets * (entry + 1) + 16
}

/// An entry of a hash table that is at least half full is found in a moment; of others we don't look for one.
fn first_entry<T>(length: usize, capacity: usize, first: impl FnOnce() -> Option<*const T>) -> Option<usize> {
    if length == 0 || length < capacity / 4 { None } else { first().map(|entry| entry as usize) }
}

impl<K, V, S> Trackable for HashMap<K, V, S> {
    /// The address of some entry: where the table begins, the standard library doesn't tell.
    fn get_heap_ptr(&self) -> Option<usize> {
        first_entry(self.len(), self.capacity(), || self.keys().next().map(std::ptr::from_ref))
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        table_bytes(self.capacity(), size_of::<(K, V)>())
    }
    fn get_block_ptr(&self) -> Option<usize> {
        None
    }
}

impl<T, S> Trackable for HashSet<T, S> {
    /// The address of some entry: where the table begins, the standard library doesn't tell.
    fn get_heap_ptr(&self) -> Option<usize> {
        first_entry(self.len(), self.capacity(), || self.iter().next().map(std::ptr::from_ref))
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        table_bytes(self.capacity(), size_of::<T>())
    }
    fn get_block_ptr(&self) -> Option<usize> {
        None
    }
}

/// Bytes of a B-tree with this many entries: its nodes hold 11, and are two thirds full in the mean.
const fn tree_bytes(length: usize, entry: usize) -> usize {
    length.div_ceil(7) * (11 * entry + 2 * size_of::<usize>())
}

impl<K, V> Trackable for BTreeMap<K, V> {
    /// The address of the first entry: where its node begins, the standard library doesn't tell.
    fn get_heap_ptr(&self) -> Option<usize> {
        self.keys().next().map(|first| std::ptr::from_ref(first) as usize)
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        tree_bytes(self.len(), size_of::<(K, V)>())
    }
    fn get_block_ptr(&self) -> Option<usize> {
        None
    }
}

impl<T> Trackable for BTreeSet<T> {
    /// The address of the first entry: where its node begins, the standard library doesn't tell.
    fn get_heap_ptr(&self) -> Option<usize> {
        self.iter().next().map(|first| std::ptr::from_ref(first) as usize)
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        tree_bytes(self.len(), size_of::<T>())
    }
    fn get_block_ptr(&self) -> Option<usize> {
        None
    }
}

impl<T> Trackable for LinkedList<T> {
    /// The address of the first element: where its node begins, the standard library doesn't tell.
    fn get_heap_ptr(&self) -> Option<usize> {
        self.front().map(|front| std::ptr::from_ref(front) as usize)
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        self.len() * (size_of::<T>() + 2 * size_of::<usize>())
    }
    fn get_block_ptr(&self) -> Option<usize> {
        None
    }
}
