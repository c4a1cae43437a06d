//! The atomics of a model: as large as the real ones and valid when zero, since they lie in mapped memory, while loom's
//! are neither. So each address stands for an object of loom's, made when the address is first used.
//!
//! loom wants an atomic's birth to happen before every use of it. [`Touch`] sees to that for what the kernel maps
//! and several threads then use. Outside of a model the atomics are real ones.

use core::any::Any;
use core::marker::PhantomData;
use core::sync::atomic::Ordering;
use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64 as Watched;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// Threads of a model, the first one included.
pub const THREADS: usize = 5;

// loom runs all threads of a model on one thread of the system.
std::thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static OBJECTS: RefCell<HashMap<usize, Rc<dyn Any>>> = RefCell::default();
    static MAPPED: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

loom::thread_local! {
    static WORD: Cell<usize> = Cell::new(0);
    static TID: Cell<u32> = Cell::new(1);
}

/// True inside of a model.
#[must_use]
pub fn running() -> bool {
    RUNNING.with(Cell::get)
}

fn object<T: 'static>(address: usize, make: impl FnOnce() -> T) -> Rc<T> {
    let known = OBJECTS.with_borrow(|all| all.get(&address).cloned());
    let object = known.unwrap_or_else(|| {
        let new: Rc<dyn Any> = Rc::new(make());
        OBJECTS.with_borrow_mut(|all| all.insert(address, Rc::clone(&new)));
        new
    });
    object.downcast().unwrap_or_else(|_| panic!("two kinds of words at {address:#x}"))
}

macro_rules! atomics {
    ($($name:ident $(<$g:ident>)?, $value:ty, $into:expr, $from:expr;)*) => { $(
        /// As in `core`.
        #[repr(transparent)]
        pub struct $name $(<$g>)? {
            real: core::sync::atomic::$name $(<$g>)?,
            _not_sent: PhantomData<()>,
        }

        impl $(<$g>)? core::fmt::Debug for $name $(<$g>)? {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.real.fmt(f)
            }
        }

        #[allow(missing_docs, reason = "as in core")]
        impl $(<$g>)? $name $(<$g>)? {
            #[must_use]
            pub const fn new(value: $value) -> Self {
                Self { real: core::sync::atomic::$name::new(value), _not_sent: PhantomData }
            }

            fn watched(&self) -> Option<Rc<Watched>> {
                running().then(|| {
                    object(self as *const Self as usize, || Watched::new($into(self.real.load(Ordering::Relaxed))))
                })
            }

            #[must_use]
            pub fn load(&self, order: Ordering) -> $value {
                self.watched().map_or_else(|| self.real.load(order), |w| $from(w.load(order)))
            }

            pub fn store(&self, value: $value, order: Ordering) {
                match self.watched() {
                    Some(w) => w.store($into(value), order),
                    None => self.real.store(value, order),
                }
            }

            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.watched().map_or_else(|| self.real.swap(value, order), |w| $from(w.swap($into(value), order)))
            }

            pub fn compare_exchange(&self, from: $value, to: $value, ok: Ordering, not: Ordering) -> Result<$value, $value> {
                match self.watched() {
                    Some(w) => w.compare_exchange($into(from), $into(to), ok, not).map(|v| $from(v)).map_err(|v| $from(v)),
                    None => self.real.compare_exchange(from, to, ok, not),
                }
            }

            pub fn compare_exchange_weak(&self, from: $value, to: $value, ok: Ordering, not: Ordering) -> Result<$value, $value> {
                self.compare_exchange(from, to, ok, not)
            }

            #[must_use]
            pub const fn as_ptr(&self) -> *mut $value {
                self.real.as_ptr()
            }
        }

        impl $(<$g>)? Touch for $name $(<$g>)? {
            fn touch(&self) {
                let _ = self.watched();
            }
        }
    )* };
}

atomics! {
    AtomicU64, u64, |v: u64| v, |v: u64| v;
    AtomicU32, u32, u64::from, |v: u64| v as u32;
    AtomicUsize, usize, |v: usize| v as u64, |v: u64| v as usize;
    AtomicBool, bool, u64::from, |v: u64| v != 0;
    AtomicPtr<T>, *mut T, |v: *mut T| v as u64, |v: u64| v as *mut T;
}

macro_rules! counts {
    ($($name:ident, $value:ty;)*) => { $(
        #[allow(missing_docs, reason = "as in core")]
        impl $name {
            pub fn fetch_add(&self, by: $value, order: Ordering) -> $value {
                self.watched().map_or_else(|| self.real.fetch_add(by, order), |w| w.fetch_add(by as u64, order) as $value)
            }

            pub fn fetch_sub(&self, by: $value, order: Ordering) -> $value {
                self.watched().map_or_else(|| self.real.fetch_sub(by, order), |w| w.fetch_sub(by as u64, order) as $value)
            }

            pub fn fetch_update(&self, ok: Ordering, not: Ordering, mut to: impl FnMut($value) -> Option<$value>) -> Result<$value, $value> {
                let mut now = self.load(not);
                while let Some(next) = to(now) {
                    match self.compare_exchange(now, next, ok, not) {
                        Ok(before) => return Ok(before),
                        Err(other) => now = other,
                    }
                }
                Err(now)
            }
        }
    )* };
}

counts! { AtomicU64, u64; AtomicU32, u32; AtomicUsize, usize; }

/// What holds atomics in mapped memory: makes them known before other threads use them.
pub trait Touch {
    /// Makes its atomics known.
    fn touch(&self);
}

impl<T: Touch, const N: usize> Touch for [T; N] {
    fn touch(&self) {
        self.iter().for_each(Touch::touch);
    }
}

fn each_word(at: *const u64, words: usize, act: impl Fn(&UnsafeCell<()>)) {
    if running() {
        // Beside the atomics' own addresses, which are even.
        (0..words).for_each(|k| act(&object(at as usize + 8 * k + 1, || UnsafeCell::new(()))));
    }
}

/// The calling thread is writing these words: nobody else may use them at the same time.
pub fn writes(at: *const u64, words: usize) {
    each_word(at, words, |cell| cell.with_mut(|_| ()));
}

/// The calling thread is reading these words: nobody may write them at the same time.
pub fn reads(at: *const u64, words: usize) {
    each_word(at, words, |cell| cell.with(|_| ()));
}

/// The thread's word (see `program::tls`).
#[must_use]
pub fn thread_word() -> usize {
    WORD.with(Cell::get)
}

/// Sets it.
pub fn set_thread_word(value: usize) {
    WORD.with(|word| word.set(value));
}

/// Stands for the kernel's number of the calling thread.
#[must_use]
pub fn tid() -> u32 {
    TID.with(Cell::get)
}

/// Threads that have gone, as the kernel knows them: what they did happened before.
static GONE: [AtomicU32; THREADS + 1] = [const { AtomicU32::new(0) }; THREADS + 1];

/// 1 once a model's drainer has died: what it did happened before.
static DEAD: AtomicU32 = AtomicU32::new(0);

/// The model's drainer dies.
pub fn drainer_dies() {
    DEAD.store(1, Ordering::Release);
}

/// Stands for the lock that the kernel takes away from a dead drainer.
#[must_use]
pub fn drainer_is_dead() -> bool {
    DEAD.load(Ordering::Acquire) == 1
}

/// True while the thread runs.
#[must_use]
pub fn thread_exists(tid: u32) -> bool {
    GONE[tid as usize].load(Ordering::Acquire) == 0
}

/// Notes a mapping, which the next model does without.
pub fn mapped(address: *mut u8, bytes: usize) {
    if running() {
        MAPPED.with_borrow_mut(|all| all.push((address as usize, bytes)));
    }
}

/// Notes that a mapping went away.
pub fn unmapped(address: *mut u8) {
    MAPPED.with_borrow_mut(|all| all.retain(|(start, _)| *start != address as usize));
}

/// Starts a thread of the model. Its number, from 2 on, is no other thread's.
pub fn spawn(tid: u32, body: impl FnOnce() + Send + 'static) -> loom::thread::JoinHandle<()> {
    let thread = move || {
        TID.with(|mine| mine.set(tid));
        body();
        GONE[tid as usize].store(1, Ordering::Release);
    };
    loom::thread::Builder::new().stack_size(1 << 16).spawn(thread).expect("a thread of the model")
}

/// Runs `model` in every order that its threads can take with up to `preemptions` switches that nothing forces;
/// returns how many those were.
pub fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) -> usize {
    use core::sync::atomic::AtomicUsize as Count;
    use std::sync::{Arc, Mutex, PoisonError};
    // The process's statics are one model's at a time.
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let orders = Arc::new(Count::new(0));
    let counted = Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(move || {
        begin();
        model();
        counted.fetch_add(1, Ordering::Relaxed);
        RUNNING.set(false);
    });
    RUNNING.set(false);
    drop(alone);
    orders.load(Ordering::Relaxed)
}

fn begin() {
    RUNNING.set(false);
    OBJECTS.with_borrow_mut(HashMap::clear);
    for (address, bytes) in MAPPED.take() {
        // SAFETY: mapped by the model before, whose threads have ended.
        let _ = unsafe { crate::sys::memory::unmap(address as *mut u8, bytes) };
    }
    GONE.iter().for_each(|gone| gone.store(0, Ordering::Relaxed));
    DEAD.store(0, Ordering::Relaxed);
    RUNNING.set(true);
    DEAD.touch();
    GONE.touch();
}
