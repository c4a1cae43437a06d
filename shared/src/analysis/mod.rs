//! From a trace to numbers.

pub mod cursor;
pub mod event;
pub mod merge;
pub mod source;
pub mod tournament;

#[cfg(test)]
mod testing;
