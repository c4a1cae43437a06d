//! What runs on the threads of the program.

pub mod stack;
