//! Streams: which frames hold a stream's records, in order, and where words are missing.

use super::frame::Kind;
use super::read::FrameInfo;

/// Words of a stream that no frame of the trace holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The stream.
    pub stream: u32,
    /// Position of the first missing word.
    pub from: u64,
    /// Position of the first word behind it.
    pub to: u64,
    /// Last stamp before it; 0 where there is none.
    pub after_stamp: u64,
    /// First stamp behind it.
    pub before_stamp: u64,
}

/// One stream's frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamIndex {
    /// Number of the stream, from 1.
    pub stream: u32,
    /// Number of the thread that wrote it.
    pub thread: u32,
    /// Indices of its frames, by position, none twice.
    pub frames: Vec<usize>,
    /// Position behind its last word.
    pub end: u64,
    /// Records in its frames.
    pub records: u64,
}

/// Orders the frames by stream and position; gives the streams by number, and the gaps.
///
/// A frame that repeats words of another is left out: a writer that died between writing a frame and
/// noting so may have written it twice.
pub(super) fn index(frames: &[FrameInfo]) -> (Vec<StreamIndex>, Vec<Gap>) {
    let mut order: Vec<usize> =
        (0..frames.len()).filter(|&i| frames[i].header.kind == Kind::EVENTS).collect();
    order.sort_by_key(|&i| (frames[i].header.stream, frames[i].header.position, i));
    let (mut streams, mut gaps): (Vec<StreamIndex>, Vec<Gap>) = (Vec::new(), Vec::new());
    for i in order {
        let header = &frames[i].header;
        if streams.last().is_none_or(|s| s.stream != header.stream) {
            let (stream, thread) = (header.stream, header.thread);
            streams.push(StreamIndex { stream, thread, frames: Vec::new(), end: 0, records: 0 });
        }
        let Some(stream) = streams.last_mut() else { continue };
        if header.position < stream.end {
            continue;
        }
        if header.position > stream.end {
            let after = stream.frames.last().map_or(0, |&last| frames[last].header.last_stamp);
            gaps.push(Gap {
                stream: header.stream,
                from: stream.end,
                to: header.position,
                after_stamp: after,
                before_stamp: header.first_stamp,
            });
        }
        stream.frames.push(i);
        stream.end = header.position.saturating_add(header.words());
        stream.records += u64::from(header.records);
    }
    (streams, gaps)
}

#[cfg(test)]
mod tests {
    use super::super::frame::FrameHeader;
    use super::*;

    fn frame(stream: u32, position: u64, words: u32) -> FrameInfo {
        let header = FrameHeader {
            stream,
            position,
            raw_len: words * 8,
            records: 1,
            thread: stream + 10,
            ..FrameHeader::new(Kind::EVENTS)
        };
        FrameInfo { header, offset: 0 }
    }

    #[test]
    fn sorts_and_drops_repeats() {
        let frames = [
            frame(2, 0, 10),
            frame(1, 10, 5),
            frame(1, 0, 10),
            frame(2, 0, 10),
            frame(2, 4, 6),
            FrameInfo { header: FrameHeader::new(Kind::CLOCK), offset: 0 },
            frame(2, 10, 1),
        ];
        let (streams, gaps) = index(&frames);
        assert_eq!(gaps, []);
        assert_eq!(streams.len(), 2);
        assert_eq!((streams[0].stream, streams[0].thread, streams[0].end), (1, 11, 15));
        assert_eq!(streams[0].frames, [2, 1]);
        assert_eq!(streams[1].frames, [0, 6]);
        assert_eq!(streams[1].records, 2);
    }

    #[test]
    fn finds_gaps() {
        let (streams, gaps) = index(&[frame(1, 3, 2), frame(1, 9, u32::MAX / 8)]);
        assert_eq!(streams[0].frames, [0, 1]);
        let spans: Vec<_> = gaps.iter().map(|g| (g.from, g.to)).collect();
        assert_eq!(spans, [(0, 3), (5, 9)]);
        let (streams, _) = index(&[frame(1, u64::MAX, 2), frame(1, u64::MAX, 2)]);
        assert_eq!(streams[0].end, u64::MAX);
    }
}
