//! Signals, and stopping and going on.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::bench::{Bench, Running, kill, output, state, text, wait_until};

/// A shell that says which signals it got, until it is told to end by a line on stdin.
const TALKER: &str = r#"
for s in HUP INT QUIT USR1 USR2 TERM ALRM WINCH CONT; do trap "echo got $s" $s; done
echo ready $$
while :; do read word; case "$word" in end) exit 7;; esac; done
"#;

fn talker(bench: &Bench) -> (Running, i32) {
    bench.script("talker", TALKER);
    let mut running = Running::start(bench.run("./talker").process_group(0));
    let ready = running.line();
    let pid = ready.strip_prefix("ready ").expect(&ready).parse().expect("a number");
    (running, pid)
}

#[test]
fn signals_sent_to_us_reach_the_program() {
    let bench = Bench::new();
    let (mut running, _) = talker(&bench);
    for signal in ["TERM", "HUP", "USR1", "USR2", "ALRM", "WINCH"] {
        running.signal(signal);
        assert_eq!(running.answer(), format!("got {signal}"));
    }
    running.say("end\n");
    assert_eq!(running.status(), 7);
}

#[test]
fn interrupts_are_left_to_the_program() {
    let bench = Bench::new();
    let (mut running, _) = talker(&bench);
    running.signal("INT");
    running.signal("QUIT");
    running.signal("USR1");
    assert_eq!(running.answer(), "got USR1", "the others were not forwarded, and did not end us");
    kill("INT", -running.pid());
    assert_eq!(running.answer(), "got INT", "the terminal's reaches the whole group");
    running.say("end\n");
    assert_eq!(running.status(), 7);
}

#[test]
fn a_program_that_dies_of_what_was_forwarded() {
    let bench = Bench::new();
    let mut running = Running::start(bench.run("sh -c").args(["echo on; exec sleep 100"]));
    assert_eq!(running.line(), "on");
    running.signal("TERM");
    assert_eq!(running.status(), 143);
}

#[test]
fn what_the_program_sends_to_its_group_comes_to_it_once() {
    let bench = Bench::new();
    let script = "n=0; trap 'n=$((n+1))' USR1; kill -s USR1 0; sleep 0.3; echo $n";
    let result = output(bench.run("sh -c").arg(script).process_group(0));
    assert_eq!(text(&result.stdout), "1\n");
    assert_eq!(result.status.code(), Some(0));
}

#[test]
fn we_stop_and_go_on_with_the_program() {
    let bench = Bench::new();
    for signal in ["STOP", "TSTP"] {
        let bench = &bench;
        let directory = format!("run --quiet --export none -o {signal} ./talker");
        bench.script("talker", TALKER);
        let mut running = Running::start(bench.memscope(&directory).process_group(0));
        let pid = running.line().strip_prefix("ready ").expect("ready").parse().expect("a number");
        kill(signal, pid);
        wait_until("both to stop", || state(pid) == Some('T') && state(running.pid()) == Some('T'));
        running.signal("CONT");
        wait_until("both to go on", || state(pid) != Some('T') && state(running.pid()) != Some('T'));
        assert_eq!(running.answer(), "got CONT");
        running.say("end\n");
        assert_eq!(running.status(), 7);
    }
}

#[test]
fn a_stop_sent_to_us_stops_the_program() {
    let bench = Bench::new();
    let (mut running, pid) = talker(&bench);
    running.signal("TSTP");
    wait_until("both to stop", || state(pid) == Some('T') && state(running.pid()) == Some('T'));
    running.signal("CONT");
    wait_until("both to go on", || state(pid) != Some('T') && state(running.pid()) != Some('T'));
    running.say("end\n");
    while running.line() != "" {}
    assert_eq!(running.status(), 7);
}

/// The signals that a process ignores and blocks, as `/proc` shows them.
const DISPOSITIONS: &str = "grep -E '^Sig(Ign|Blk)' /proc/self/status";

#[test]
fn the_program_inherits_dispositions_as_they_were() {
    let bench = Bench::new();
    for ignored in ["", "INT", "PIPE CHLD", "HUP QUIT TERM"] {
        let shell = |memscope: &str| {
            let trap = if ignored.is_empty() { String::new() } else { format!("trap '' {ignored};") };
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("{trap} exec {memscope} {DISPOSITIONS}")).current_dir(bench.root());
            // Rust's own `Command` would set SIGPIPE to its default first: begin from that on both sides.
            text(&output(command.env("XDG_CACHE_HOME", bench.path("cache"))).stdout)
        };
        let directory = ignored.replace(' ', "-");
        let memscope =
            format!("{} run --quiet --export none -o rec-{directory}", env!("CARGO_BIN_EXE_memscope-cli"));
        let native = shell("");
        assert_eq!(native.lines().count(), 2, "{native}");
        assert_eq!(shell(&memscope), native, "ignored: {ignored}");
    }
}
