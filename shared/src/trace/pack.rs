//! zstd for everything outside of the recorder.

use std::fmt;
use std::io::Cursor;

use super::encode::Compress;
use zstd::zstd_safe::{CParameter, ParamSwitch};

/// Level at which columns are compressed.
pub const LEVEL: i32 = 1;

/// That of columns that hardly repeat themselves: few places are looked at. What is found is coded by frequency all the same.
pub const NOISE_LEVEL: i32 = -100;

/// [`Compress`] by the `zstd` crate.
pub struct Zstd(zstd::bulk::Compressor<'static>);

impl Zstd {
    /// A compressor of level [`LEVEL`]; `None` where there is no memory for one.
    #[must_use]
    pub fn new() -> Option<Self> {
        zstd::bulk::Compressor::new(LEVEL).ok().map(Self)
    }
}

impl fmt::Debug for Zstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Zstd")
    }
}

impl Zstd {
    fn pack(&mut self, src: &[u8], dst: &mut Vec<u8>, level: i32, codes: ParamSwitch) -> bool {
        let set = self.0.set_compression_level(level).is_ok()
            && self.0.set_parameter(CParameter::LiteralCompressionMode(codes)).is_ok();
        if !set {
            return false;
        }
        let start = dst.len();
        dst.reserve(zstd::zstd_safe::compress_bound(src.len()));
        let mut cursor = Cursor::new(&mut *dst);
        cursor.set_position(start as u64);
        self.0.compress_to_buffer(src, &mut cursor).is_ok()
    }
}

impl Compress for Zstd {
    fn compress(&mut self, src: &[u8], dst: &mut Vec<u8>) -> bool {
        self.pack(src, dst, LEVEL, ParamSwitch::Auto)
    }

    fn compress_noise(&mut self, src: &[u8], dst: &mut Vec<u8>) -> bool {
        self.pack(src, dst, NOISE_LEVEL, ParamSwitch::Enable)
    }
}
