//! zstd for the writer, in a workspace of our own: the library's ordinary contexts come from `malloc`.

use crate::sys::memory;
use core::ptr::NonNull;
use memscope_shared::trace::Compress;

/// Fast enough for 20 M events/s, and smaller than what other fast compressors make.
const LEVEL: i32 = 1;
/// The longest input that is given in one piece; a longer one is declined.
const MAX_INPUT: usize = 16 << 20;

/// A compression context in a mapping of its own. One a recording; never given back.
#[derive(Debug)]
pub struct Zstd {
    context: NonNull<zstd_sys::ZSTD_CCtx>,
}

// SAFETY: the context has no ties to a thread.
unsafe impl Send for Zstd {}

impl Zstd {
    /// Makes a context; `None` where the kernel gives no memory.
    #[must_use]
    pub fn new() -> Option<Self> {
        // SAFETY: plain arithmetic of the library; the workspace is page aligned, of the size asked for and
        // never unmapped.
        let context = unsafe {
            let size = zstd_sys::ZSTD_estimateCCtxSize(LEVEL);
            let workspace = memory::map_private(size).ok()?;
            zstd_sys::ZSTD_initStaticCCtx(workspace.cast(), size)
        };
        Some(Self { context: NonNull::new(context)? })
    }
}

impl Compress for Zstd {
    fn compress(&mut self, src: &[u8], dst: &mut Vec<u8>) -> bool {
        if src.len() > MAX_INPUT {
            return false;
        }
        // SAFETY: the context is valid and used by one thread at a time; the destination has the capacity that
        // it is said to have, and its length is set to what was written.
        unsafe {
            let start = dst.len();
            dst.reserve(zstd_sys::ZSTD_compressBound(src.len()));
            let room = dst.capacity() - start;
            let into = dst.as_mut_ptr().add(start).cast();
            let n = zstd_sys::ZSTD_compressCCtx(
                self.context.as_ptr(),
                into,
                room,
                src.as_ptr().cast(),
                src.len(),
                LEVEL,
            );
            if zstd_sys::ZSTD_isError(n) != 0 {
                return false;
            }
            dst.set_len(start + n);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compresses_again_and_again() {
        let mut zstd = Zstd::new().unwrap();
        for len in [0, 1, 1000, 1 << 20] {
            let src: Vec<u8> = (0..len).map(|i: u32| (i / 64) as u8).collect();
            let mut dst = vec![7];
            assert!(zstd.compress(&src, &mut dst));
            let mut back = vec![0; src.len()];
            // SAFETY: both buffers have the lengths given.
            let n = unsafe {
                let from = dst[1..].as_ptr().cast();
                zstd_sys::ZSTD_decompress(back.as_mut_ptr().cast(), back.len(), from, dst.len() - 1)
            };
            assert_eq!((n, &back), (src.len(), &src));
            assert!(len < 1000 || dst.len() < src.len() / 4);
        }
    }
}
