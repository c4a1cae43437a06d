//! Scopes: a name for what is tracked while a guard lives.

use crate::store::{Busy, Interner, hash_text};
use std::borrow::Cow;
use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    // Neither initialised lazily nor destroyed.
    static CURRENT: Cell<u32> = const { Cell::new(0) };
}

static SCOPES: Interner<Cow<'static, str>> = Interner::new();

/// The guard of a scope, made by [`track_scope!`](crate::track_scope). While it lives, what its thread tracks has this
/// `scope_name`; then the scope around it counts again.
///
/// It belongs to the thread that made it:
///
/// ```compile_fail
/// let scope = memscope_rs::track_scope!("here");
/// std::thread::spawn(move || drop(scope));
/// ```
#[derive(Debug)]
#[must_use = "the scope ends when the guard is dropped: `let _scope = track_scope!(...)`"]
pub struct ScopeGuard {
    before: u32,
    of_this_thread: PhantomData<*const ()>,
}

impl ScopeGuard {
    /// Enters a scope. [`track_scope!`](crate::track_scope) does the same.
    ///
    /// ```
    /// let names = ["first", "second"].map(String::from);
    /// for name in names {
    ///     let _scope = memscope_rs::ScopeGuard::enter(name);
    ///     let _value = memscope_rs::track_var!(vec![0_u8; 10]);
    /// }
    /// ```
    pub fn enter(name: impl Into<Cow<'static, str>>) -> Self {
        let before = CURRENT.replace(number(name.into()));
        Self { before, of_this_thread: PhantomData }
    }
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

fn number(name: Cow<'static, str>) -> u32 {
    let hash = hash_text(&name);
    if let Some(number) = SCOPES.find(hash, |known| *known == name) {
        return number;
    }
    let Some(_busy) = Busy::begin() else { return CURRENT.get() };
    let copy = name.clone();
    SCOPES.intern(hash, |known| *known == name, || copy)
}

/// Number of the calling thread's scope; 0 where it has entered none.
#[inline]
pub fn current() -> u32 {
    CURRENT.get()
}

/// The name of a scope.
pub fn name(number: u32) -> Option<&'static str> {
    SCOPES.get(number).map(|name| &**name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_scope_counts() {
        assert_eq!(current(), 0);
        let outer = ScopeGuard::enter("outer");
        {
            let _inner = ScopeGuard::enter(String::from("inner"));
            assert_eq!(name(current()), Some("inner"));
        }
        assert_eq!(name(current()), Some("outer"));
        drop(outer);
        assert_eq!(name(current()), None);
    }
}
