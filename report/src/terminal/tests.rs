use memscope_shared::model::{End, Stack};

use super::super::fixture::{self, HOSTILE};
use super::*;

fn report(snapshot: &Snapshot, width: usize) -> String {
    let mut out = Vec::new();
    write(snapshot, &mut out, width).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn totals_and_rankings_are_those_of_the_snapshot() {
    let snapshot = fixture::snapshot(500, 12);
    let text = report(&snapshot, 100);
    let stats = &snapshot.processes[0].stats;
    for expected in [
        format!("({} B)", count(stats.total_allocated)),
        counted(stats.total_allocations, "block"),
        counted(stats.active_allocations, "block"),
        "2.00 s after the start".to_owned(),
        "3 unknown frees".to_owned(),
        "started 2023-11-14 22:13:20.123 UTC, ran 3.21 s, exited with 0".to_owned(),
        "Top call sites by memory live at the peak (10 of ".to_owned(),
        "Top call sites by number of allocations (10 of ".to_owned(),
        "Top call sites by memory still live at the end (10 of ".to_owned(),
        "Top call sites by allocations that lived under 1 ms (10 of ".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected}\n{text}");
    }
    let digest = Digest::new(&snapshot.processes[0]);
    let first = &digest.sites[digest.top_sites(Ranking::Peak, 1)[0]];
    let shown = format!("  1. {:>12}", bytes(first.stats.memory_at_peak));
    assert!(text.contains(&shown), "{shown}\n{text}");
}

#[test]
fn lines_fit_and_steer_nothing() {
    let mut snapshot = fixture::family(9);
    snapshot.command = HOSTILE.map(str::to_owned).to_vec();
    for width in [0, 60, 80, 120] {
        for line in report(&snapshot, width).split('\n') {
            assert!(columns(line) <= width.max(NARROWEST), "{width}: {line}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}

#[test]
fn many_processes_are_cut_to_those_that_allocated_most() {
    let snapshot = fixture::family(9);
    let text = report(&snapshot, 100);
    assert_eq!(text.lines().filter(|line| line.starts_with("process ")).count(), SECTIONS);
    let most = &snapshot.processes[digest::by_allocated(&snapshot.processes)[0]];
    let first = text.lines().find(|line| line.starts_with("process ")).unwrap();
    assert!(first.starts_with(&format!("process {} ", most.pid)));
    assert!(text.contains("INCOMPLETE RECORDING: the output directory's file system is full; from 2.10 s"));
    assert!(text.contains("Not shown: 5 other processes that together allocated "));
    assert!(text.contains("\nNot recorded: 8 programs\n"));
    assert_eq!(text.matches("it is statically linked").count(), 8);
}

#[test]
fn the_same_snapshot_reads_the_same() {
    assert_eq!(report(&fixture::family(3), 90), report(&fixture::family(3), 90));
}

#[test]
fn nothing_recorded_and_broken_stacks_read_well() {
    let mut snapshot =
        Snapshot { processes: vec![Process::default()], complete: true, ..Snapshot::default() };
    assert!(report(&snapshot, 80).contains("There was no allocation."));
    let stats = SiteStats { allocations: 2, allocated: 10, ..SiteStats::default() };
    snapshot.processes[0].stacks =
        vec![Stack { frames: vec![4, 4], stats, ..Stack::default() }, Stack { stats, ..Stack::default() }];
    let text = report(&snapshot, 80);
    assert!(text.contains("(no stack)") && text.contains("4     0%"), "{text}");
    assert!(report(&Snapshot::default(), 80).contains("memscope: "));
}

#[test]
fn what_still_runs_has_no_end() {
    let mut snapshot = fixture::snapshot(50, 6);
    (snapshot.complete, snapshot.processes[0].complete) = (true, true);
    let ended = report(&snapshot, 100);
    assert!(ended.contains("live at the end ") && ended.contains("the recording is complete\n"), "{ended}");
    snapshot.processes[0].end = End::Running;
    let running = report(&snapshot, 100);
    for expected in
        ["was still running", "the recording is complete so far\n", "  live so far ", "by memory live so far"]
    {
        assert!(running.contains(expected), "{expected}\n{running}");
    }
    assert!(!running.contains("at the end"), "{running}");
}

#[test]
fn narrow_terminals_cut_no_number() {
    let mut snapshot = fixture::snapshot(200, 12);
    snapshot.command = vec!["/usr/bin/program".to_owned(), "-x".repeat(90)];
    let process = &mut snapshot.processes[0];
    process.exe = format!("/opt/{}/program", "deep/".repeat(20));
    process.stats.total_allocated = 123_456_789_012_345;
    process.stats.total_allocations = 9_876_543_210;
    let all: String = report(&snapshot, 400).split_whitespace().collect();
    for width in [60, 70, 80, 90, 100] {
        let text = report(&snapshot, width);
        let (head, rankings) = text.split_once("Top call sites").unwrap();
        assert!(!head.contains('…'), "{width}: {head}");
        let head: String = head.replace('─', "").split_whitespace().collect();
        assert!(all.replace('─', "").starts_with(&head), "{width}: {head}");
        for expected in ["(123,456,789,012,345 B)", "9,876,543,210 blocks", "2.00 s after the start"] {
            assert!(text.contains(expected), "{width}: {expected}\n{text}");
        }
        let rows = rankings.lines().filter(|line| line.get(3..5) == Some(". "));
        assert!(rows.clone().count() > 10 && rows.clone().all(|row| !row.contains('…')), "{rankings}");
    }
}
