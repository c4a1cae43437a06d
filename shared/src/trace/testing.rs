//! Random records for tests.

use crate::record::{MAX_WORDS, Module, Name, head, kind, thread_operand};

/// A small generator of numbers (splitmix64): the same seed gives the same run.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// A number with a random number of bits.
    pub fn any(&mut self) -> u64 {
        let bits = self.below(64) as u32;
        self.next() >> bits
    }
}

/// Makes records like those of a program: sizes, stacks and addresses that come again.
#[derive(Clone, Debug)]
pub struct Program {
    pub rng: Rng,
    stamp: u64,
    live: Vec<(u64, u64)>,
    freed: Vec<(u64, u64)>,
    top: u64,
    node: u32,
    /// One record in this many is wild: any kind, any bits.
    wild: u64,
}

impl Program {
    pub fn new(seed: u64, wild: u64) -> Self {
        let rng = Rng(seed);
        Self {
            rng,
            stamp: 1 << 50,
            live: Vec::new(),
            freed: Vec::new(),
            top: 0x5555_0000_1000,
            node: 0,
            wild,
        }
    }

    /// At least `words` words of whole records.
    pub fn words(&mut self, words: usize) -> Vec<u64> {
        let mut out = Vec::new();
        while out.len() < words {
            self.record(&mut out);
        }
        out
    }

    pub fn record(&mut self, out: &mut Vec<u64>) {
        self.stamp += self.rng.below(64) * 26;
        if self.wild > 0 && self.rng.chance(self.wild) {
            return self.wild_record(out);
        }
        match self.rng.below(20) {
            0..=8 => self.alloc(kind::ALLOC, kind::ALLOC_LARGE, out),
            9..=16 => self.free(kind::FREE, out),
            17 => self.realloc(out),
            18 => self.node(out),
            _ => self.rare(out),
        }
    }

    fn alloc(&mut self, small: u8, large: u8, out: &mut Vec<u64>) {
        let size = if self.rng.chance(200) { self.rng.any() } else { self.rng.below(40) * 8 };
        let stack = self.rng.below(u64::from(self.node) + 1) << 32;
        let class = size.saturating_add(15) / 16;
        let again = self.freed.iter().rposition(|&(_, c)| c == class).filter(|_| !self.rng.chance(8));
        let address = match again {
            Some(i) => self.freed.swap_remove(i).0,
            None => {
                self.top += class.min(1 << 20) * 16 + 16;
                self.top
            }
        };
        self.live.push((address, class));
        if size < 1 << 32 {
            out.extend([head(small, address), self.stamp, stack | size]);
        } else {
            out.extend([head(large, address), self.stamp, stack, size]);
        }
    }

    fn free(&mut self, kind: u8, out: &mut Vec<u64>) {
        let recent = self.live.len().saturating_sub(1 + self.rng.below(20) as usize);
        let (address, class) = if self.live.is_empty() || self.rng.chance(50) {
            (self.rng.next(), 0)
        } else {
            self.live.swap_remove(recent)
        };
        self.freed.push((address, class));
        self.freed.truncate(500);
        out.extend([head(kind, address), self.stamp]);
    }

    fn realloc(&mut self, out: &mut Vec<u64>) {
        self.free(kind::REALLOC_BEGIN, out);
        let begin = self.stamp;
        match self.rng.below(4) {
            0 => out.extend([head(kind::REALLOC_FREED, self.rng.next()), begin]),
            1 => out.extend([head(kind::REALLOC_FAILED, self.rng.next()), self.stamp + 5]),
            _ => self.alloc(kind::REALLOC_MOVED, kind::REALLOC_MOVED_LARGE, out),
        }
    }

    fn node(&mut self, out: &mut Vec<u64>) {
        self.node += 1;
        let parent = self.node - 1 - self.rng.below(3).min(u64::from(self.node) - 1) as u32;
        let kinds =
            [kind::NODE, kind::NODE, kind::NODE, kind::NODE_EXACT, kind::NODE_GUESSED, kind::NODE_TRUNCATED];
        let kind = kinds[self.rng.below(6) as usize];
        let pc = 0x7f00_0000_0000 + self.rng.below(1000) * 5;
        out.extend([head(kind, pc), u64::from(self.node) << 32 | u64::from(parent)]);
    }

    fn rare(&mut self, out: &mut Vec<u64>) {
        let thread = thread_operand(3, 1234);
        match self.rng.below(8) {
            0 => out.extend([head(kind::THREAD_START, thread), self.stamp, 0x6e69_616d, 0]),
            1 => out.extend([head(kind::THREAD_END, thread), self.stamp, 0x6e69_616d, 0]),
            2 => out.extend([head(kind::MODULES_GONE, 4), self.stamp, self.top]),
            3 => out.extend([head(kind::NODE_ROOT, 4), 77 << 32]),
            4 => out.extend([head(kind::FAILED, 0), self.stamp]),
            5 => out.extend([head(kind::NAMED, self.top), self.stamp, self.rng.below(1 << 20) << 32 | 3]),
            6 => {
                let (name, type_name) = (vec![b'n'; self.rng.below(40) as usize], b"Vec<u8>");
                let name = Name { id: 3, name: &name, type_name, scope: b"app::main" };
                let start = out.len();
                out.resize(start + name.words(), 0);
                name.encode(|i, word| out[start + i] = word);
            }
            _ => {
                let path = vec![b'x'; self.rng.below(90) as usize];
                let build_id = vec![7; self.rng.below(21) as usize];
                let module =
                    Module { generation: 1, start: 1, end: 2, bias: 3, build_id: &build_id, path: &path };
                let start = out.len();
                out.resize(start + module.words(), 0);
                module.encode(|i, word| out[start + i] = word);
            }
        }
    }

    /// Any kind with any bits, as long as its length can be told.
    fn wild_record(&mut self, out: &mut Vec<u64>) {
        let kind = loop {
            let kind = self.rng.next() as u8;
            if kind & 7 >= 2 {
                break kind;
            }
        };
        out.push(u64::from(kind) << 56 | self.rng.any() >> 8);
        let length = match kind & 7 {
            7 => 2 + self.rng.below(MAX_WORDS as u64 - 2),
            n => u64::from(n),
        };
        let second = self.rng.any();
        out.push(if kind & 7 == 7 { second << 16 | length } else { second });
        for _ in 2..length {
            out.push(self.rng.any());
        }
    }
}
