//! memscope-cli.
fn main() {}
