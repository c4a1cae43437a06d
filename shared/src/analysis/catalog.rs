//! The catalog: everything in a recording that is no start or end of a block, read in a pass of its own.
//!
//! A stack's nodes may stand in another thread's stream than the event that uses it, and behind it in
//! the file. So the nodes are read first; the header of a block says whether it has any, and most have none.

use super::cursor::{Failure, note_failure};
use super::event::is_special;
use super::modules::{Modules, read_module};
use super::names::Names;
use super::owners::Owners;
use super::source::{Block, EventSource};
use super::stacks::{NodeCollector, Stacks, is_node};
use super::threads::Threads;
use crate::record::{Records, kind, kind_of, operand};

/// What the records say besides events.
#[derive(Debug)]
pub struct Catalog {
    /// The stacks.
    pub stacks: Stacks,
    /// The mapped files.
    pub modules: Modules,
    /// The threads.
    pub threads: Threads,
    /// Which of them each stream belonged to, by stamps.
    pub owners: Owners,
    /// What blocks are called.
    pub names: Names,
    /// Blocks that could not be read.
    pub failures: Vec<Failure>,
}

impl Catalog {
    /// Reads all blocks of `source` that have more than events. `progress` hears how many words are done.
    pub fn read(source: &mut impl EventSource, mut progress: impl FnMut(u64)) -> Self {
        let owners = Owners::new(source.streams().iter().map(|stream| stream.thread));
        let mut collector = Collector { owners, ..Collector::default() };
        let mut done = 0;
        for at in 0..source.streams().len() {
            let stream = &source.streams()[at];
            if let Some(first) = stream.blocks.iter().find(|block| block.last_stamp != 0) {
                collector.threads.seen(stream.thread, first.first_stamp);
            }
            for n in 0..stream.blocks.len() {
                let block = source.streams()[at].blocks[n];
                if block.special {
                    collector.read(source, at, &block);
                    done += u64::from(block.words);
                    progress(done);
                }
            }
        }
        collector.finish()
    }
}

#[derive(Default)]
struct Collector {
    nodes: NodeCollector,
    modules: Vec<super::modules::Module>,
    gone: Vec<(u32, u64)>,
    threads: Threads,
    owners: Owners,
    names: Names,
    failures: Vec<Failure>,
}

impl Collector {
    fn read(&mut self, source: &mut impl EventSource, stream: usize, block: &Block) {
        let words = if block.skip == 0 { source.read_special(block.id) } else { source.read(block.id) };
        match words {
            Ok(words) => self.block(stream, words.get(block.skip as usize..).unwrap_or_default()),
            Err(why) => note_failure(&mut self.failures, block, why),
        }
    }

    fn block(&mut self, stream: usize, words: &[u64]) {
        for record in Records::new(words).filter(|record| is_special(record[0])) {
            match kind_of(record[0]) {
                _ if is_node(record[0]) => self.nodes.add(record),
                kind::NAME => self.names.read(record),
                kind::MODULE => self.modules.extend(read_module(record)),
                kind::MODULES_GONE => self.gone.push((operand(record[0]) as u32, record[2])),
                kind::THREAD_START => {
                    self.threads.started(record);
                    self.owners.started(stream, record);
                }
                kind::THREAD_END => self.threads.ended(record),
                _ => {}
            }
        }
    }

    fn finish(self) -> Catalog {
        Catalog {
            stacks: self.nodes.finish(),
            modules: Modules::new(self.modules, self.gone),
            threads: self.threads,
            owners: self.owners,
            names: self.names,
            failures: self.failures,
        }
    }
}
