//! Every lifetime lies within the program's own readings of its clock before and after the calls.

use memscope_tests::said::Said;
use memscope_tests::{Record, program};
use serde::Deserialize;

/// How far a recorded time may lie outside of the program's readings.
const TOLERANCE_NS: i64 = 50_000;

#[derive(Debug, Deserialize)]
struct Life {
    size: u64,
    end: String,
    start: [i64; 2],
    stop: [i64; 2],
}

fn lives(said: &Said) -> Vec<Life> {
    said.others
        .iter()
        .filter_map(|line| line.get("life"))
        .map(|life| Life::deserialize(life).expect("a life"))
        .collect()
}

fn check(record: &Record) {
    let recorded = record.success();
    let said = Said::parse(&recorded.ran.stdout);
    let process = recorded.process();
    let clock =
        |name: &str| said.others.iter().find_map(|line| line["clock"][name].as_i64()).expect("a clock");
    let epoch = clock("realtime") - clock("monotonic");
    let lives = lives(&said);
    assert!(lives.len() > 2900, "{} lives", lives.len());
    for life in &lives {
        let found = process.one_sized(life.size);
        assert_eq!(found.freed_by, life.end, "{life:?}\n{found:?}");
        let lived = i64::try_from(found.lifetime_ns).expect("a short test");
        let shortest = life.stop[0] - life.start[1] - TOLERANCE_NS;
        assert!(lived >= shortest, "too short: {life:?}\n{found:?}");
        let born = i64::try_from(found.timestamp_alloc).expect("a time of this age") - epoch;
        assert!(
            (life.start[0] - TOLERANCE_NS..=life.start[1] + TOLERANCE_NS).contains(&born),
            "born at {born}: {life:?}\n{found:?}"
        );
        if life.end != "exit" {
            assert!(lived <= life.stop[1] - life.start[0] + TOLERANCE_NS, "too long: {life:?}\n{found:?}");
        } else {
            assert_eq!(found.timestamp_dealloc, Some(process.end_time), "{found:?}");
        }
    }
    let handed =
        said.others.iter().find_map(|line| line["handed"]["same_address"].as_i64()).expect("a count");
    assert!(handed > 500, "only {handed} addresses were handed on at once");
}

#[test]
fn within_the_programs_brackets() {
    check(&Record::new([program::c("brackets", &[])]));
}

#[test]
fn within_them_by_hand() {
    check(&Record::new([program::c("brackets", &[])]).by_hand());
}

#[test]
fn within_them_with_no_thread_of_ours() {
    check(&Record::new([program::c("brackets", &[])]).option("--no-thread"));
}

/// A block that is never freed lives until the process's end, which is when it was.
#[test]
fn flushed_at_the_end() {
    let began = now_ns();
    let recorded = Record::new([program::c("edges", &[])]).arg("malloc_zero_kept").success();
    let ended = now_ns();
    let process = recorded.process();
    assert!(
        began <= process.start_time && process.start_time < process.end_time && process.end_time <= ended
    );
    let kept: Vec<_> = process.allocations.iter().filter(|a| a.freed_by == "exit").collect();
    assert!(kept.len() >= 2, "two were kept");
    for a in kept {
        assert!(a.is_leaked && a.timestamp_dealloc == Some(process.end_time), "{a:?}");
    }
}

fn now_ns() -> u64 {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_nanos()).expect("a clock of this age")
}
