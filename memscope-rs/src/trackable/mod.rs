//! What can be tracked.

mod borrowed;
mod containers;
mod owners;
mod plain;
mod wrappers;

/// A value whose variable can be tracked with [`track_var!`](crate::track_var).
///
/// It is there for the standard library's types; for your own, derive it:
///
/// ```
/// use memscope_rs::{track_var, Trackable};
///
/// #[derive(Trackable)]
/// struct Session {
///     user: String,
///     packets: Vec<u32>,
///     retries: u8,
/// }
///
/// let session = Session { user: "ann".into(), packets: vec![1, 2, 3], retries: 0 };
/// assert_eq!(session.get_size_estimate(), 3 + 12 + 1);
/// let session = track_var!(session);
/// assert_eq!(session.retries, 0);
/// ```
///
/// or write it by hand, with at least the first and the third function:
///
/// ```
/// use memscope_rs::Trackable;
///
/// struct Matrix {
///     rows: usize,
///     cells: Vec<f64>,
/// }
///
/// impl Trackable for Matrix {
///     fn get_heap_ptr(&self) -> Option<usize> {
///         self.cells.get_heap_ptr()
///     }
///     fn get_size_estimate(&self) -> usize {
///         size_of::<usize>() + self.cells.get_size_estimate()
///     }
/// }
///
/// let matrix = Matrix { rows: 2, cells: vec![0.0; 4] };
/// assert_eq!(matrix.get_size_estimate(), 8 + 32);
/// assert!(matrix.get_type_name().ends_with("Matrix"));
/// # assert_eq!(matrix.rows, 2);
/// ```
pub trait Trackable {
    /// Address of the heap memory that the value owns; `None` where it owns none.
    fn get_heap_ptr(&self) -> Option<usize>;

    /// Name of the type.
    fn get_type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }

    /// Bytes that the value takes: of a container the heap memory that it owns itself (not what its elements own),
    /// of a plain value its size.
    fn get_size_estimate(&self) -> usize;

    /// Address at which the allocator gave out the memory of [`get_heap_ptr`](Trackable::get_heap_ptr); `None`
    /// where it is not known, as inside of a map. A recording names the block that begins there; without it, the
    /// block that the heap pointer lies in, if that is no larger than the size estimate.
    fn get_block_ptr(&self) -> Option<usize> {
        self.get_heap_ptr()
    }

    /// True where the memory may have several owners, as that of `Rc` and `Arc`. They share one record, and the last
    /// of them that is tracked ends it.
    fn is_shared(&self) -> bool {
        false
    }
}

/// The address, where there is memory at it: empty containers point nowhere.
fn where_any<T>(address: *const T, bytes: usize) -> Option<usize> {
    (bytes != 0).then_some(address as usize)
}

#[cfg(test)]
mod tests;
