//! A slice that is there from the start: in the program's image, or made together with what holds it.
//!
//! What the process's store needs must not be made at its first use: making it allocates, and the program's
//! allocator may come back before it is made.

/// The slice.
#[derive(Debug)]
pub enum Fixed<T: 'static> {
    /// In the program's image.
    Static(&'static [T]),
    /// On the heap.
    Own(Box<[T]>),
}

impl<T> Fixed<T> {
    /// Makes one on the heap.
    pub fn own(length: usize, each: impl FnMut() -> T) -> Self {
        Self::Own(std::iter::repeat_with(each).take(length).collect())
    }

    /// The items.
    #[inline]
    pub const fn slice(&self) -> &[T] {
        match self {
            Self::Static(slice) => slice,
            Self::Own(slice) => slice,
        }
    }
}
