//! Snapshots of stores with known lives.

use super::*;
use crate::store::Beginning;
use memscope_shared::model::Included;

fn store(lives: &[(u64, u64, usize)]) -> Store {
    clock::start();
    let store = Store::new();
    for (at, &(start, end, size)) in lives.iter().enumerate() {
        let address = Some(4096 + at * 64);
        let slot = store.begin(&Beginning { address, size, start, ..Beginning::default() });
        if end != 0 {
            slot.release(end);
        }
    }
    store
}

#[test]
fn sums_follow_the_order_of_time() {
    while clock::now() < 1_000 {}
    let store = store(&[(10, 40, 100), (20, 30, 50), (35, 0, 60), (40, 50, 7)]);
    let view = View::new(&store, Ending::Exit(Some(3)));
    let made = Made::of(&view);
    let process = &made.snapshot.processes[0];
    let stats = process.stats;
    assert_eq!((stats.total_allocations, stats.total_allocated), (4, 217));
    assert_eq!((stats.active_allocations, stats.active_memory), (1, 60));
    // At 40 the new block starts before the old one's end is counted.
    assert_eq!((stats.peak_memory, stats.peak_allocations), (167, 3));
    assert_eq!(stats.peak_time, clock::epoch(40));
    assert_eq!(
        (process.end, process.exit_code, process.allocations_included),
        (End::Exit, Some(3), Included::All)
    );
    let rows: Vec<AllocationInfo> = made.rows().collect();
    assert_eq!(rows.iter().map(|row| row.lifetime_ns).take(2).collect::<Vec<_>>(), [30, 10]);
    assert!(rows[2].is_leaked && rows[2].timestamp_dealloc == Some(process.end_time));
    assert_eq!(rows[2].lifetime_ns, view.end - 35);
    assert!(rows.iter().all(|row| row.stack_id == Some(process.stacks[0].id)));
}

#[test]
fn what_lives_has_its_lifetime_so_far() {
    while clock::now() < 1_000 {}
    let store = store(&[(10, 0, 100), (20, 30, 50)]);
    let view = View::new(&store, Ending::Running);
    let live: Vec<AllocationInfo> = view.rows().filter(|row| row.freed_by == FreedBy::Live).collect();
    assert_eq!(live.len(), 1);
    assert!(live[0].timestamp_dealloc.is_none() && !live[0].is_leaked && live[0].lifetime_ms.is_some());
    assert_eq!(live[0].lifetime_ns, view.end - 10);
}

#[test]
fn a_view_is_of_one_instant() {
    let later = clock::now() + 3_600_000_000_000;
    let store = store(&[(1, later, 1), (later, 0, 2)]);
    let view = View::new(&store, Ending::Exit(None));
    assert_eq!(view.len(), 1, "what begins later is not in it");
    assert!(view.lives[0].live, "what ends later lives");
    assert_eq!(view.stats().threads, 1);
}

#[test]
fn an_end_that_was_told_counts_wherever_it_lies() {
    let store = store(&[(1, 0, 1)]);
    let told = clock::now() + 3_600_000_000_000;
    assert!(store.find(4096).is_some_and(|slot| slot.end_at(told)));
    let view = View::new(&store, Ending::Running);
    assert_eq!((view.lives[0].live, view.end), (false, told));
}

#[test]
fn nothing_makes_a_snapshot_too() {
    let store = Store::new();
    let view = View::new(&store, Ending::Exit(None));
    let made = Made::of(&view);
    let process = &made.snapshot.processes[0];
    assert!(process.stacks.is_empty() && process.threads.is_empty() && process.complete);
    assert_eq!(process.timeline.iter().map(|point| point.active_memory).max(), Some(0));
}
