//! Tracked variables.

use crate::interposer::{Memory, Named};
use crate::names::{self, Place, Site};
use crate::store::{Beginning, Slot};
use crate::trackable::Trackable;
use crate::{clock, interposer, scope, stacks, tracker};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::Location;

/// A value whose variable is tracked: from [`track_var!`](crate::track_var) until it is dropped.
///
/// It owns the value and gives it out by `Deref`, `DerefMut` and `AsRef`, each of which counts as a borrow; formatting,
/// comparing and hashing pass through. Moved into another function, thread or task, it remains the same
/// variable. Its `Drop` records the lifetime and can neither fail nor wait; then the value is dropped.
///
/// ```
/// use memscope_rs::track_var;
///
/// let mut numbers = track_var!(vec![3, 1, 2]);
/// numbers.sort();
/// assert_eq!(*numbers, [1, 2, 3]);
/// assert_eq!(format!("{numbers:?}"), "[1, 2, 3]");
/// let numbers = std::thread::spawn(move || numbers).join().unwrap();
/// assert!(numbers.lifetime_ns() > 0);
/// let untracked: Vec<i32> = numbers.into_inner();
/// # assert_eq!(untracked.len(), 3);
/// ```
#[must_use = "the variable's life ends when this is dropped"]
pub struct TrackedVariable<T: Trackable> {
    slot: &'static Slot,
    named: Named,
    value: T,
}

impl<T: Trackable> TrackedVariable<T> {
    /// Tracks a value under a name.
    ///
    /// ```
    /// use memscope_rs::TrackedVariable;
    ///
    /// let buffer = TrackedVariable::new(vec![0_u8; 100], "buffer");
    /// assert_eq!(buffer.variable_name(), Some("buffer"));
    /// ```
    #[track_caller]
    pub fn new(value: T, name: impl Into<Cow<'static, str>>) -> Self {
        let place = Place::from(Location::caller());
        let number = names::number(Some(name.into()), Some(value.get_type_name().into()), Some(place));
        Self::begin(value, number)
    }

    /// What [`track_var!`](crate::track_var) calls.
    #[doc(hidden)]
    #[inline]
    pub fn at(value: T, site: &'static Site) -> Self {
        let number = site.number(value.get_type_name());
        Self::begin(value, number)
    }

    #[inline]
    fn begin(value: T, name: u32) -> Self {
        let from = Beginning {
            address: value.get_heap_ptr(),
            size: value.get_size_estimate(),
            name,
            scope: scope::current(),
            stack: stacks::capture(),
            shared: value.is_shared(),
            start: clock::now(),
        };
        let store = tracker::global_store();
        let slot = match from.address {
            Some(address) if from.shared => store.begin_shared(address, &from),
            _ => store.begin(&from),
        };
        let variable = Self { slot, named: Named::default(), value };
        variable.tell();
        variable
    }

    /// Looks where the value's memory is now: the container may have grown since the last look.
    #[inline]
    fn look(&self) {
        let (block, size) = (self.value.get_heap_ptr(), self.value.get_size_estimate());
        tracker::global_store().seen(self.slot, block, size);
        self.tell();
    }

    /// Tells the interposer, where there is one, which block the value has.
    #[inline]
    fn tell(&self) {
        if interposer::is_there() {
            self.named.update(self.memory(), self.slot.name(), self.slot.scope());
        }
    }

    /// The block that backs the value, or where something lies in it.
    fn memory(&self) -> Memory {
        match (self.value.get_block_ptr(), self.value.get_heap_ptr()) {
            (Some(address), _) => Memory { address, reach: 0 },
            (None, Some(address)) => Memory { address, reach: self.value.get_size_estimate() },
            (None, None) => Memory { address: 0, reach: 0 },
        }
    }

    /// Milliseconds since the variable was tracked. Always `Some`: the option is the interface's, for variables that
    /// nobody timed.
    ///
    /// ```
    /// let value = memscope_rs::track_var!(1);
    /// std::thread::sleep(std::time::Duration::from_millis(5));
    /// assert!(value.get_lifetime_info() >= Some(5));
    /// ```
    #[must_use]
    pub fn get_lifetime_info(&self) -> Option<u64> {
        Some(self.lifetime_ns() / 1_000_000)
    }

    /// Nanoseconds since the variable was tracked.
    ///
    /// ```
    /// let value = memscope_rs::track_var!(1);
    /// assert!(value.lifetime_ns() <= value.lifetime_ns());
    /// ```
    #[must_use]
    pub fn lifetime_ns(&self) -> u64 {
        clock::now().saturating_sub(self.slot.start())
    }

    /// How often the value was borrowed so far.
    ///
    /// ```
    /// let text = memscope_rs::track_var!(String::from("four"));
    /// let _ = text.len() + text.len();
    /// assert_eq!(text.borrow_count(), 2);
    /// ```
    #[must_use]
    pub fn borrow_count(&self) -> usize {
        self.slot.borrows() as usize
    }

    /// The variable's name.
    ///
    /// ```
    /// let text = String::new();
    /// assert_eq!(memscope_rs::track_var!(text).variable_name(), Some("text"));
    /// ```
    #[must_use]
    pub fn variable_name(&self) -> Option<&'static str> {
        names::get(self.slot.name())?.name.as_deref()
    }

    /// The `ptr` under which the variable stands in snapshots: the address of its heap memory as last seen; of a value
    /// without any, an address that no other variable has.
    ///
    /// ```
    /// let text = memscope_rs::track_var!(String::from("text"));
    /// assert_eq!(text.tracked_ptr(), text.as_ptr() as usize);
    /// ```
    #[must_use]
    pub fn tracked_ptr(&self) -> usize {
        self.slot.address()
    }

    /// Ends the variable and gives the value back.
    ///
    /// ```
    /// let text = memscope_rs::track_var!(String::from("text"));
    /// let text: String = text.into_inner();
    /// # assert_eq!(text, "text");
    /// ```
    #[must_use]
    pub fn into_inner(self) -> T {
        let this = ManuallyDrop::new(self);
        this.end();
        if interposer::is_there() {
            this.named.leave();
        }
        // SAFETY: `this` is neither used nor dropped after this read, so the value has one owner.
        #[allow(unsafe_code)]
        unsafe {
            std::ptr::read(&raw const this.value)
        }
    }

    #[inline]
    fn end(&self) {
        let now = clock::now();
        self.look();
        tracker::global_store().release(self.slot, now);
    }
}

impl<T: Trackable> Drop for TrackedVariable<T> {
    #[inline]
    fn drop(&mut self) {
        self.end();
    }
}

impl<T: Trackable> Deref for TrackedVariable<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.slot.borrowed();
        self.look();
        &self.value
    }
}

impl<T: Trackable> DerefMut for TrackedVariable<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.slot.borrowed();
        self.look();
        &mut self.value
    }
}

impl<T: Trackable> AsRef<T> for TrackedVariable<T> {
    #[inline]
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: Trackable> AsMut<T> for TrackedVariable<T> {
    #[inline]
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

/// A clone is a variable of its own, with the same name. A clone of an `Rc` or `Arc` shares the record of its memory: the
/// last owner that is tracked ends it.
///
/// ```
/// use memscope_rs::{get_global_tracker, track_var};
/// use std::rc::Rc;
///
/// let first = track_var!(Rc::new(7));
/// let second = first.clone();
/// assert_eq!(first.tracked_ptr(), second.tracked_ptr());
/// drop(first);
/// assert_eq!(get_global_tracker().get_active_allocations().len(), 1);
/// drop(second);
/// assert_eq!(get_global_tracker().get_active_allocations().len(), 0);
/// ```
impl<T: Trackable + Clone> Clone for TrackedVariable<T> {
    fn clone(&self) -> Self {
        Self::begin(self.value.clone(), self.slot.name())
    }
}

impl<T: Trackable + fmt::Debug> fmt::Debug for TrackedVariable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: Trackable + fmt::Display> fmt::Display for TrackedVariable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: Trackable + PartialEq> PartialEq for TrackedVariable<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Trackable + Eq> Eq for TrackedVariable<T> {}

impl<T: Trackable + PartialOrd> PartialOrd for TrackedVariable<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<T: Trackable + Ord> Ord for TrackedVariable<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

impl<T: Trackable + Hash> Hash for TrackedVariable<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    #[test]
    fn identity_stays_with_the_value() {
        let variable = crate::track_var!(5_u32);
        let address = variable.tracked_ptr();
        let boxed = Box::new(variable);
        assert_eq!(boxed.tracked_ptr(), address);
        let moved = std::thread::spawn(move || boxed).join().unwrap();
        assert_eq!(moved.tracked_ptr(), address);
        assert_ne!(crate::track_var!(5_u32).tracked_ptr(), address);
    }

    #[test]
    fn growth_is_noticed() {
        let mut vec = crate::track_var!(Vec::<u64>::new());
        let own = vec.tracked_ptr();
        vec.extend(0..100);
        assert_ne!(vec.as_ptr() as usize, own);
        assert_eq!(vec.tracked_ptr(), vec.as_ptr() as usize);
        assert_eq!(vec.slot.size(), vec.value.capacity() * 8);
    }

    #[test]
    fn it_ends_once() {
        let variable = crate::track_var!(String::from("once"));
        let slot = variable.slot;
        let inner = variable.into_inner();
        assert_eq!(inner, "once");
        assert!(slot.end() >= slot.start() && slot.end() != 0);
    }

    #[test]
    fn the_last_tracked_owner_ends_shared_memory() {
        let first = crate::track_var!(Arc::new([0_u8; 100]));
        let slot = first.slot;
        let clones: Vec<_> = (0..4).map(|_| first.clone()).collect();
        drop(first);
        let threads = clones.into_iter().map(|clone| std::thread::spawn(move || drop(clone)));
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        assert_ne!(slot.end(), 0);
    }

    #[test]
    fn it_passes_through() {
        let mut text = crate::track_var!(String::from("text"));
        text.push('!');
        text.as_mut().push('?');
        assert_eq!((format!("{text}"), format!("{text:?}")), ("text!?".into(), "\"text!?\"".into()));
        assert_eq!(text.as_ref(), "text!?");
        assert!(text == text.clone() && text <= text.clone());
        assert_eq!(text.borrow_count(), 3);
    }
}
