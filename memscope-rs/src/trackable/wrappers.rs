//! Types that hold another value, or several: they answer for what they hold.

use super::Trackable;
use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Reverse;
use std::mem::ManuallyDrop;
use std::num::{Saturating, Wrapping};
use std::pin::Pin;
use std::sync::{Mutex, OnceLock, RwLock};

/// All answers from a value that may be there, else those of a plain value.
macro_rules! through {
    ($($({$($generics:tt)*})? $type:ty, $self:ident => $inner:expr;)*) => {$(
        impl $(<$($generics)*>)? Trackable for $type {
            #[inline]
            fn get_heap_ptr(&$self) -> Option<usize> {
                $inner.and_then(|inner| inner.get_heap_ptr())
            }
            #[inline]
            fn get_size_estimate(&$self) -> usize {
                $inner.map_or(size_of::<Self>(), |inner| inner.get_size_estimate())
            }
            #[inline]
            fn get_block_ptr(&$self) -> Option<usize> {
                $inner.and_then(|inner| inner.get_block_ptr())
            }
            #[inline]
            fn is_shared(&$self) -> bool {
                $inner.is_some_and(|inner| inner.is_shared())
            }
        }
    )*};
}

through! {
    {T: Trackable} Option<T>, self => self.as_ref();
    {T: Trackable} Wrapping<T>, self => Some(&self.0);
    {T: Trackable} Saturating<T>, self => Some(&self.0);
    {T: Trackable} Reverse<T>, self => Some(&self.0);
    {T: Trackable} ManuallyDrop<T>, self => Some(&**self);
    {T: Trackable} OnceCell<T>, self => self.get();
    {T: Trackable} OnceLock<T>, self => self.get();
    // While it is borrowed mutably nobody can look into it.
    {T: Trackable} RefCell<T>, self => self.try_borrow().ok();
}

/// Of values that cannot be looked into: `Cell` gives none out, and to try a lock could make another thread fail.
macro_rules! closed {
    ($($type:ident)*) => {$(
        impl<T> Trackable for $type<T> {
            #[inline]
            fn get_heap_ptr(&self) -> Option<usize> {
                None
            }
            #[inline]
            fn get_size_estimate(&self) -> usize {
                size_of::<Self>()
            }
        }
    )*};
}

closed! { Cell Mutex RwLock }

impl<T: ?Sized> Trackable for Pin<Box<T>> {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        super::where_any(std::ptr::from_ref(&**self).cast::<u8>(), size_of_val(&**self))
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        size_of_val(&**self)
    }
}

impl<T: Trackable, E: Trackable> Trackable for Result<T, E> {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        self.as_ref().map_or_else(Trackable::get_heap_ptr, Trackable::get_heap_ptr)
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        self.as_ref().map_or_else(Trackable::get_size_estimate, Trackable::get_size_estimate)
    }
    #[inline]
    fn get_block_ptr(&self) -> Option<usize> {
        self.as_ref().map_or_else(Trackable::get_block_ptr, Trackable::get_block_ptr)
    }
    #[inline]
    fn is_shared(&self) -> bool {
        self.as_ref().map_or_else(Trackable::is_shared, Trackable::is_shared)
    }
}

/// What is borrowed belongs to another variable.
impl<T: ?Sized + ToOwned<Owned: Trackable>> Trackable for Cow<'_, T> {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        match self {
            Cow::Borrowed(_) => None,
            Cow::Owned(owned) => owned.get_heap_ptr(),
        }
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        match self {
            Cow::Borrowed(_) => size_of::<Self>(),
            Cow::Owned(owned) => owned.get_size_estimate(),
        }
    }
    #[inline]
    fn get_block_ptr(&self) -> Option<usize> {
        match self {
            Cow::Borrowed(_) => None,
            Cow::Owned(owned) => owned.get_block_ptr(),
        }
    }
    #[inline]
    fn is_shared(&self) -> bool {
        matches!(self, Cow::Owned(owned) if owned.is_shared())
    }
}

/// Several values: the first that has heap memory stands for them, the sizes add up.
impl<T: Trackable, const N: usize> Trackable for [T; N] {
    fn get_heap_ptr(&self) -> Option<usize> {
        self.iter().find_map(Trackable::get_heap_ptr)
    }
    fn get_size_estimate(&self) -> usize {
        self.iter().map(Trackable::get_size_estimate).sum()
    }
    fn get_block_ptr(&self) -> Option<usize> {
        self.iter().find_map(Trackable::get_block_ptr)
    }
}

macro_rules! tuples {
    ($(($($name:ident $at:tt),+);)*) => {$(
        impl<$($name: Trackable),+> Trackable for ($($name,)+) {
            fn get_heap_ptr(&self) -> Option<usize> {
                None$(.or_else(|| self.$at.get_heap_ptr()))+
            }
            fn get_size_estimate(&self) -> usize {
                0 $(+ self.$at.get_size_estimate())+
            }
            fn get_block_ptr(&self) -> Option<usize> {
                None$(.or_else(|| self.$at.get_block_ptr()))+
            }
        }
    )*};
}

tuples! {
    (A 0);
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, F 5);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
}
