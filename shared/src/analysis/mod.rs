//! From a trace to numbers.
