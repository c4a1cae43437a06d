//! What a recording lacks, and since when.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::cursor::Failure;
use crate::trace::{DamageKind, FrameInfo, TraceFile};

/// Reasons why a recording is incomplete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    reasons: Vec<String>,
    since: Option<u64>,
}

impl Losses {
    /// Adds a reason; `since` is a stamp.
    pub fn add(&mut self, reason: String, since: u64) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
        self.since = Some(self.since.map_or(since, |before| before.min(since)));
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    /// All of them as a sentence.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.reasons.join("; "))
    }

    /// The stamp since when.
    #[must_use]
    pub const fn since(&self) -> Option<u64> {
        self.since
    }
}

/// What the trace itself says is missing, and the blocks that could not be read.
#[must_use]
pub fn of_trace(trace: &TraceFile, failures: &[Failure], running: bool) -> Losses {
    let mut losses = Losses::default();
    match trace.end() {
        Some(end) if !end.complete || end.lost_events > 0 => {
            let reason = end.reason.clone().unwrap_or_else(|| "events were lost".into());
            // One by one: what is found again below is said once.
            let since = end.incomplete_since.unwrap_or(end.stamp);
            reason.split("; ").for_each(|reason| losses.add(reason.to_owned(), since));
        }
        None if !running => losses.add(missing_end(trace), last_stamp(trace.frames())),
        _ => {}
    }
    damages(trace, running, &mut losses);
    gaps(trace, &mut losses);
    for failure in failures {
        losses.add(format!("a damaged part of the trace was left out ({})", failure.why), failure.since);
    }
    missing_records(trace, &mut losses);
    losses
}

/// Why a trace has no end; it may come yet.
fn missing_end(trace: &TraceFile) -> String {
    let text = "the end of the recording is missing";
    let spool = trace.process().map(|process| Path::new(OsStr::from_bytes(&process.spool)));
    match spool.filter(|spool| spool.is_absolute() && spool.exists()) {
        Some(spool) => format!("{text}: it waits in {}", spool.display()),
        None => text.into(),
    }
}

/// Last stamp in any of `frames`.
fn last_stamp(frames: &[FrameInfo]) -> u64 {
    frames.iter().map(|frame| frame.header.last_stamp).max().unwrap_or(0)
}

fn damages(trace: &TraceFile, running: bool, losses: &mut Losses) {
    for damage in trace.damages() {
        // While the process runs, its writer may be in the middle of the last frame.
        if running && damage.kind == DamageKind::Cut {
            continue;
        }
        let before = trace.frames().partition_point(|frame| frame.offset < damage.offset);
        let since = damage.stamps.map_or_else(|| last_stamp(&trace.frames()[..before]), |stamps| stamps.0);
        let what = match damage.kind {
            DamageKind::Cut => "the trace was cut",
            DamageKind::Header | DamageKind::Payload => "a damaged part of the trace was left out",
        };
        losses.add(format!("{what} ({} bytes)", damage.length), since);
    }
}

fn gaps(trace: &TraceFile, losses: &mut Losses) {
    let (Some(since), words) = trace.gaps().iter().fold((None, 0u64), |(since, words), gap| {
        let since = since.map_or(gap.after_stamp, |since: u64| since.min(gap.after_stamp));
        (Some(since), words.saturating_add(gap.to - gap.from))
    }) else {
        return;
    };
    // Completion says it in the same words, if it saw the same.
    losses.add(format!("{words} words of records are missing"), since);
}

/// The end frame says how many records there should be: whole frames that were lost at a stream's
/// end leave no gap.
fn missing_records(trace: &TraceFile, losses: &mut Losses) {
    let Some(end) = trace.end() else { return };
    let found: u64 = trace.streams().iter().map(|stream| stream.records).sum();
    if found < end.records && losses.is_empty() {
        losses.add(format!("{} records are missing", end.records - found), end.stamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_counts() {
        let mut losses = Losses::default();
        assert_eq!((losses.text(), losses.since()), (None, None));
        losses.add("one".into(), 50);
        losses.add("two".into(), 20);
        losses.add("one".into(), 90);
        assert_eq!((losses.text().as_deref(), losses.since()), (Some("one; two"), Some(20)));
    }
}
