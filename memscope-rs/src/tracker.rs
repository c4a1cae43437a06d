//! The tracker: everything that was tracked, to be asked and exported.

use crate::error::{TrackingError, TrackingResult};
use crate::export;
use crate::names::{self, Place};
use crate::snapshot::{Ending, View};
use crate::store::{Beginning, Slot, Store};
use crate::{clock, scope, stacks};
use memscope_shared::model::{AllocationInfo, Stats};
use std::borrow::Cow;
use std::panic::Location;
use std::path::Path;

/// Keeps what is tracked: blocks that are live and the history of those that have ended.
///
/// The one of the process ([`get_global_tracker`]) holds all variables of [`track_var!`](crate::track_var). More can be made for
/// blocks that a program tracks by hand:
///
/// ```
/// use memscope_rs::MemoryTracker;
///
/// let tracker = MemoryTracker::new();
/// tracker.track_allocation(0x1000, 64)?;
/// tracker.track_allocation(0x2000, 100)?;
/// tracker.track_deallocation_with_lifetime(0x1000, 5)?;
///
/// let history = tracker.get_allocation_history();
/// assert_eq!(history[0].lifetime_ms, Some(5));
/// let stats = tracker.get_stats();
/// assert_eq!((stats.total_allocations, stats.total_deallocations), (2, 1));
/// assert_eq!((stats.active_allocations, stats.active_memory), (1, 100));
/// # Ok::<(), memscope_rs::TrackingError>(())
/// ```
///
/// No function waits for a lock or skips anything, so all of them may be called from anywhere: from a destructor,
/// a panic, the program's own allocator.
#[derive(Debug)]
pub struct MemoryTracker {
    store: Home,
}

/// Where the store is: the global one is there from the start, without having to be made.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are a handful of trackers, and a box could not be made here"
)]
enum Home {
    Global,
    Own(Store),
}

static STORE: Store = Store::of_process();
static TRACKER: MemoryTracker = MemoryTracker { store: Home::Global };

/// The tracker of the process.
///
/// ```
/// let tracker = memscope_rs::get_global_tracker();
/// let value = memscope_rs::track_var!(vec![1, 2, 3]);
/// assert_eq!(tracker.get_active_allocations()[0].var_name.as_deref(), Some("vec![1, 2, 3]"));
/// drop(value);
/// assert!(tracker.get_active_allocations().is_empty());
/// ```
#[must_use]
pub fn get_global_tracker() -> &'static MemoryTracker {
    &TRACKER
}

/// The store of the process's tracker.
#[inline]
pub fn global_store() -> &'static Store {
    &STORE
}

impl Default for MemoryTracker {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryTracker {
    /// A tracker of its own, with nothing tracked.
    ///
    /// ```
    /// assert_eq!(memscope_rs::MemoryTracker::new().get_stats().total_allocations, 0);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self { store: Home::Own(Store::new()) }
    }

    fn store(&self) -> &Store {
        match &self.store {
            Home::Global => &STORE,
            Home::Own(store) => store,
        }
    }

    /// A block of `size` bytes has come to life at `ptr`. What is tracked there already has ended without our seeing it, so it
    /// ends now.
    ///
    /// ```
    /// let tracker = memscope_rs::MemoryTracker::new();
    /// tracker.track_allocation(0x1000, 64)?;
    /// assert_eq!(tracker.get_stats().active_memory, 64);
    /// # Ok::<(), memscope_rs::TrackingError>(())
    /// ```
    ///
    /// # Errors
    /// None so far.
    #[track_caller]
    pub fn track_allocation(&self, ptr: usize, size: usize) -> TrackingResult<()> {
        let place = Place::from(Location::caller());
        self.begin(ptr, size, names::number(None, None, Some(place)));
        Ok(())
    }

    pub(crate) fn begin(&self, ptr: usize, size: usize, name: u32) {
        let start = clock::now();
        if let Some(old) = self.store().find_in_place(ptr) {
            old.end_at(start);
        }
        let (scope, stack) = (scope::current(), stacks::capture());
        let from = Beginning { address: Some(ptr), size, start, name, scope, stack, shared: false };
        self.store().begin(&from);
    }

    /// The block at `ptr` has ended.
    ///
    /// ```
    /// let tracker = memscope_rs::MemoryTracker::new();
    /// tracker.track_allocation(0x1000, 64)?;
    /// tracker.track_deallocation(0x1000)?;
    /// assert!(tracker.track_deallocation(0x1000).is_err());
    /// # Ok::<(), memscope_rs::TrackingError>(())
    /// ```
    ///
    /// # Errors
    /// [`TrackingError::UnknownAddress`] where nothing live is tracked there.
    pub fn track_deallocation(&self, ptr: usize) -> TrackingResult<()> {
        self.end(ptr, |_| clock::now())
    }

    /// The block at `ptr` has ended after `lifetime_ms` milliseconds: it goes from the active ones into the history with
    /// `timestamp_dealloc` and `lifetime_ms`, and the totals follow.
    ///
    /// The lifetime is the caller's word. Where our own clock agrees in whole milliseconds, its nanoseconds are
    /// kept too.
    ///
    /// ```
    /// let tracker = memscope_rs::MemoryTracker::new();
    /// tracker.track_allocation(0x1000, 64)?;
    /// tracker.track_deallocation_with_lifetime(0x1000, 250)?;
    /// let block = &tracker.get_allocation_history()[0];
    /// assert_eq!(block.lifetime_ms, Some(250));
    /// assert_eq!(block.timestamp_dealloc, Some(block.timestamp_alloc + 250_000_000));
    /// # Ok::<(), memscope_rs::TrackingError>(())
    /// ```
    ///
    /// # Errors
    /// [`TrackingError::UnknownAddress`] where nothing live is tracked there.
    pub fn track_deallocation_with_lifetime(&self, ptr: usize, lifetime_ms: u64) -> TrackingResult<()> {
        self.end(ptr, |start| {
            let now = clock::now();
            let agrees = now.saturating_sub(start) / 1_000_000 == lifetime_ms;
            if agrees { now } else { start.saturating_add(lifetime_ms.saturating_mul(1_000_000)) }
        })
    }

    /// Ends what lives at an address at a time that its start gives.
    pub(crate) fn end(&self, ptr: usize, when: impl Fn(u64) -> u64) -> TrackingResult<()> {
        while let Some(slot) = self.store().find(ptr) {
            // Where this fails, another thread has ended it just now; there may be an older one behind it.
            if slot.end_at(when(slot.start())) {
                return Ok(());
            }
        }
        Err(TrackingError::UnknownAddress(ptr))
    }

    /// Gives the live block at `ptr` the name and type of a variable.
    ///
    /// ```
    /// let tracker = memscope_rs::MemoryTracker::new();
    /// tracker.track_allocation(0x1000, 64)?;
    /// tracker.associate_var(0x1000, "buffer", "Vec<u8>")?;
    /// assert_eq!(tracker.get_active_allocations()[0].var_name.as_deref(), Some("buffer"));
    /// # Ok::<(), memscope_rs::TrackingError>(())
    /// ```
    ///
    /// # Errors
    /// [`TrackingError::UnknownAddress`] where nothing live is tracked there.
    #[track_caller]
    pub fn associate_var(
        &self,
        ptr: usize,
        name: impl Into<Cow<'static, str>>,
        type_name: impl Into<Cow<'static, str>>,
    ) -> TrackingResult<()> {
        let place = Place::from(Location::caller());
        let slot = self.store().find(ptr).ok_or(TrackingError::UnknownAddress(ptr))?;
        slot.set_name(names::number(Some(name.into()), Some(type_name.into()), Some(place)));
        Ok(())
    }

    /// What is live now, oldest first. Lifetimes are those so far.
    ///
    /// ```
    /// let tracker = memscope_rs::MemoryTracker::new();
    /// tracker.track_allocation(0x1000, 64)?;
    /// let live = &tracker.get_active_allocations()[0];
    /// assert_eq!((live.ptr, live.size, live.timestamp_dealloc), (0x1000, 64, None));
    /// assert!(live.lifetime_ms.is_some());
    /// # Ok::<(), memscope_rs::TrackingError>(())
    /// ```
    #[must_use]
    pub fn get_active_allocations(&self) -> Vec<AllocationInfo> {
        let view = self.view(Ending::Running);
        view.rows().filter(|row| row.timestamp_dealloc.is_none()).collect()
    }

    /// What has ended, oldest first.
    ///
    /// ```
    /// let tracker = memscope_rs::MemoryTracker::new();
    /// tracker.track_allocation(0x1000, 64)?;
    /// assert!(tracker.get_allocation_history().is_empty());
    /// tracker.track_deallocation(0x1000)?;
    /// assert_eq!(tracker.get_allocation_history()[0].ptr, 0x1000);
    /// # Ok::<(), memscope_rs::TrackingError>(())
    /// ```
    #[must_use]
    pub fn get_allocation_history(&self) -> Vec<AllocationInfo> {
        let view = self.view(Ending::Running);
        view.rows().filter(|row| row.timestamp_dealloc.is_some()).collect()
    }

    /// The totals now, from the records themselves: so they cost time in proportion to all that was ever tracked.
    ///
    /// ```
    /// let stats = memscope_rs::MemoryTracker::new().get_stats();
    /// assert_eq!(stats.peak_memory, 0);
    /// ```
    #[must_use]
    pub fn get_stats(&self) -> Stats {
        self.view(Ending::Running).stats()
    }

    /// Writes a snapshot of this moment as JSON.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("now.json");
    /// let value = memscope_rs::track_var!(vec![0_u8; 1000]);
    /// memscope_rs::get_global_tracker().export_to_json(&path)?;
    /// # drop(value);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TrackingError::Export`].
    pub fn export_to_json(&self, path: impl AsRef<Path>) -> TrackingResult<()> {
        export::write_json(&self.view(Ending::Running), path.as_ref())
    }

    /// Writes a report of this moment as one HTML file.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("now.html");
    /// let value = memscope_rs::track_var!(vec![0_u8; 1000]);
    /// memscope_rs::get_global_tracker().export_to_html(&path)?;
    /// # drop(value);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TrackingError::Export`].
    pub fn export_to_html(&self, path: impl AsRef<Path>) -> TrackingResult<()> {
        export::write_html(&self.view(Ending::Running), path.as_ref())
    }

    pub(crate) fn view(&self, ending: Ending) -> View<'_> {
        View::new(self.store(), ending)
    }

    pub(crate) fn slot_at(&self, address: usize) -> Option<&Slot> {
        self.store().find(address)
    }
}

#[cfg(test)]
mod tests;
