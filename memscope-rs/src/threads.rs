//! Threads, numbered by us: the kernel's numbers are used again, ours are not. The main thread is 1.

use crate::store::{Busy, Table};
use crate::{clock, sys};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

thread_local! {
    // Neither initialised lazily nor destroyed: it works in every destructor of the thread.
    static NUMBER: Cell<u32> = const { Cell::new(0) };
}

static NUMBERED: AtomicU32 = AtomicU32::new(1);
static THREADS: Table<Thread> = Table::new();

/// What is known of a thread.
#[derive(Debug)]
pub struct Thread {
    /// Its number.
    pub number: u32,
    /// Its name, when it was first seen.
    pub name: Option<String>,
    /// When that was.
    pub start: u64,
}

/// The calling thread's number.
#[inline]
pub fn number() -> u32 {
    match NUMBER.get() {
        0 => first_seen(),
        number => number,
    }
}

#[cold]
fn first_seen() -> u32 {
    let number = if sys::is_main_thread() { 1 } else { NUMBERED.fetch_add(1, Ordering::Relaxed) + 1 };
    NUMBER.set(number);
    let _busy = Busy::begin();
    THREADS.push(Thread { number, name: sys::thread_name(), start: clock::now() });
    number
}

/// All threads that were seen.
pub fn all() -> impl Iterator<Item = &'static Thread> {
    THREADS.iter().map(|(_, thread)| thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_its_own_number() {
        let mine = number();
        assert_eq!(number(), mine);
        let named = std::thread::Builder::new().name("numbered".into());
        let other = named.spawn(number).unwrap().join().unwrap();
        assert!(other > 1 && other != mine);
        let known = all().find(|thread| thread.number == other).unwrap();
        assert_eq!(known.name.as_deref(), Some("numbered"));
    }
}
