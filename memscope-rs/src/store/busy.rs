//! The mark of a thread that is inside the library and about to allocate.

use std::cell::Cell;

thread_local! {
    // Neither initialised lazily nor destroyed: it can be read at any time of a thread's life.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calling thread until dropped. While it is marked, calls that the program's allocator makes are
/// served without allocating.
#[derive(Debug)]
pub struct Busy(());

impl Busy {
    /// Marks the thread; `None` where it is marked already.
    pub fn begin() -> Option<Self> {
        // Made only where it is wanted: one that is dropped takes the mark away.
        BUSY.with(|busy| (!busy.replace(true)).then(|| Self(())))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.with(|busy| busy.set(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_mark_counts() {
        let outer = Busy::begin();
        assert!(outer.is_some());
        assert!(Busy::begin().is_none());
        assert!(Busy::begin().is_none(), "an inner call takes no mark away");
        drop(outer);
        assert!(Busy::begin().is_some());
    }
}
