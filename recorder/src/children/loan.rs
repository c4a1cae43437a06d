//! The process's own environment, changed for as long as `system` or `popen` need it.
//!
//! Those two (and `wordexp`) hand on `environ` and nothing else. Where ours is missing there, a changed copy takes its place until the
//! last such call has returned. Other threads may read and change the environment meanwhile, and keep what they
//! found there: so a copy is never unmapped, is lent again only if nobody has touched it, and what others have changed
//! stays: then nothing but our entry goes again.
//!
//! What other threads do by `setenv` and its kin is never done at the moment of an exchange ([`super::turns`]). But one may be about to write
//! into the very array that is taken out of its place by itself. So in
//! such a program a copy stays once it is there (*adopted*): from then on our entry comes and goes at its end, by one store each,
//! and no array changes its place any more. What was written into the old array at the moment of that one exchange is
//! carried over. (Who still walks through a copy that is lent again finds entries and nothing else in it: its text lies apart.)

use super::carry::carry;
use super::environment::{Change, Environment};
use super::image::Image;
use super::turns::Turn;
use super::{Inheritance, Strings};
use crate::symbols;
use crate::sys::signal::Blocked;
use crate::sys::{memory, process};
use core::cell::UnsafeCell;
use core::ffi::c_char;
use core::mem::MaybeUninit;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

const WORD: usize = size_of::<usize>();
/// Turns that are waited for the ledger; then the call goes without.
const PATIENCE: u32 = 100_000;
/// Stands for a process that may not ask for its id any more: a filter forbids it.
const SEALED: u32 = u32::MAX;
/// Words of the copy that is made in advance, and of its text: none can be made after a filter.
const PREPARED: (usize, usize) = (400, 200);
/// How often another thread gets a turn to finish what it writes into the array that was the environment.
const CATCHING_UP: u32 = 20;
/// How often it is tried to put a copy in the place of an environment that others replace.
const TRIES: usize = 100;

/// A copy. Behind it lie `room` words for the changed environment, as many for what it was when it was lent, and `text_room` for the
/// text of our entry.
struct Loan {
    next: *mut Self,
    room: usize,
    text_room: usize,
    lent: bool,
    /// It stays the environment, until the program makes another array.
    adopted: bool,
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

/// libc's `__libc_single_threaded`; null where it has none.
static SINGLE_THREADED: AtomicPtr<AtomicU8> = AtomicPtr::new(null_mut());

/// Finds what is to be found while nothing is loaded or unloaded.
pub fn prepare() {
    if let Some((flag, _)) = symbols::first(c"__libc_single_threaded") {
        SINGLE_THREADED.store(flag as *mut AtomicU8, Ordering::Relaxed);
    }
}

/// Makes a copy in advance.
pub fn set_aside() {
    LEDGER.with(|state| {
        // SAFETY: a new mapping.
        let _ = unsafe { state.loan(PREPARED.0, PREPARED.1) };
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
            let _turn = Turn::of_loan();
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
                let _turn = Turn::of_loan();
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
            let place: &AtomicPtr<*const c_char> = AtomicPtr::from_ptr(environ.cast());
            for _ in 0..TRIES {
                let before = place.load(Ordering::Acquire);
                let environment = Environment::of(before.cast_const());
                let change = ours.change(&Image::unknown(), &environment);
                if matches!(change, Change::None) {
                    return;
                }
                if let Some(loan) = self.adopted(before)
                    && loan.add(ours, &environment, &change)
                {
                    return;
                }
                let array = environment.array_words();
                let text = environment.words(&ours.leading) - array;
                let Some(loan) = self.loan(array, text).as_mut() else { return };
                loan.write(ours, &environment, &change);
                loan.before = before.cast_const();
                let lent =
                    place.compare_exchange(before, loan.array(), Ordering::AcqRel, Ordering::Acquire).is_ok();
                if lent {
                    loan.lent = true;
                    for _ in 0..if is_single_threaded() { 0 } else { CATCHING_UP } {
                        loan.catch_up(place);
                        process::yield_now();
                    }
                    return;
                }
            }
        }
    }

    /// The adopted copy that is this array.
    unsafe fn adopted(&self, array: *mut *const c_char) -> Option<&'static mut Loan> {
        let mut at = self.loans;
        // SAFETY: loans are never unmapped, and this thread has the ledger.
        unsafe {
            while let Some(loan) = at.as_mut() {
                if loan.adopted && !loan.lent && loan.array() == array {
                    return Some(loan);
                }
                at = loan.next;
            }
        }
        None
    }

    /// A copy that is not lent and has room for so many words of each kind; null where there is no memory.
    unsafe fn loan(&mut self, array: usize, text: usize) -> *mut Loan {
        // SAFETY: loans are never unmapped.
        unsafe {
            let mut at = self.loans;
            while let Some(loan) = at.as_mut() {
                if !loan.lent && !loan.adopted && loan.room >= array && loan.text_room >= text {
                    return loan;
                }
                at = loan.next;
            }
            let bytes = (size_of::<Loan>() + (2 * array + text) * WORD).next_multiple_of(memory::PAGE);
            let Ok(memory) = memory::map_private(bytes) else { return null_mut() };
            let new: *mut Loan = memory.cast();
            new.write(Loan {
                next: self.loans,
                room: ((bytes - size_of::<Loan>()) / WORD - text) / 2,
                text_room: text,
                lent: false,
                adopted: false,
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

    fn text(&self) -> *mut *const c_char {
        // SAFETY: it lies behind the other two.
        unsafe { self.lent_as().add(self.room) }
    }

    /// # Safety
    /// The environment is as it was when it was measured.
    unsafe fn write(&mut self, ours: &Inheritance, environment: &Environment<'_>, change: &Change<'_>) {
        let (start, text): (*mut MaybeUninit<usize>, *mut MaybeUninit<usize>) =
            (self.array().cast(), self.text().cast());
        // SAFETY: so many words are there, and no reference to them.
        unsafe {
            let words = core::slice::from_raw_parts_mut(start, self.room);
            let text = core::slice::from_raw_parts_mut(text, self.text_room);
            let _ = environment.write_apart(change, ours, words, text);
            let array = self.array();
            self.count = (0..).take_while(|&index| !(*array.add(index)).is_null()).count();
            let own = self.text() as usize..self.text().add(self.text_room) as usize;
            let entries = (0..self.count).map(|index| *array.add(index));
            self.entry = entries.into_iter().find(|&entry| own.contains(&(entry as usize))).unwrap_or(null());
            self.replaced = environment.entry();
            self.lent_as().copy_from_nonoverlapping(array, self.count + 1);
        }
    }

    /// Where another thread has changed entries of the array that was the environment, after they were copied: they are changed
    /// here, too.
    unsafe fn catch_up(&self, place: &AtomicPtr<*const c_char>) {
        // SAFETY: arrays of ours with a null pointer at their ends.
        unsafe {
            if place.load(Ordering::Acquire) == self.array() && !self.before.is_null() {
                carry(self.lent_as(), self.before, self.array(), self.entry);
                carry(self.lent_as(), self.before, self.lent_as(), self.entry);
            }
        }
    }

    /// Puts our entry into this array, which is the environment; false where that can't be done in its place.
    ///
    /// # Safety
    /// The environment is as it was when it was measured.
    unsafe fn add(&mut self, ours: &Inheritance, environment: &Environment<'_>, change: &Change<'_>) -> bool {
        let words = environment.array_words();
        let text = environment.words(&ours.leading) - words;
        if !matches!(change, Change::Set(_)) || words > self.room || text > self.text_room {
            return false;
        }
        // SAFETY: there is so much room; the changed environment is made beside the one that is in use.
        unsafe {
            let scratch = core::slice::from_raw_parts_mut(self.lent_as().cast(), self.room);
            let text = core::slice::from_raw_parts_mut(self.text().cast(), self.text_room);
            let _ = environment.write_apart(change, ours, scratch, text);
            let (array, changed) = (self.array(), self.lent_as());
            let Some(index) = (0..words).find(|&index| *array.add(index) != *changed.add(index)) else {
                return false;
            };
            let (was, entry) = (*array.add(index), *changed.add(index));
            if was.is_null() {
                array.add(index + 1).write(null());
            }
            (self.entry, self.replaced, self.lent) = (entry, was, true);
            let slot: &AtomicPtr<c_char> = AtomicPtr::from_ptr(array.add(index).cast());
            slot.store(entry.cast_mut(), Ordering::Release);
            true
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
            if self.adopted || !is_single_threaded() {
                if !self.adopted {
                    self.catch_up(place);
                }
                self.take_out(array);
                let now = place.load(Ordering::Acquire);
                if now != array {
                    self.take_out(now);
                }
                self.adopted = true;
                // One that is not the environment any more may still be walked through.
                return now == array;
            }
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

/// True where the process has one thread, as libc knows (2.32 and later).
fn is_single_threaded() -> bool {
    // SAFETY: libc's variable of that name is a byte that is there for good.
    unsafe { SINGLE_THREADED.load(Ordering::Relaxed).as_ref() }
        .is_some_and(|flag| flag.load(Ordering::Relaxed) != 0)
}
