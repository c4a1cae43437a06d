//! Looks for an order of one address's events in which starts and ends take turns.
//!
//! The events come from a few streams, each in its certain order. A depth-first search takes the next
//! event of one stream after the other, the earliest stamp first, so that the first order found is
//! close to that of the stamps. What is left of the streams says all about a state (whose turn it is
//! follows from how many events are placed), so states that led nowhere are not tried again.

use std::collections::HashSet;

use super::super::hash::MixState;

/// What matters of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its time.
    pub time: u64,
    /// Its stream.
    pub stream: u32,
    /// Whether it ends a block, or else starts one.
    pub is_end: bool,
    /// Whether it must have a place; the others may come later.
    pub due: bool,
}

/// Most events that are looked at; more of one address in so short a time are not to be told apart.
const MOST: usize = 96;
/// So many more events make a step cost one more.
const DEARER: usize = 16;
/// Most states that are tried.
const TRIES: u64 = 500;

/// The order of all events that are due, as indices into `turns`, which holds each stream's events in order. Begins
/// with a start. No event comes before one of another stream that is more than `window` older.
/// Takes what it tries from `budget`, and finds nothing where that is used up. A step costs the more, the more events there are.
pub fn arrange(turns: &[Turn], window: u64, budget: &mut u64) -> Option<Vec<usize>> {
    let cost = 1 + (turns.len() / DEARER) as u64;
    if turns.len() > MOST || *budget < cost || is_hopeless(turns) {
        return None;
    }
    let mut search = Search {
        turns,
        window,
        streams: by_stream(turns),
        placed: Vec::new(),
        order: Vec::with_capacity(turns.len()),
        dead: HashSet::default(),
        tries: TRIES.min(*budget / cost),
        due: turns.iter().filter(|turn| turn.due).count(),
    };
    search.placed = vec![0; search.streams.len()];
    let allowed = search.tries;
    let found = search.run();
    *budget -= (allowed - search.tries) * cost;
    found.then_some(search.order)
}

/// Where all events are due, there is a start for each end, and at most one more.
fn is_hopeless(turns: &[Turn]) -> bool {
    let ends = turns.iter().filter(|turn| turn.is_end).count();
    turns.iter().all(|turn| turn.due) && turns.len() != ends * 2 && turns.len() != ends * 2 + 1
}

/// Indices of each stream's events.
fn by_stream(turns: &[Turn]) -> Vec<Vec<usize>> {
    let mut streams: Vec<(u32, Vec<usize>)> = Vec::new();
    for (at, turn) in turns.iter().enumerate() {
        match streams.iter_mut().find(|(stream, _)| *stream == turn.stream) {
            Some((_, events)) => events.push(at),
            None => streams.push((turn.stream, vec![at])),
        }
    }
    streams.into_iter().map(|(_, events)| events).collect()
}

struct Search<'a> {
    turns: &'a [Turn],
    window: u64,
    streams: Vec<Vec<usize>>,
    /// How many events of each stream have their place.
    placed: Vec<u8>,
    order: Vec<usize>,
    dead: HashSet<Vec<u8>, MixState>,
    tries: u64,
    /// Events that are due and have no place yet.
    due: usize,
}

impl Search<'_> {
    fn run(&mut self) -> bool {
        if self.due == 0 {
            return true;
        }
        if self.tries == 0 || self.dead.contains(&self.placed) {
            return false;
        }
        self.tries -= 1;
        for (stream, event) in self.candidates() {
            self.placed[stream] += 1;
            self.order.push(event);
            self.due -= usize::from(self.turns[event].due);
            if self.run() {
                return true;
            }
            self.order.pop();
            self.due += usize::from(self.turns[event].due);
            self.placed[stream] -= 1;
        }
        self.dead.insert(self.placed.clone());
        false
    }

    /// (stream, event) of those who may be next, the earliest first.
    fn candidates(&self) -> Vec<(usize, usize)> {
        let heads = self.streams.iter().zip(&self.placed).enumerate();
        let heads =
            heads.filter_map(|(stream, (events, &placed))| Some((stream, *events.get(placed as usize)?)));
        let heads: Vec<_> = heads.collect();
        let earliest = heads.iter().map(|&(_, event)| self.turns[event].time).min().unwrap_or(0);
        let live = self.order.len() % 2 == 1;
        let mut fitting: Vec<_> = heads
            .into_iter()
            .filter(|&(_, event)| {
                let turn = self.turns[event];
                turn.is_end == live && turn.time <= earliest.saturating_add(self.window)
            })
            .collect();
        fitting.sort_by_key(|&(_, event)| (self.turns[event].time, event));
        fitting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrange(turns: &[Turn], window: u64) -> Option<Vec<usize>> {
        super::arrange(turns, window, &mut 10_000)
    }

    fn turns(events: &[(u64, u32, char)]) -> Vec<Turn> {
        let turn = |&(time, stream, what)| Turn { time, stream, is_end: what == 'E', due: true };
        events.iter().map(turn).collect()
    }

    #[test]
    fn keeps_an_order_that_works() {
        let events = turns(&[(1, 1, 'S'), (2, 1, 'E'), (3, 2, 'S'), (4, 1, 'E')]);
        assert_eq!(arrange(&events, 100), Some(vec![0, 1, 2, 3]));
        assert_eq!(arrange(&[], 100), Some(vec![]));
    }

    #[test]
    fn swaps_what_is_too_close() {
        let events = turns(&[(1, 1, 'S'), (2, 2, 'S'), (3, 1, 'E'), (4, 2, 'E')]);
        assert_eq!(arrange(&events, 100), Some(vec![0, 2, 1, 3]));
        assert_eq!(arrange(&events, 0), None, "not beyond the window");
    }

    #[test]
    fn takes_a_wrong_choice_back() {
        // Stream 1 allocates, 2 frees and allocates, 1 frees; but 1's free looks as if it came first.
        let events = turns(&[(1, 1, 'S'), (2, 1, 'E'), (3, 2, 'E'), (4, 2, 'S')]);
        assert_eq!(arrange(&events, 100), Some(vec![0, 2, 3, 1]));
    }

    #[test]
    fn what_is_not_due_may_be_left_out() {
        let mut events = turns(&[(1, 1, 'S'), (2, 2, 'S'), (3, 2, 'E'), (4, 1, 'S')]);
        assert_eq!(arrange(&events, 100), None);
        events[3].due = false;
        assert_eq!(arrange(&events, 100), Some(vec![1, 2, 0]));
    }

    #[test]
    fn finds_none_where_there_is_none() {
        assert_eq!(arrange(&turns(&[(1, 1, 'E')]), 100), None);
        assert_eq!(arrange(&turns(&[(1, 1, 'S'), (2, 1, 'S')]), 100), None);
        assert_eq!(arrange(&turns(&[(1, 1, 'S'), (2, 1, 'E'), (3, 2, 'E')]), 100), None);
    }

    #[test]
    fn hopeless_searches_end() {
        let mut events = Vec::new();
        for n in 0..12u64 {
            for stream in 0..8 {
                events.push((n * 8 + u64::from(stream), stream, if n % 2 == 0 { 'S' } else { 'E' }));
            }
        }
        assert!(arrange(&turns(&events), 10_000).is_some());
        events[0].2 = 'E';
        assert_eq!(arrange(&turns(&events), 10_000), None);
        let mut budget = 20;
        assert_eq!(super::arrange(&turns(&events[..94]), 10_000, &mut budget), None);
        assert_eq!(budget, 2, "three steps, each for six");
    }
}
