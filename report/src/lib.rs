//! What is made of a snapshot: its JSON ([`json`]), the HTML report ([`html`]), the terminal's ([`terminal`]).
//!
//! ```text
//! model::Snapshot -> digest (sites, rankings, process tree) -> html      one file, opened from disk
//!                    format, names, plumbing                -> terminal  plain text
//!                 -> json                                              streamed
//! ```
//!
//! Both show what [`digest`] computed, so their numbers agree. A *stack* is one way through the
//! program to an allocation; a *call site* is a place in the code, the sum over all stacks whose most
//! telling frame ([`plumbing`]) is that place.
//!
//! Everything in a snapshot may come from a damaged or hostile file: indices may point nowhere, names
//! may hold markup or terminal escapes. Nothing here panics on it or passes it on.

#![forbid(unsafe_code)]

mod digest;
pub mod format;
pub mod html;
pub mod json;
mod names;
mod plumbing;
pub mod summary;
pub mod terminal;
mod text;

pub use text::harmless;

#[cfg(test)]
mod fixture;
