//! A trace that we write: the frames that others wrote before us are followed, ours are appended.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use memscope_shared::rhythm;
use memscope_shared::trace::frame::{FILE_HEADER_BYTES, FRAME_HEADER_BYTES};
use memscope_shared::trace::{Block, Compress, Encoder, Process, Written, Zstd, encode};

/// The end of a trace.
pub struct Output {
    file: File,
    offset: u64,
    /// What it holds of each stream.
    pub written: Written,
    /// Made for the first records.
    encoder: Option<(Encoder, Box<dyn Compress + Send>)>,
    unit: u32,
    /// Frames that are not yet written.
    pub out: Vec<u8>,
}

impl Output {
    /// Goes on with the trace of a process, which nobody else may be writing.
    pub fn new(file: File, process: &Process) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let mut written = Written::new();
        let header = |offset| {
            let mut bytes = [0; FRAME_HEADER_BYTES];
            file.read_exact_at(&mut bytes, offset).is_ok().then_some(bytes)
        };
        let followed = written.follow(FILE_HEADER_BYTES as u64, len, header);
        let (offset, _) = followed.ok_or(io::ErrorKind::InvalidData)?;
        let unit = rhythm::unit(process.clock_hz);
        Ok(Self { file, offset, written, encoder: None, unit, out: Vec::new() })
    }

    /// Notes records that go on where a stream ends.
    pub fn add(&mut self, block: Block, parts: &[&[u64]]) {
        let unit = self.unit;
        let (encoder, compress) = self.encoder.get_or_insert_with(|| {
            let mut encoder = Encoder::new();
            encoder.set_unit(unit);
            let compress: Box<dyn Compress + Send> = match Zstd::new() {
                Some(zstd) => Box::new(zstd),
                None => Box::new(encode::Uncompressed),
            };
            (encoder, compress)
        });
        encoder.encode_parts(&mut **compress, block, parts, &mut self.out);
    }

    /// Writes what was noted. Where that fails, nothing of it stays.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        if self.file.metadata()?.nlink() == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let result = self.file.write_all_at(&self.out, self.offset);
        if result.is_ok() {
            self.offset += self.out.len() as u64;
        } else {
            let _ = self.file.set_len(self.offset);
        }
        self.out.clear();
        result
    }
}
