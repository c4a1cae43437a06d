//! zstd for the writer, in a workspace of our own: the library's ordinary contexts come from `malloc`.

use crate::sys::memory;
use core::ffi::c_void;
use core::ptr::null_mut;
use memscope_shared::trace::Compress;

/// Fast enough for 20 M events/s, and smaller than what other fast compressors make.
const LEVEL: i32 = 1;
/// For columns that hardly repeat themselves: few places are looked at. What is found is coded by frequency all the same, which
/// levels below 0 would not do by themselves.
const NOISE_LEVEL: i32 = -100;
/// The longest input that is given in one piece; a longer one is declined.
const MAX_INPUT: usize = 16 << 20;

/// So many bytes are declined at first: a process that records next to nothing is not worth making a context ready, which
/// costs more than all the rest of its trace.
const DECLINED: usize = 4 << 10;

/// What [`Compress::compress_noise`] goes by.
const NOISE: [(zstd_sys::ZSTD_cParameter, i32); 2] = [
    (zstd_sys::ZSTD_cParameter::ZSTD_c_compressionLevel, NOISE_LEVEL),
    // `ZSTD_c_literalCompressionMode`
    (
        zstd_sys::ZSTD_cParameter::ZSTD_c_experimentalParam5,
        zstd_sys::ZSTD_ParamSwitch_e::ZSTD_ps_enable as i32,
    ),
];

/// Room for a context, whichever of the two it is used for; a test asks. The library's own arithmetic would be the only code of it that most processes ever touch.
const WORKSPACE: usize = 576 << 10;

/// A compression context in a mapping of its own. One a recording; never given back.
#[derive(Debug)]
pub struct Zstd {
    workspace: *mut u8,
    /// Null as long as it was not needed.
    context: *mut zstd_sys::ZSTD_CCtx,
    /// Whether the library has taken [`NOISE`].
    noise: bool,
    declined: usize,
}

// SAFETY: the context has no ties to a thread.
unsafe impl Send for Zstd {}

impl Zstd {
    /// Gets memory for a context: later the program may have limited it. `None` where the kernel gives none.
    #[must_use]
    pub fn new() -> Option<Self> {
        let workspace = memory::map_private(WORKSPACE).ok()?;
        Some(Self { workspace, context: null_mut(), noise: false, declined: 0 })
    }

    /// Whether there is a context, now that so many bytes are to be compressed.
    fn is_ready(&mut self, len: usize) -> bool {
        if self.context.is_null() {
            self.declined = self.declined.saturating_add(len);
            if self.declined > DECLINED {
                // SAFETY: the workspace is page aligned, has this size and is never unmapped.
                self.context = unsafe { zstd_sys::ZSTD_initStaticCCtx(self.workspace.cast(), WORKSPACE) };
                if !self.context.is_null() {
                    self.noise = self.set_noise_parameters();
                }
            }
        }
        !self.context.is_null()
    }

    /// Sets [`NOISE`], if the library takes all of it. There is a context.
    fn set_noise_parameters(&mut self) -> bool {
        NOISE.into_iter().all(|(parameter, value)| {
            // SAFETY: the context is valid; the result is looked at.
            unsafe {
                zstd_sys::ZSTD_isError(zstd_sys::ZSTD_CCtx_setParameter(self.context, parameter, value)) == 0
            }
        })
    }

    /// Appends what `pack` makes of `src`, by a ready context: it is told where, and how much room there is, and gives a length
    /// or an error of the library.
    fn append(
        &mut self,
        src: &[u8],
        dst: &mut Vec<u8>,
        pack: impl FnOnce(*mut zstd_sys::ZSTD_CCtx, *mut c_void, usize) -> usize,
    ) -> bool {
        if src.len() > MAX_INPUT || !self.is_ready(src.len()) {
            return false;
        }
        // SAFETY: plain arithmetic of the library; the pointer is one into the vector, whose length is set to what was written
        // within its capacity.
        unsafe {
            let start = dst.len();
            dst.reserve(zstd_sys::ZSTD_compressBound(src.len()));
            let room = dst.capacity() - start;
            let n = pack(self.context, dst.as_mut_ptr().add(start).cast(), room);
            if zstd_sys::ZSTD_isError(n) != 0 {
                return false;
            }
            dst.set_len(start + n);
        }
        true
    }
}

impl Compress for Zstd {
    fn compress(&mut self, src: &[u8], dst: &mut Vec<u8>) -> bool {
        // SAFETY: the context is valid and used by one thread at a time; the destination has the capacity that
        // it is said to have. Parameters that were set do not count here.
        self.append(src, dst, |context, into, room| unsafe {
            zstd_sys::ZSTD_compressCCtx(context, into, room, src.as_ptr().cast(), src.len(), LEVEL)
        })
    }

    fn compress_noise(&mut self, src: &[u8], dst: &mut Vec<u8>) -> bool {
        if !self.is_ready(src.len()) {
            return false;
        }
        if !self.noise {
            return self.compress(src, dst);
        }
        // SAFETY: as in `compress`.
        self.append(src, dst, |context, into, room| unsafe {
            zstd_sys::ZSTD_compress2(context, into, room, src.as_ptr().cast(), src.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_large_enough_for_both() {
        // SAFETY: plain arithmetic of the library, and parameters that are given back.
        let (ordinary, noise) = unsafe {
            let parameters = zstd_sys::ZSTD_createCCtxParams();
            for (parameter, value) in NOISE {
                let set = zstd_sys::ZSTD_CCtxParams_setParameter(parameters, parameter, value);
                assert_eq!(zstd_sys::ZSTD_isError(set), 0);
            }
            let noise = zstd_sys::ZSTD_estimateCCtxSize_usingCCtxParams(parameters);
            zstd_sys::ZSTD_freeCCtxParams(parameters);
            (zstd_sys::ZSTD_estimateCCtxSize(LEVEL), noise)
        };
        assert!((WORKSPACE / 2..WORKSPACE).contains(&ordinary), "{ordinary} bytes");
        assert!(noise <= WORKSPACE, "{noise} bytes");
    }

    /// Should the library refuse the parameters: as other columns.
    #[test]
    fn noise_goes_without_its_parameters() {
        let mut zstd = Zstd::new().unwrap();
        let (src, mut plain, mut other) = ([3; 2 * DECLINED], Vec::new(), Vec::new());
        assert!(zstd.compress(&src, &mut plain) && zstd.noise);
        zstd.noise = false;
        assert!(zstd.compress_noise(&src, &mut other));
        assert_eq!(plain, other);
    }

    #[test]
    fn compresses_again_and_again() {
        let mut zstd = Zstd::new().unwrap();
        let mut none = Vec::new();
        assert!(!zstd.compress(&[0; DECLINED], &mut none) && none.is_empty());
        for (len, noise) in
            [1, 0, 1000, 1 << 20, MAX_INPUT as u32].into_iter().flat_map(|len| [(len, false), (len, true)])
        {
            // Runs of the same byte; or four different ones in no order.
            let byte =
                |i: u32| if noise { (i.wrapping_mul(0x9e37_79b9) >> 30) as u8 } else { (i / 64) as u8 };
            let src: Vec<u8> = (0..len).map(byte).collect();
            let mut dst = vec![7];
            assert!(if noise { zstd.compress_noise(&src, &mut dst) } else { zstd.compress(&src, &mut dst) });
            let mut back = vec![0; src.len()];
            // SAFETY: both buffers have the lengths given.
            let n = unsafe {
                let from = dst[1..].as_ptr().cast();
                zstd_sys::ZSTD_decompress(back.as_mut_ptr().cast(), back.len(), from, dst.len() - 1)
            };
            assert_eq!((n, &back), (src.len(), &src));
            assert!(len < 1000 || dst.len() < src.len() / 3, "{} of {len} bytes", dst.len());
        }
    }
}
