//! From a trace to numbers.

pub mod blocks;
pub mod catalog;
pub mod cursor;
pub mod event;
pub mod hash;
pub mod histogram;
pub mod lifetimes;
pub mod merge;
pub mod modules;
pub mod pairing;
pub mod sites;
pub mod source;
pub mod stacks;
pub mod table;
pub mod threads;
pub mod timeline;
pub mod tournament;

#[cfg(test)]
mod testing;
