//! Frames: the distinct addresses that stacks are made of, each with the module of its time.

use super::hash::Map;
use super::modules::Modules;
use super::stacks::{Node, Stacks};

/// A node that no site's stack leads through.
const UNUSED: u32 = u32::MAX;
/// A node in the recorder's own code: where libc allocates within a call that a hook of ours passes on.
const HIDDEN: u32 = u32::MAX - 1;
/// The file name of the recorder.
const RECORDER: &[u8] = b"libmemscope.so";
/// Where a stack does not lead to its root, what was mapped last is the best guess.
const LAST_GENERATION: u32 = u32::MAX - 1;

/// A place in the program's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The return address less one, or the exact pc of an interrupted frame.
    pub address: u64,
    /// Index of the module that it belongs to.
    pub module: Option<u32>,
}

/// A stack, resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Indices of its frames, the caller of the allocation function first.
    pub frames: Vec<u32>,
    /// Outer frames are missing.
    pub truncated: bool,
    /// A frame was found by a frame pointer.
    pub guessed: bool,
}

/// The frames of all stacks that are used.
#[derive(Debug, Default)]
pub struct Frames {
    list: Vec<Frame>,
    /// Of each node, its frame.
    of_node: Vec<u32>,
}

impl Frames {
    /// Those of the stacks with these leaves.
    #[must_use]
    pub fn new(stacks: &Stacks, modules: &mut Modules, leaves: impl Iterator<Item = u32>) -> Self {
        let mut frames = Self { list: Vec::new(), of_node: vec![UNUSED; stacks.len()] };
        let mut known = Map::default();
        let mut nodes = Vec::new();
        for leaf in leaves {
            nodes.clear();
            nodes.extend(stacks.walk(leaf));
            let generation = match nodes.last() {
                Some((_, Node::Root(generation))) => *generation,
                _ => LAST_GENERATION,
            };
            for &(at, node) in &nodes {
                if let (Node::Frame { pc, exact, .. }, UNUSED) = (node, frames.of_node[at as usize]) {
                    let address = if exact { pc } else { pc.wrapping_sub(1) };
                    let frame = Frame { address, module: modules.find(generation, address) };
                    let hidden = frame.module.is_some_and(|module| is_recorder(modules, module));
                    let number = if hidden { HIDDEN } else { frames.number(frame, &mut known) };
                    frames.of_node[at as usize] = number;
                }
            }
        }
        frames
    }

    fn number(&mut self, frame: Frame, known: &mut Map<(u64, u64), u32>) -> u32 {
        let module = frame.module.map_or(0, |module| u64::from(module) + 1);
        *known.entry((frame.address, module)).or_insert_with(|| {
            self.list.push(frame);
            self.list.len() as u32 - 1
        })
    }

    /// Each distinct frame once.
    #[must_use]
    pub fn list(&self) -> &[Frame] {
        &self.list
    }

    /// The stack with this leaf.
    #[must_use]
    pub fn trace(&self, stacks: &Stacks, leaf: u32) -> Trace {
        let mut trace = Trace { truncated: true, ..Trace::default() };
        for (at, node) in stacks.walk(leaf) {
            match node {
                Node::Frame { .. } if self.of_node[at as usize] == HIDDEN => {}
                Node::Frame { guessed, .. } => {
                    trace.frames.push(self.of_node[at as usize]);
                    trace.guessed |= guessed;
                }
                // The root says that nothing is missing, unless it comes after one that says otherwise.
                Node::Truncated => return trace,
                Node::Root(_) => trace.truncated = false,
            }
        }
        trace
    }
}

fn is_recorder(modules: &Modules, module: u32) -> bool {
    let path = modules.list().get(module as usize).map_or(&[][..], |module| &module.path);
    path.rsplit(|&byte| byte == b'/').next() == Some(RECORDER)
}

#[cfg(test)]
mod tests {
    use super::super::modules::Module;
    use super::super::stacks::NodeCollector;
    use super::super::testing::Words;
    use super::*;
    use crate::record::{Records, kind};

    #[test]
    fn frames_know_their_module_and_are_listed_once() {
        let words = Words::new()
            .node(kind::NODE_ROOT, 0, 1, 0)
            .node(kind::NODE_ROOT, 1, 2, 0)
            .node(kind::NODE, 0x1010, 3, 1)
            .node(kind::NODE, 0x2010, 4, 3)
            .node(kind::NODE, 0x1010, 5, 2)
            .node(kind::NODE_EXACT, 0x2010, 6, 5)
            .node(kind::NODE_TRUNCATED, 0, 7, 1)
            .node(kind::NODE_GUESSED, 0x9990, 8, 7)
            .node(kind::NODE, 0x1010, 9, 55)
            .node(kind::NODE, 0x3010, 10, 3)
            .node(kind::NODE, 0x2010, 11, 10);
        let mut nodes = NodeCollector::default();
        Records::new(&words.0).for_each(|record| nodes.add(record));
        let stacks = nodes.finish();
        let module = |start, joined, gone| Module {
            path: Vec::new(),
            build_id: vec![joined as u8],
            start,
            end: start + 0x800,
            bias: 0,
            joined,
            gone,
        };
        let recorder = Module { path: b"/x/libmemscope.so".to_vec(), ..module(0x3000, 0, u32::MAX) };
        let list = vec![
            module(0x1000, 0, u32::MAX),
            module(0x2000, 0, u32::MAX),
            module(0x2000, 1, u32::MAX),
            recorder,
        ];
        let mut modules = Modules::new(list, vec![(1, 0x2000)]);
        let leaf = |id| stacks.leaf(id).unwrap();
        let frames = Frames::new(&stacks, &mut modules, [4, 6, 8, 9, 11].into_iter().map(leaf));
        let trace = |id| frames.trace(&stacks, leaf(id));
        let place = |at: u32| (frames.list()[at as usize].address, frames.list()[at as usize].module);
        let places = |id| trace(id).frames.into_iter().map(place).collect::<Vec<_>>();
        assert_eq!(places(4), [(0x200f, Some(1)), (0x100f, Some(0))]);
        assert_eq!(places(6), [(0x2010, Some(3)), (0x100f, Some(0))]);
        assert_eq!(places(8), [(0x998f, None)]);
        assert_eq!(places(9), [(0x100f, Some(0))]);
        assert_eq!(places(11), places(4), "the recorder's own frame is passed over");
        assert_eq!(frames.list().len(), 4, "0x100f is the same frame in both generations");
        let flags = |id| (trace(id).truncated, trace(id).guessed);
        assert_eq!([4, 6, 8, 9].map(flags), [(false, false), (false, false), (true, true), (true, false)]);
    }
}
