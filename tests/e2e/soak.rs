//! The short form of `scripts/soak`: a churning threaded program whose memory, and memscope's, stays flat.

use std::time::Duration;

use memscope_tests::{Cmd, artifacts, things};

/// Twenty seconds, sampled all the while; then the trace's counts are the program's own.
#[test]
fn twenty_seconds() {
    let script = artifacts::root_dir().join("scripts/soak");
    let ran = Cmd::new([things::python().as_ref(), script.as_os_str()])
        .arg("0.33")
        .env("MEMSCOPE_CLI_BIN", artifacts::cli())
        .timeout(Duration::from_secs(200))
        .run();
    assert_eq!(ran.code(), 0, "{}\n{}", ran.out(), ran.tail());
    assert!(ran.out().ends_with("soak: flat and exact\n"), "{}", ran.out());
}
