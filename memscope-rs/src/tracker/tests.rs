//! Tracking by hand.

use super::*;

#[test]
fn a_deallocation_moves_a_block_into_the_history() {
    let tracker = MemoryTracker::new();
    tracker.track_allocation(0x1000, 10).unwrap();
    tracker.track_allocation(0x2000, 20).unwrap();
    tracker.track_deallocation_with_lifetime(0x1000, 1234).unwrap();
    let (live, ended) = (tracker.get_active_allocations(), tracker.get_allocation_history());
    assert_eq!((live.len(), live[0].ptr, ended.len(), ended[0].ptr), (1, 0x2000, 1, 0x1000));
    assert_eq!((ended[0].lifetime_ms, ended[0].lifetime_ns), (Some(1234), 1_234_000_000));
    assert_eq!(ended[0].dealloc_thread_id, Some(ended[0].thread_id));
    let stats = tracker.get_stats();
    assert_eq!((stats.total_allocations, stats.total_allocated), (2, 30));
    assert_eq!((stats.total_deallocations, stats.total_deallocated), (1, 10));
    assert_eq!((stats.active_allocations, stats.active_memory), (1, 20));
    assert_eq!((stats.peak_allocations, stats.peak_memory), (2, 30));
}

#[test]
fn the_measured_time_is_kept_where_it_agrees() {
    let tracker = MemoryTracker::new();
    tracker.track_allocation(0x1000, 10).unwrap();
    let start = std::time::Instant::now();
    std::thread::sleep(std::time::Duration::from_millis(3));
    let lifetime = start.elapsed().as_millis() as u64;
    tracker.track_deallocation_with_lifetime(0x1000, lifetime).unwrap();
    let ended = &tracker.get_allocation_history()[0];
    assert_eq!(ended.lifetime_ms, Some(lifetime));
    assert_eq!(ended.timestamp_dealloc, Some(ended.timestamp_alloc + ended.lifetime_ns));
}

#[test]
fn an_address_that_comes_again_ends_what_was_there() {
    let tracker = MemoryTracker::new();
    tracker.track_allocation(0x1000, 10).unwrap();
    tracker.track_allocation(0x1000, 20).unwrap();
    assert_eq!(tracker.get_active_allocations()[0].size, 20);
    assert_eq!(tracker.get_allocation_history()[0].size, 10);
    tracker.track_deallocation(0x1000).unwrap();
    let unknown = tracker.track_deallocation_with_lifetime(0x1000, 1);
    assert!(matches!(unknown, Err(TrackingError::UnknownAddress(0x1000))));
}

#[test]
fn nothing_is_skipped_when_threads_meet() {
    let tracker = MemoryTracker::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 1..2_000 {
                    // All threads use the same addresses.
                    tracker.track_allocation(n * 16, 1).unwrap();
                    let _another_thread_may_have_ended_it = tracker.track_deallocation(n * 16);
                }
            });
        }
    });
    let stats = tracker.get_stats();
    assert_eq!((stats.total_allocations, stats.lost_events), (8 * 1_999, 0));
    assert_eq!(stats.total_deallocations + stats.active_allocations, stats.total_allocations);
    let history = tracker.get_allocation_history();
    assert_eq!(history.len() as u64, stats.total_deallocations);
    assert!(history.iter().all(|block| block.lifetime_ms.is_some()));
}
