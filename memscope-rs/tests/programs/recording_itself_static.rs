//! The program `recording_itself`, for a test that links it statically.

#[path = "recording_itself.rs"]
mod program;

fn main() {
    program::main();
}
