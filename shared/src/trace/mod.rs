//! The trace file: frames that hold a process image's records.
