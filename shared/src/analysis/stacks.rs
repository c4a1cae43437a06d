//! Stacks: the tree of their nodes.
//!
//! A stack is named by its leaf; each node knows its parent, up to the root of a generation. Threads
//! that find the same frame at once record it under two ids, so nodes with the same (parent, record)
//! are joined from the roots down, before any event is looked at: a site is a stack, not an id.

use hashbrown::HashTable;

use super::hash::{Key, Map};
use crate::record::{kind, kind_of, operand};

/// A parent that is not there.
const NONE: u32 = u32::MAX;

/// Collects node records.
#[derive(Debug, Default)]
pub struct NodeCollector {
    /// Id, parent's id, word 0 of the record.
    nodes: Vec<(u32, u32, u64)>,
}

impl NodeCollector {
    /// Takes a record of any of the `NODE` kinds.
    pub fn add(&mut self, record: &[u64]) {
        let (id, parent) = ((record[1] >> 32) as u32, record[1] as u32);
        if id != 0 {
            self.nodes.push((id, parent, record[0]));
        }
    }

    /// Joins nodes that mean the same.
    #[must_use]
    pub fn finish(mut self) -> Stacks {
        // Ids are given out one by one, so they are nearly always dense.
        let most = self.nodes.iter().map(|node| node.0).max().unwrap_or(0) as usize;
        let ids = if most <= self.nodes.len() * 4 + 1024 { Ids::Dense(most) } else { self.make_dense() };
        let length = match &ids {
            Ids::Dense(most) => most + 1,
            Ids::Map(map) => map.len() + 1,
        };
        let (mut heads, mut parents) = (vec![0; length], vec![NONE; length]);
        for &(id, parent, word0) in &self.nodes {
            let at = ids.index(id) as usize;
            if heads[at] == 0 {
                heads[at] = word0;
                parents[at] = if kind_of(word0) == kind::NODE_ROOT { NONE } else { ids.index(parent) };
            }
        }
        drop(self);
        let joined = join(&heads, &parents);
        for parent in &mut parents {
            if let Some(&canonical) = joined.get(*parent as usize) {
                *parent = canonical;
            }
        }
        Stacks { ids, heads, parents, joined }
    }

    /// Numbers for ids that are far apart.
    fn make_dense(&mut self) -> Ids {
        let mut map = Map::default();
        for node in &self.nodes {
            let next = map.len() as u32 + 1;
            map.entry(node.0).or_insert(next);
        }
        Ids::Map(map)
    }
}

/// From ids to indices; 0 is no node.
#[derive(Debug)]
enum Ids {
    /// They are the indices, up to this one.
    Dense(usize),
    Map(Map<u32, u32>),
}

impl Ids {
    #[inline]
    fn index(&self, id: u32) -> u32 {
        match self {
            Self::Dense(most) if id as usize <= *most && id != 0 => id,
            Self::Dense(_) => NONE,
            Self::Map(map) => map.get(&id).copied().unwrap_or(NONE),
        }
    }
}

/// For each node the first one with the same meaning.
fn join(heads: &[u64], parents: &[u32]) -> Vec<u32> {
    const OPEN: u32 = NONE - 1;
    let mut joined = vec![NONE; heads.len()];
    let mut known: HashTable<u32> = HashTable::with_capacity(heads.len());
    let hash_key = Key::default();
    let mut way = Vec::new();
    for start in 1..heads.len() as u32 {
        // Up to a node that is settled, then down again. A circle, which no recorder makes, is cut.
        let mut at = start;
        while let Some(slot) = joined.get_mut(at as usize).filter(|slot| **slot == NONE) {
            if heads[at as usize] == 0 {
                break;
            }
            *slot = OPEN;
            way.push(at);
            at = parents[at as usize];
        }
        let mut parent = joined.get(at as usize).copied().filter(|&p| p < OPEN).unwrap_or(NONE);
        while let Some(node) = way.pop() {
            let word0 = heads[node as usize];
            let key = |n: u32| {
                let above = joined.get(parents[n as usize] as usize).copied().unwrap_or(NONE);
                (if above == OPEN { NONE } else { above }, heads[n as usize])
            };
            let hash = |parent: u32, word0: u64| hash_key.pair(word0, u64::from(parent));
            let same = |&other: &u32| key(other) == (parent, word0);
            parent = match known.find(hash(parent, word0), same) {
                Some(&other) => other,
                None => {
                    known.insert_unique(hash(parent, word0), node, |&n| {
                        let (parent, word0) = key(n);
                        hash(parent, word0)
                    });
                    node
                }
            };
            joined[node as usize] = parent;
        }
    }
    joined
}

/// What one node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A frame.
    Frame {
        /// Its program counter as recorded: a return address, unless `exact`.
        pc: u64,
        /// It was interrupted there: `pc` is the instruction itself.
        exact: bool,
        /// It was found by a frame pointer.
        guessed: bool,
    },
    /// Frames are missing from here on.
    Truncated,
    /// The root of this generation.
    Root(u32),
}

/// All stacks.
#[derive(Debug)]
pub struct Stacks {
    ids: Ids,
    /// Word 0 of each node's record; 0 where there is none.
    heads: Vec<u64>,
    /// The parents, joined.
    parents: Vec<u32>,
    joined: Vec<u32>,
}

impl Stacks {
    /// Number of node slots: every leaf is below it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.len() <= 1
    }

    /// The node of a recorded id, the same for all ids that mean the same stack; `None` where the id
    /// is 0 or its node was lost.
    #[inline]
    #[must_use]
    pub fn leaf(&self, id: u32) -> Option<u32> {
        self.joined.get(self.ids.index(id) as usize).copied().filter(|&leaf| leaf != NONE)
    }

    /// The nodes from `leaf` to the root, with their indices.
    pub fn walk(&self, leaf: u32) -> impl Iterator<Item = (u32, Node)> + '_ {
        let mut next = leaf;
        // No way is longer than there are nodes, unless it is a circle.
        let mut left = self.heads.len();
        std::iter::from_fn(move || {
            let at = next;
            let node = self.node(at)?;
            left = left.checked_sub(1)?;
            next = self.parents[at as usize];
            Some((at, node))
        })
    }

    /// What node `at` is.
    #[must_use]
    pub fn node(&self, at: u32) -> Option<Node> {
        let word0 = *self.heads.get(at as usize)?;
        let frame = |exact, guessed| Node::Frame { pc: operand(word0), exact, guessed };
        match kind_of(word0) {
            kind::NODE => Some(frame(false, false)),
            kind::NODE_EXACT => Some(frame(true, false)),
            kind::NODE_GUESSED => Some(frame(false, true)),
            kind::NODE_TRUNCATED => Some(Node::Truncated),
            kind::NODE_ROOT => Some(Node::Root(operand(word0) as u32)),
            _ => None,
        }
    }
}

/// Whether a record is one of a node.
#[must_use]
pub const fn is_node(word0: u64) -> bool {
    matches!(
        kind_of(word0),
        kind::NODE | kind::NODE_EXACT | kind::NODE_GUESSED | kind::NODE_TRUNCATED | kind::NODE_ROOT
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::Words;
    use super::*;
    use crate::record::Records;

    fn stacks(words: &Words) -> Stacks {
        let mut nodes = NodeCollector::default();
        for record in Records::new(&words.0) {
            assert!(is_node(record[0]));
            nodes.add(record);
        }
        nodes.finish()
    }

    fn pcs(stacks: &Stacks, id: u32) -> Vec<u64> {
        let frames = stacks.walk(stacks.leaf(id).unwrap());
        frames
            .filter_map(|(_, node)| if let Node::Frame { pc, .. } = node { Some(pc) } else { None })
            .collect()
    }

    #[test]
    fn walks_to_the_root() {
        let words = Words::new()
            .node(kind::NODE_ROOT, 3, 1, 0)
            .node(kind::NODE, 0x100, 2, 1)
            .node(kind::NODE_EXACT, 0x200, 3, 2)
            .node(kind::NODE_GUESSED, 0x300, 4, 3);
        let stacks = stacks(&words);
        let nodes: Vec<_> = stacks.walk(stacks.leaf(4).unwrap()).map(|(_, node)| node).collect();
        let frame = |pc, exact, guessed| Node::Frame { pc, exact, guessed };
        assert_eq!(
            nodes,
            [frame(0x300, false, true), frame(0x200, true, false), frame(0x100, false, false), Node::Root(3)]
        );
        assert_eq!(stacks.leaf(0), None);
        assert_eq!(stacks.leaf(5), None);
        assert_eq!(stacks.leaf(u32::MAX), None);
    }

    #[test]
    fn joins_what_two_threads_found_at_once() {
        // 2 and 3 are the same frame; 5 hangs below 3 and 4 below 2. A child may stand before its parent.
        let words = Words::new()
            .node(kind::NODE, 0x200, 5, 3)
            .node(kind::NODE_ROOT, 0, 1, 0)
            .node(kind::NODE, 0x100, 2, 1)
            .node(kind::NODE, 0x100, 3, 1)
            .node(kind::NODE, 0x200, 4, 2)
            .node(kind::NODE_EXACT, 0x200, 6, 2)
            .node(kind::NODE, 0x200, 7, 1);
        let stacks = stacks(&words);
        assert_eq!(stacks.leaf(4), stacks.leaf(5));
        assert_eq!(stacks.leaf(2), stacks.leaf(3));
        assert_eq!(pcs(&stacks, 5), [0x200, 0x100]);
        assert_ne!(stacks.leaf(6), stacks.leaf(4), "an interrupted frame is another one");
        assert_ne!(stacks.leaf(7), stacks.leaf(4), "another parent is another stack");
    }

    #[test]
    fn generations_are_kept_apart_and_their_roots_joined() {
        let words = Words::new()
            .node(kind::NODE_ROOT, 1, 1, 0)
            .node(kind::NODE_ROOT, 2, 2, 0)
            .node(kind::NODE_ROOT, 2, 3, 0)
            .node(kind::NODE, 0x100, 4, 1)
            .node(kind::NODE, 0x100, 5, 2)
            .node(kind::NODE, 0x100, 6, 3);
        let stacks = stacks(&words);
        assert_ne!(stacks.leaf(4), stacks.leaf(5));
        assert_eq!(stacks.leaf(5), stacks.leaf(6));
    }

    #[test]
    fn lost_nodes_cut_the_stack() {
        let words = Words::new().node(kind::NODE, 0x100, 5, 4).node(kind::NODE, 0x100, 9, 8);
        let stacks = stacks(&words);
        assert_eq!(pcs(&stacks, 5), [0x100]);
        assert_eq!(stacks.leaf(5), stacks.leaf(9), "nothing tells them apart");
        assert_eq!(stacks.leaf(4), None);
    }

    #[test]
    fn circles_and_wild_ids_end() {
        let words = Words::new()
            .node(kind::NODE, 0x100, 2, 3)
            .node(kind::NODE, 0x200, 3, 2)
            .node(kind::NODE, 0x300, 4, 4)
            .node(kind::NODE, 0x400, u32::MAX, u32::MAX - 1)
            .node(kind::NODE, 0x500, u32::MAX - 1, 3);
        let stacks = stacks(&words);
        assert!(stacks.len() < 100, "memory follows what is there, not the ids");
        for id in [2, 3, 4, u32::MAX, u32::MAX - 1] {
            assert!(stacks.walk(stacks.leaf(id).unwrap()).count() <= stacks.len());
        }
        assert_eq!(pcs(&stacks, u32::MAX)[..2], [0x400, 0x500]);
    }
}
