//! Codec 2.
