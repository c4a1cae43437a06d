use memscope_shared::model::Lifetimes;

use super::*;

fn frame(function: &str) -> StackFrame {
    StackFrame { function: Some(function.to_owned()), address: 7, ..StackFrame::default() }
}

fn stack(id: u64, frames: &[u32], stats: SiteStats) -> Stack {
    Stack { id, frames: frames.to_vec(), stats, ..Stack::default() }
}

fn site_stats(allocations: u64, bytes: u64, mean: u64) -> SiteStats {
    SiteStats {
        allocations,
        allocated: bytes,
        memory_at_peak: bytes,
        peak_memory: bytes,
        active_memory: bytes / 2,
        short_lived: allocations / 2,
        lifetime_ns: Lifetimes { min: mean / 2, max: mean * 2, mean, p50: mean, p90: mean, p99: mean },
        ..SiteStats::default()
    }
}

fn process() -> Process {
    Process {
        frames: vec![frame("operator new(unsigned long)"), frame("load"), frame("main"), frame("load")],
        stacks: vec![
            stack(1, &[0, 1, 2], site_stats(3, 300, 10)),
            stack(2, &[2], site_stats(1, 700, 5)),
            stack(3, &[0, 3, 2], site_stats(1, 400, 30)),
            stack(4, &[], site_stats(1, 700, 1)),
        ],
        ..Process::default()
    }
}

#[test]
fn stacks_with_the_same_telling_place_are_one_site() {
    let process = process();
    let digest = Digest::new(&process);
    let stacks: Vec<_> = digest.sites.iter().map(|site| (site.frame, site.stacks.clone())).collect();
    assert_eq!(stacks, [(Some(1), vec![0, 2]), (Some(2), vec![1]), (None, vec![3])]);
    let sum = digest.sites[0].stats;
    assert_eq!((sum.allocations, sum.allocated, sum.memory_at_peak, sum.active_memory), (4, 700, 700, 350));
    assert_eq!(sum.lifetime_ns, Lifetimes { min: 5, max: 60, mean: 15, ..Lifetimes::default() });
    assert_eq!(digest.sites[1].stats, process.stacks[1].stats);
    assert_eq!(digest.short_lived, 1);
}

#[test]
fn rankings_are_by_value_then_by_stack_id() {
    let process = process();
    let digest = Digest::new(&process);
    assert_eq!(digest.top_sites(Ranking::Peak, 9), [0, 1, 2]);
    assert_eq!(digest.top_sites(Ranking::Peak, 2), [0, 1]);
    assert_eq!(digest.top_sites(Ranking::Count, 1), [0]);
    assert_eq!(digest.top_sites(Ranking::Short, 9), [0], "what is at 0 is not listed");
    assert_eq!(digest.top_stacks(&digest.sites[0], Ranking::Allocated, 9), [2, 0]);
    assert_eq!(digest.top_stacks_of_all(Ranking::Allocated, 3), [1, 3, 2]);
}

#[test]
fn sums_saturate() {
    let huge = SiteStats { allocated: u64::MAX, allocations: 1, ..SiteStats::default() };
    assert_eq!(sum([huge, huge].iter()).allocated, u64::MAX);
}

#[test]
fn frames_that_are_not_there_are_no_panic() {
    let process = Process { stacks: vec![stack(1, &[5], site_stats(1, 1, 1))], ..Process::default() };
    assert_eq!(Digest::new(&process).sites[0].frame, None);
}

fn image(pid: u32, parent_pid: u32, end: End) -> Process {
    Process { pid, parent_pid, end, ..Process::default() }
}

#[test]
fn the_tree_follows_forks_and_execs() {
    let processes = [
        image(10, 1, End::Exec),
        image(11, 10, End::Exit),
        image(10, 1, End::Exit),
        image(12, 10, End::Exit),
        image(12, 12, End::Exit),
        image(99, 98, End::Exit),
    ];
    let lines: Vec<_> = tree(&processes).iter().map(|line| (line.process, line.depth)).collect();
    assert_eq!(lines, [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3), (5, 0)]);
}

#[test]
fn the_process_that_allocated_most_comes_first() {
    let with = |total_allocated| Process {
        stats: Stats { total_allocated, ..Stats::default() },
        ..Process::default()
    };
    assert_eq!(by_allocated(&[with(1), with(5), with(5), with(9)]), [3, 1, 2, 0]);
}

#[test]
fn ends_are_told_in_words() {
    let mut process = Process { end: End::Exit, exit_code: Some(3), ..Process::default() };
    assert_eq!((ended(&process).as_str(), ended_well(&process)), ("exited with 3", false));
    process = Process { end: End::Signal, signal: Some(9), ..Process::default() };
    assert_eq!((ended(&process).as_str(), ended_well(&process)), ("killed by SIGKILL (9)", false));
    for (signal, name) in [(31, "SIGSYS (31)"), (34, "signal 34"), (0, "signal 0"), (-1, "signal -1")] {
        assert_eq!(signal_name(signal), name);
    }
}

#[test]
fn an_incomplete_recording_says_why_and_since_when() {
    assert_eq!(incomplete(true, Some("x"), None, 0), None);
    assert_eq!(incomplete(false, None, None, 0).as_deref(), Some("events were lost"));
    assert_eq!(
        incomplete(false, Some("disk full"), Some(1_500_000_000), 1_000_000_000).as_deref(),
        Some("disk full; from 500 ms after the start on, events are missing (1970-01-01 00:00:01.500 UTC)")
    );
}

#[test]
fn a_thinned_timeline_keeps_its_ends_and_its_peak() {
    let point = |time| TimelinePoint {
        time,
        active_memory: if time == 777 { 9000 } else { time },
        ..TimelinePoint::default()
    };
    let points: Vec<_> = (0..2000).map(point).collect();
    let thin = thinned(&points, 100);
    assert!(thin.len() <= 101, "{}", thin.len());
    assert!(thin.contains(&point(777)) && thin[0] == point(0) && thin.last() == Some(&point(1999)));
    assert!(thin.is_sorted_by(|a, b| a.time < b.time));
    assert_eq!(thinned(&points, 2000), points);
}

#[test]
fn frames_without_a_name_are_told_by_their_place_in_the_module() {
    let mut process = crate::fixture::snapshot(7, 5).processes.remove(0);
    let module = process.modules[0].clone();
    let mut frame = process.frames[0].clone();
    (frame.module, frame.address) = (Some(module.path.clone()), module.start + 0x1c);
    let file = module.path.rsplit('/').next().unwrap();
    assert_eq!(unnamed(&process, &frame), format!("{file}+0x1c"));
    frame.address = module.end;
    assert_eq!(unnamed(&process, &frame), format!("{:#x}", module.end));
    process.modules.clear();
    frame.address = 0x40;
    assert_eq!(unnamed(&process, &frame), "0x40");
}
