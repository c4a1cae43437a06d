//! The process's own environment, changed for as long as `system` or `popen` need it.
//!
//! Those two hand on `environ` and nothing else. Where ours is missing there, a changed copy takes its place until the
//! last such call has returned. Other threads may read and change the environment meanwhile, and keep what they
//! found there: so a copy is never unmapped, is lent again only if nobody has touched it, and what others have changed
//! stays: then nothing but our entry goes again.

use super::environment::{Change, Environment};
use super::image::Image;
use super::{Inheritance, Strings};
use crate::sys::signal::Blocked;
use crate::sys::{memory, process};
use core::cell::UnsafeCell;
use core::ffi::c_char;
use core::mem::MaybeUninit;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

const WORD: usize = size_of::<usize>();
/// Turns that are waited for the ledger; then the call goes without.
const PATIENCE: u32 = 100_000;
/// Stands for a process that may not ask for its id any more: a filter forbids it.
const SEALED: u32 = u32::MAX;
/// Words of the copy that is made in advance: none can be made after a filter.
const PREPARED: usize = 500;

/// A copy. Behind it lie `room` words for the changed environment and as many for what it was when it was lent.
struct Loan {
    next: *mut Self,
    room: usize,
    lent: bool,
    /// Entries of the environment.
    count: usize,
    before: Strings,
    /// Our entry, and the one whose place it has, if any.
    entry: *const c_char,
    replaced: *const c_char,
}

struct State {
    /// The process that counts; a forked child has a copy, but none of its parent's calls.
    pid: u32,
    calls: usize,
    loans: *mut Loan,
}

/// All copies, and how many calls need them.
struct Ledger {
    /// The process one of whose threads is at it.
    holder: AtomicU32,
    state: UnsafeCell<State>,
}

// SAFETY: only the holder gets at the state.
unsafe impl Sync for Ledger {}

static LEDGER: Ledger = Ledger {
    holder: AtomicU32::new(0),
    state: UnsafeCell::new(State { pid: 0, calls: 0, loans: null_mut() }),
};

impl Ledger {
    /// With the ledger for this thread alone, undisturbed by signals, for a few system calls.
    fn with<R>(&self, call: impl FnOnce(&mut State) -> R) -> Option<R> {
        let _undisturbed = Blocked::all();
        let pid = match process::pid() {
            0 => SEALED,
            pid => pid,
        };
        for _ in 0..PATIENCE {
            let holder = self.holder.load(Ordering::Relaxed);
            // What a parent's thread holds, no thread of a forked child gives back.
            let free = holder == 0 || holder != pid && pid != SEALED;
            if free && self.holder.compare_exchange(holder, pid, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                // SAFETY: nobody else is at it, see above.
                let state = unsafe { &mut *self.state.get() };
                if state.pid != pid && pid != SEALED {
                    (state.pid, state.calls) = (pid, 0);
                }
                let result = call(state);
                self.holder.store(0, Ordering::Release);
                return Some(result);
            }
            process::yield_now();
        }
        None
    }
}

/// Makes a copy in advance.
pub fn prepare() {
    LEDGER.with(|state| {
        // SAFETY: a new mapping.
        let _ = unsafe { state.loan(PREPARED) };
    });
}

/// Counts a call of `system` or `popen` while it lasts; also one that ends because its thread is cancelled.
#[derive(Debug)]
pub struct Call {
    environ: *mut Strings,
}

impl Call {
    /// Sees to it that ours is in the environment.
    ///
    /// # Safety
    /// `environ` is the process's own.
    pub unsafe fn begin(ours: &Inheritance, environ: *mut Strings) -> Option<Self> {
        LEDGER.with(|state| {
            state.calls += 1;
            // SAFETY: as promised by the caller.
            unsafe { state.lend(ours, environ) };
            Self { environ }
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        LEDGER.with(|state| {
            state.calls = state.calls.saturating_sub(1);
            if state.calls == 0 {
                // SAFETY: the process's own.
                unsafe { state.take_back(self.environ) };
            }
        });
    }
}

impl State {
    unsafe fn lend(&mut self, ours: &Inheritance, environ: *mut Strings) {
        // SAFETY: the process's own environment, which nobody may change while `system` or `popen` look at it.
        unsafe {
            let before = *environ;
            let environment = Environment::of(before);
            let change = ours.change(&Image::unknown(), &environment);
            if matches!(change, Change::None) {
                return;
            }
            let Some(loan) = self.loan(environment.words(&ours.leading)).as_mut() else { return };
            loan.write(ours, &environment, &change);
            loan.before = before;
            loan.lent = true;
            AtomicPtr::from_ptr(environ.cast()).store(loan.array(), Ordering::Release);
        }
    }

    /// A copy that is not lent and has room for so many words; null where there is no memory.
    unsafe fn loan(&mut self, words: usize) -> *mut Loan {
        // SAFETY: loans are never unmapped.
        unsafe {
            let mut at = self.loans;
            while let Some(loan) = at.as_mut() {
                if !loan.lent && loan.room >= words {
                    return loan;
                }
                at = loan.next;
            }
            let bytes = (size_of::<Loan>() + 2 * words * WORD).next_multiple_of(memory::PAGE);
            let Ok(memory) = memory::map_private(bytes) else { return null_mut() };
            let new: *mut Loan = memory.cast();
            new.write(Loan {
                next: self.loans,
                room: (bytes - size_of::<Loan>()) / WORD / 2,
                lent: false,
                count: 0,
                before: null(),
                entry: null(),
                replaced: null(),
            });
            self.loans = new;
            new
        }
    }

    unsafe fn take_back(&mut self, environ: *mut Strings) {
        let mut link = &raw mut self.loans;
        // SAFETY: loans are never unmapped.
        unsafe {
            while let Some(loan) = (*link).as_mut() {
                if !loan.lent || loan.take_back(environ) {
                    link = &raw mut loan.next;
                } else {
                    *link = loan.next;
                }
            }
        }
    }
}

impl Loan {
    fn array(&self) -> *mut *const c_char {
        // SAFETY: it lies in front of its words.
        unsafe { core::ptr::from_ref(self).add(1).cast_mut().cast() }
    }

    /// What the array held when it was lent.
    fn lent_as(&self) -> *mut *const c_char {
        // SAFETY: there are twice as many words.
        unsafe { self.array().add(self.room) }
    }

    /// # Safety
    /// The environment is as it was when it was measured.
    unsafe fn write(&mut self, ours: &Inheritance, environment: &Environment<'_>, change: &Change<'_>) {
        let start: *mut MaybeUninit<usize> = self.array().cast();
        // SAFETY: so many words are there, and no reference to them; the text lies behind the array.
        unsafe {
            let words = core::slice::from_raw_parts_mut(start, self.room);
            let _ = environment.write(change, ours, words);
            let array = self.array();
            self.count = (0..).take_while(|&index| !(*array.add(index)).is_null()).count();
            let own = array as usize..array.add(self.room) as usize;
            let entries = (0..self.count).map(|index| *array.add(index));
            self.entry = entries.into_iter().find(|&entry| own.contains(&(entry as usize))).unwrap_or(null());
            self.replaced = environment.entry();
            self.lent_as().copy_from_nonoverlapping(array, self.count + 1);
        }
    }

    /// True where nobody has touched it: then it may be lent again.
    unsafe fn take_back(&mut self, environ: *mut Strings) -> bool {
        self.lent = false;
        // SAFETY: the process's own environment, and an array that is ours.
        unsafe {
            let (array, lent_as) = (self.array(), self.lent_as());
            let untouched = (0..=self.count).all(|index| *array.add(index) == *lent_as.add(index));
            let place: &AtomicPtr<*const c_char> = AtomicPtr::from_ptr(environ.cast());
            let back = self.before.cast_mut();
            if untouched && place.compare_exchange(array, back, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return true;
            }
            self.take_out(array);
            let now = place.load(Ordering::Acquire);
            if now != array {
                self.take_out(now);
            }
            false
        }
    }

    /// Takes our entry out of an array, or puts the one back whose place it has.
    unsafe fn take_out(&self, array: *mut *const c_char) {
        if array.is_null() || self.entry.is_null() {
            return;
        }
        // SAFETY: an environment: nothing is touched behind its null pointer.
        unsafe {
            let entries = (0..).take_while(|&index| !(*array.add(index)).is_null());
            let Some(index) = entries.into_iter().find(|&index| *array.add(index) == self.entry) else {
                return;
            };
            let mut slot = array.add(index);
            if !self.replaced.is_null() {
                slot.write(self.replaced);
                return;
            }
            while !(*slot).is_null() {
                slot.write(*slot.add(1));
                slot = slot.add(1);
            }
        }
    }
}
