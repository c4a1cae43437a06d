//! `libmemscope.so`, where the program runs with it, or our own allocator where that records: it is told the names of blocks.
#![allow(unsafe_code)]

use crate::store::{Busy, Interner, hash_words};
use crate::{names, scope, sys};
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A text, as C has it.
#[repr(C)]
struct Text {
    bytes: *const u8,
    length: usize,
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self { bytes: text.as_ptr(), length: text.len() }
    }
}

type DefineName = unsafe extern "C" fn(texts: *const [Text; 3]) -> u64;
type NameBlock = unsafe extern "C" fn(address: *const c_void, reach: usize, id: u64) -> c_int;

/// Its functions for names.
#[derive(Clone, Copy)]
struct Functions {
    define: DefineName,
    name: NameBlock,
}

static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();

/// Looked up once.
#[inline]
fn functions() -> Option<&'static Functions> {
    FUNCTIONS.get_or_init(look_up).as_ref()
}

/// Those of our own allocator, where it records.
fn own() -> Option<(usize, usize)> {
    #[cfg(feature = "allocator")]
    return crate::allocator::names();
    #[cfg(not(feature = "allocator"))]
    None
}

#[cold]
fn look_up() -> Option<Functions> {
    let (define, name) = own()
        .or_else(|| Some((sys::symbol(c"memscope_define_name")?, sys::symbol(c"memscope_name_block")?)))?;
    // SAFETY: the addresses are those of libmemscope.so's, or our allocator's, functions of these types.
    unsafe {
        Some(Functions {
            define: std::mem::transmute::<usize, DefineName>(define),
            name: std::mem::transmute::<usize, NameBlock>(name),
        })
    }
}

/// True in a program that is recorded.
#[inline]
pub fn is_there() -> bool {
    functions().is_some()
}

/// A variable's name in a scope, with the id that the recording has for it; 0: none yet.
struct Known {
    name: u32,
    scope: u32,
    id: AtomicU64,
}

static KNOWN: Interner<Known> = Interner::new();

/// The entry for a name in a scope; `None` inside of a call that is just allocating.
fn known(name: u32, scope: u32) -> Option<&'static Known> {
    let hash = hash_words([u64::from(name) << 32 | u64::from(scope)]);
    let same = |known: &Known| known.name == name && known.scope == scope;
    let number = match KNOWN.find(hash, same) {
        Some(number) => number,
        None => {
            let _busy = Busy::begin()?;
            KNOWN.intern(hash, same, || Known { name, scope, id: AtomicU64::new(0) })
        }
    };
    KNOWN.get(number)
}

impl Known {
    /// Defines the name in the recording.
    #[cold]
    fn define(&self, functions: &Functions) -> u64 {
        let Some(name) = names::get(self.name) else { return 0 };
        let scope = scope::name(self.scope).or(name.module).unwrap_or_default();
        let text = |text: &'static Option<_>| text.as_deref().unwrap_or_default();
        let texts = [text(&name.name), text(&name.type_name), scope].map(Text::from);
        // SAFETY: the three texts are readable.
        let id = unsafe { (functions.define)(&raw const texts) };
        self.id.store(id, Ordering::Relaxed);
        id
    }

    /// Names a block.
    fn give(&self, functions: &Functions, at: Memory) {
        let mut id = self.id.load(Ordering::Relaxed);
        // A second time where the id is that of a process that this one was forked from.
        for _ in 0..2 {
            if id == 0 {
                id = self.define(functions);
            }
            if id == 0 || !at.tell(functions, id) {
                return;
            }
            id = 0;
        }
    }
}

/// Where a variable's memory is: the address of a block or, with a reach, of something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The address; 0 where the variable has none.
    pub address: usize,
    /// 0: the block begins at the address. Else it begins at most that many bytes before.
    pub reach: usize,
}

impl Memory {
    /// True where the id is not known.
    fn tell(self, functions: &Functions, id: u64) -> bool {
        // SAFETY: address and reach are mere numbers to the function.
        unsafe { (functions.name)(self.address as *const c_void, self.reach, id) != 0 }
    }

    /// Whether this can be the block that had been seen at `before`. Of a map we see the address of some entry, which is
    /// another one all the time while the block remains.
    const fn is_that_of(self, before: Self) -> bool {
        self.reach == before.reach
            && (self.address == before.address
                || self.reach != 0
                    && self.address != 0
                    && before.address != 0
                    && self.address.abs_diff(before.address) < self.reach)
    }
}

/// The block of a variable that was named last.
#[derive(Debug, Default)]
pub struct Named {
    address: AtomicUsize,
    reach: AtomicUsize,
}

impl Named {
    fn get(&self) -> Memory {
        let (address, reach) = (self.address.load(Ordering::Relaxed), self.reach.load(Ordering::Relaxed));
        Memory { address, reach }
    }

    /// The variable's memory is there now, and surely live: names the block if it is another one than before.
    #[inline]
    pub fn update(&self, now: Memory, name: u32, scope: u32) {
        if !now.is_that_of(self.get()) {
            self.renew(now, name, scope);
        }
    }

    #[cold]
    fn renew(&self, now: Memory, name: u32, scope: u32) {
        self.leave();
        self.address.store(now.address, Ordering::Relaxed);
        self.reach.store(now.reach, Ordering::Relaxed);
        if let (Some(functions), Some(known)) = (functions(), known(name, scope))
            && now.address != 0
        {
            known.give(functions, now);
        }
    }

    /// The variable has the block no more, which may live on: it keeps its name and hands it on no more.
    #[cold]
    pub fn leave(&self) {
        let before = self.get();
        if let Some(functions) = functions().filter(|_| before.address != 0) {
            before.tell(functions, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_a_map_may_move_within_its_table() {
        let at = |address, reach| Memory { address, reach };
        assert!(at(100, 0).is_that_of(at(100, 0)));
        assert!(!at(104, 0).is_that_of(at(100, 0)));
        assert!(at(104, 64).is_that_of(at(100, 64)) && at(40, 64).is_that_of(at(100, 64)));
        assert!(!at(164, 64).is_that_of(at(100, 64)));
        assert!(!at(104, 128).is_that_of(at(100, 64)), "the table has grown");
        assert!(!at(0, 64).is_that_of(at(10, 64)) && !at(10, 64).is_that_of(at(0, 64)));
    }
}
