//! Any bytes as a trace: it opens or is refused, and every frame decodes or is refused.
#![no_main]

use std::fs::File;
use std::io::Write;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use memscope_shared::trace::frame::MAX_PAYLOAD_BYTES;
use memscope_shared::trace::{EventBuf, TraceFile};

fn open(bytes: &[u8]) -> Option<TraceFile> {
    let mut file: File = tempfile::tempfile().ok()?;
    file.write_all(bytes).ok()?;
    TraceFile::from_file(file.into(), Path::new("fuzz")).ok()
}

fuzz_target!(|bytes: &[u8]| {
    let Some(trace) = open(bytes) else { return };
    let mut buf = EventBuf::new();
    for (index, frame) in trace.frames().iter().enumerate() {
        if trace.read_events(index, &mut buf).is_ok() {
            assert!(buf.words().len() * 8 <= MAX_PAYLOAD_BYTES);
            assert_eq!(buf.words().len() as u64, frame.header.words());
        } else {
            assert!(buf.words().is_empty());
        }
    }
    let clock = trace.clock();
    for sample in trace.clock_samples() {
        let _ = clock.ns(sample.stamp);
    }
    for stream in trace.streams() {
        assert!(stream.frames.iter().all(|&frame| frame < trace.frames().len()));
    }
});
