//! `Box`, `Rc`, `Arc`.

use super::{Trackable, where_any};
use std::rc::{self, Rc};
use std::sync::{self, Arc};

impl<T: ?Sized> Trackable for Box<T> {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        where_any(std::ptr::from_ref(&**self).cast::<u8>(), size_of_val(&**self))
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        size_of_val(&**self)
    }
}

/// In front of a shared value stand its two counters, padded to its alignment.
fn counters<T: ?Sized>(value: &T) -> usize {
    (2 * size_of::<usize>()).next_multiple_of(align_of_val(value))
}

macro_rules! shared {
    ($($owner:ident, $weak:ty;)*) => {$(
        impl<T: ?Sized> Trackable for $owner<T> {
            #[inline]
            fn get_heap_ptr(&self) -> Option<usize> {
                Some($owner::as_ptr(self).cast::<u8>() as usize)
            }
            #[inline]
            fn get_size_estimate(&self) -> usize {
                counters(&**self) + size_of_val(&**self)
            }
            #[inline]
            fn get_block_ptr(&self) -> Option<usize> {
                self.get_heap_ptr().map(|value| value - counters(&**self))
            }
            #[inline]
            fn is_shared(&self) -> bool {
                true
            }
        }

        /// A weak reference owns nothing: it is a plain value.
        impl<T: ?Sized> Trackable for $weak {
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

shared! {
    Rc, rc::Weak<T>;
    Arc, sync::Weak<T>;
}
