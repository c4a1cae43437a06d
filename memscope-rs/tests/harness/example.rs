//! Where the example programs are.

use std::path::PathBuf;

/// A built example.
pub fn example(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    // target/PROFILE/deps/ends-HASH
    let path = exe.ancestors().nth(2).expect("a test in target/PROFILE/deps").join("examples").join(name);
    assert!(
        path.exists(),
        "{} is not there: run `cargo build -p memscope-rs --examples` first",
        path.display()
    );
    path
}
