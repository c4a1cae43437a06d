//! zstd for the writer, in a workspace of our own: the library's ordinary contexts come from `malloc`.

use crate::sys::memory;
use core::ptr::null_mut;
use memscope_shared::trace::Compress;

/// Fast enough for 20 M events/s, and smaller than what other fast compressors make.
const LEVEL: i32 = 1;
/// The longest input that is given in one piece; a longer one is declined.
const MAX_INPUT: usize = 16 << 20;

/// So many bytes are declined at first: a process that records next to nothing is not worth making a context ready, which
/// costs more than all the rest of its trace.
const DECLINED: usize = 4 << 10;

/// Room for a context of this level. The library's own arithmetic would be the only code of it that most processes ever touch.
const WORKSPACE: usize = 576 << 10;

/// A compression context in a mapping of its own. One a recording; never given back.
#[derive(Debug)]
pub struct Zstd {
    workspace: *mut u8,
    /// Null as long as it was not needed.
    context: *mut zstd_sys::ZSTD_CCtx,
    declined: usize,
}

// SAFETY: the context has no ties to a thread.
unsafe impl Send for Zstd {}

impl Zstd {
    /// Gets memory for a context: later the program may have limited it. `None` where the kernel gives none.
    #[must_use]
    pub fn new() -> Option<Self> {
        let workspace = memory::map_private(WORKSPACE).ok()?;
        Some(Self { workspace, context: null_mut(), declined: 0 })
    }

    /// Whether there is a context, now that so many bytes are to be compressed.
    fn is_ready(&mut self, len: usize) -> bool {
        if self.context.is_null() {
            self.declined = self.declined.saturating_add(len);
            if self.declined > DECLINED {
                // SAFETY: the workspace is page aligned, has this size and is never unmapped.
                self.context = unsafe { zstd_sys::ZSTD_initStaticCCtx(self.workspace.cast(), WORKSPACE) };
            }
        }
        !self.context.is_null()
    }
}

impl Compress for Zstd {
    fn compress(&mut self, src: &[u8], dst: &mut Vec<u8>) -> bool {
        if src.len() > MAX_INPUT || !self.is_ready(src.len()) {
            return false;
        }
        // SAFETY: the context is valid and used by one thread at a time; the destination has the capacity that
        // it is said to have, and its length is set to what was written.
        unsafe {
            let start = dst.len();
            dst.reserve(zstd_sys::ZSTD_compressBound(src.len()));
            let room = dst.capacity() - start;
            let into = dst.as_mut_ptr().add(start).cast();
            let n =
                zstd_sys::ZSTD_compressCCtx(self.context, into, room, src.as_ptr().cast(), src.len(), LEVEL);
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
        // SAFETY: plain arithmetic of the library.
        let needed = unsafe { zstd_sys::ZSTD_estimateCCtxSize(LEVEL) };
        assert!((WORKSPACE / 2..WORKSPACE).contains(&needed), "{needed} bytes");
        let mut zstd = Zstd::new().unwrap();
        let mut none = Vec::new();
        assert!(!zstd.compress(&[0; DECLINED], &mut none) && none.is_empty());
        for len in [1, 0, 1000, 1 << 20] {
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
