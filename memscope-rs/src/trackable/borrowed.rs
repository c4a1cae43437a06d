//! References: the memory is another's, so they are plain values. What a recording calls a block is the name of its owner.

use super::Trackable;

impl<T: ?Sized> Trackable for &T {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        None
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        size_of::<Self>()
    }
}

impl<T: ?Sized> Trackable for &mut T {
    #[inline]
    fn get_heap_ptr(&self) -> Option<usize> {
        None
    }
    #[inline]
    fn get_size_estimate(&self) -> usize {
        size_of::<Self>()
    }
}
