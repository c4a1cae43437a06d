//! Any bytes as the payload of a frame, past all checksums; and any words through the codec and back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memscope_shared::trace::frame::{FRAME_HEADER_BYTES, FrameHeader, Kind};
use memscope_shared::trace::{Block, Encoder, EventBuf, Zstd, codec};

/// The bytes as the columns of a frame that claims `words` words.
fn decode(bytes: &[u8], words: u16) {
    let header = FrameHeader {
        codec: codec::COLUMNS,
        raw_len: u32::from(words) * 8,
        stored_len: bytes.len() as u32,
        payload_crc: crc32fast::hash(bytes),
        unit: 3,
        ..FrameHeader::new(Kind::EVENTS)
    };
    let mut buf = EventBuf::new();
    if buf.decode_payload(&header, bytes).is_ok() {
        assert_eq!(buf.words().len(), usize::from(words));
    }
}

/// The bytes as words: what was encoded comes back.
fn round_trip(bytes: &[u8]) {
    let rows: Vec<u64> = bytes.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).collect();
    let Some(mut zstd) = Zstd::new() else { return };
    let (mut out, mut back, mut buf) = (Vec::new(), Vec::new(), EventBuf::new());
    Encoder::new().encode(&mut zstd, Block { stream: 1, thread: 1, position: 0 }, &rows, &mut out);
    let mut rest = &out[..];
    while let Some(header) = FrameHeader::from_bytes(rest) {
        let payload = &rest[FRAME_HEADER_BYTES..][..header.stored_len as usize];
        buf.decode_payload(&header, payload).expect("what was encoded is decoded");
        back.extend_from_slice(buf.words());
        rest = &rest[header.total_bytes() as usize..];
    }
    assert_eq!(rows, back);
}

fuzz_target!(|bytes: &[u8]| {
    if let Some((&[low, high], bytes)) = bytes.split_first_chunk() {
        decode(bytes, u16::from_le_bytes([low, high]));
        round_trip(bytes);
    }
});
