//! A tournament: which of many players has the smallest key, and what the runner-up's is.
//!
//! The players are the leaves of a complete binary tree whose inner nodes name the winner below
//! them. When the winner's key grows, the games on its way to the root are played again; the others
//! on that way are those who might win now, so the least of them is the runner-up. As long as the
//! winner stays below it, nothing has to be played at all.

/// The key of a player who is out of the game.
pub const OUT: u64 = u64::MAX;

/// Players with keys, the smallest wins.
#[derive(Debug, Default)]
pub struct Tournament {
    /// Of a tree with `n` leaves: node 1 is the root, the children of `i` are `2i` and `2i + 1`, the
    /// leaves are `n..2n`. Each node holds key and player of its winner.
    nodes: Vec<(u64, u32)>,
    leaves: usize,
    /// Players' numbers that are free for use.
    free: Vec<u32>,
}

impl Tournament {
    /// Without players.
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: vec![(OUT, 0); 2], leaves: 1, free: vec![0] }
    }

    /// Adds a player; returns its number, the smallest that is free or a new one.
    pub fn enter(&mut self, key: u64) -> u32 {
        if self.free.is_empty() {
            self.grow();
        }
        let player = self.free.pop().unwrap_or_default();
        self.set(player, key);
        player
    }

    /// Takes a player out; its number may be given out again.
    pub fn leave(&mut self, player: u32) {
        self.set(player, OUT);
        self.free.push(player);
    }

    /// Gives a player a new key.
    pub fn set(&mut self, player: u32, key: u64) {
        let mut at = self.leaves + player as usize;
        let mut winner = (key, player);
        self.nodes[at] = winner;
        while at > 1 {
            winner = winner.min(self.nodes[at ^ 1]);
            at /= 2;
            self.nodes[at] = winner;
        }
    }

    /// The smallest key and who has it; `None` if nobody is in the game.
    #[must_use]
    pub fn winner(&self) -> Option<(u64, u32)> {
        let winner = self.nodes[1];
        (winner.0 != OUT).then_some(winner)
    }

    /// The smallest key of all but the winner.
    #[must_use]
    pub fn runner_up(&self) -> u64 {
        let mut at = self.leaves + self.nodes[1].1 as usize;
        let mut best = OUT;
        while at > 1 {
            best = best.min(self.nodes[at ^ 1].0);
            at /= 2;
        }
        best
    }

    /// Twice as many leaves.
    fn grow(&mut self) {
        let old = std::mem::replace(&mut self.nodes, vec![(OUT, 0); self.leaves * 4]);
        let players = self.leaves;
        self.leaves *= 2;
        self.free.extend((players as u32..self.leaves as u32).rev());
        for (player, node) in self.nodes[self.leaves..].iter_mut().enumerate() {
            *node = (old.get(players + player).map_or(OUT, |leaf| leaf.0), player as u32);
        }
        for at in (1..self.leaves).rev() {
            self.nodes[at] = self.nodes[2 * at].min(self.nodes[2 * at + 1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rng;
    use super::*;

    #[test]
    fn empties_in_order() {
        let mut game = Tournament::new();
        assert_eq!(game.winner(), None);
        let keys = [5, 3, 9, 3, 7, 1, 8];
        let players: Vec<_> = keys.iter().map(|&key| game.enter(key)).collect();
        let mut distinct = players.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), keys.len());
        let mut seen = Vec::new();
        while let Some((key, player)) = game.winner() {
            seen.push(key);
            game.leave(player);
            assert!(game.winner().is_none_or(|(next, _)| next >= key));
        }
        assert_eq!(seen, [1, 3, 3, 5, 7, 8, 9]);
        assert!(game.enter(4) < 8, "numbers are used again");
    }

    #[test]
    fn runner_up_is_the_second_smallest() {
        let mut game = Tournament::new();
        let a = game.enter(10);
        assert_eq!(game.runner_up(), OUT);
        let b = game.enter(20);
        let c = game.enter(15);
        assert_eq!((game.winner(), game.runner_up()), (Some((10, a)), 15));
        game.set(a, 30);
        assert_eq!((game.winner(), game.runner_up()), (Some((15, c)), 20));
        game.set(c, 25);
        assert_eq!((game.winner(), game.runner_up()), (Some((20, b)), 25));
    }

    #[test]
    fn agrees_with_sorting() {
        let mut random = Rng::new(7);
        let mut game = Tournament::new();
        let mut keys: Vec<(u64, u32)> = Vec::new();
        for _ in 0..3_000 {
            match random.below(4) {
                0 | 1 => {
                    let key = random.below(1000);
                    let player = game.enter(key);
                    keys.push((key, player));
                }
                2 if !keys.is_empty() => {
                    let (_, player) = keys.swap_remove(random.below(keys.len() as u64) as usize);
                    game.leave(player);
                }
                _ if !keys.is_empty() => {
                    let at = random.below(keys.len() as u64) as usize;
                    keys[at].0 = random.below(1000);
                    game.set(keys[at].1, keys[at].0);
                }
                _ => {}
            }
            keys.sort_unstable();
            assert_eq!(game.winner().map(|w| w.0), keys.first().map(|k| k.0));
            if keys.len() > 1 {
                assert_eq!(game.runner_up(), keys[1].0);
            }
        }
    }
}
