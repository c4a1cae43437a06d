//! Records: what a program's thread writes into its buffer, in 64-bit words.
//!
//! ```text
//! word 0   63      56 55                                   0
//!         +----------+--------------------------------------+
//!         |   kind   |  operand: an address, pc, number ... |
//!         +----------+--------------------------------------+
//!            kind = class << 3 | length code
//! ```
//!
//! The length code is the number of words (2 to 6), or 7: then the low 16 bits of word 1 hold it. So
//! a reader steps over a record of a kind that it doesn't know.
//!
//! | kind | words | w0 operand | w1 | w2 | w3 |
//! |---|---|---|---|---|---|
//! | `FREE`            | 2 | address | stamp | | |
//! | `ALLOC`           | 3 | address | stamp | stack << 32 \| size (below 2^32) | |
//! | `ALLOC_LARGE`     | 4 | address | stamp | stack << 32 | size |
//! | `REALLOC_BEGIN`   | 2 | old address | stamp before the call | | |
//! | `REALLOC_MOVED`   | 3 | new address | stamp after the call | as `ALLOC` | |
//! | `REALLOC_MOVED_LARGE` | 4 | new address | stamp after the call | as `ALLOC_LARGE` | size |
//! | `REALLOC_FREED`   | 2 | old address | stamp of the `REALLOC_BEGIN` | | |
//! | `REALLOC_FAILED`  | 2 | old address | stamp after the call | | |
//! | `FAILED`          | 2 | 0 | stamp | | |
//! | `NODE`            | 2 | pc | id << 32 \| parent | | |
//! | `NODE_EXACT`      | 2 | pc (of an interrupted frame: not a return address) | as `NODE` | | |
//! | `NODE_GUESSED`    | 2 | pc (found by a frame pointer, without CFI) | as `NODE` | | |
//! | `NODE_TRUNCATED`  | 2 | 0 | as `NODE` | | |
//! | `NODE_ROOT`       | 2 | generation | id << 32 | | |
//! | `THREAD_START`    | 4 | thread number << 32 \| tid | stamp | name, 16 bytes, zero-padded | |
//! | `THREAD_END`      | 4 | thread number << 32 \| tid | stamp | name, 16 bytes, zero-padded | |
//! | `MODULE`          | n | generation | length in words (16 bits) | see [`Module`] | |
//! | `MODULES_GONE`    | 3 | new generation | stamp | start of the one module that went | |
//! | `NAME`            | n | name id | lengths | see [`Name`] | |
//! | `NAMED`           | 3 | address | stamp | reach << 32 \| name id | |
//!
//! A *stamp* is the raw reading of the recording's clock (see `Clock` frames of the trace). The
//! records of one stream are in the order in which its thread made them, and stamps never fall.
//!
//! **Threads.** `THREAD_START` says which thread the records after it belong to: a stream begins with one, and a
//! thread that comes after another one has gone may continue that one's stream. A thread has a second
//! stream when a signal handler interrupted one of its hooks; that begins with a `THREAD_START` of the same number.
//!
//! **Realloc.** `REALLOC_BEGIN` ends the old block *before* the call and exactly one of
//! `REALLOC_MOVED*`, `REALLOC_FREED` or `REALLOC_FAILED` follows in the same stream: in between
//! another thread may already own the old address. Without a follower the process ended inside of
//! the call, and the old block counts as live.
//!
//! **Names.** `NAMED` says what variable owns a block: the one that lives at the address, or, where the reach is not 0, the one
//! that the address lies in and that begins at most the reach (in units of [`NAMED_UNIT`] bytes) before it. A `realloc` hands the
//! name on. Name 0 says that the variable is gone: the block keeps its name, but hands it on no more. A name is recorded (`NAME`),
//! possibly in another thread's stream, before its id is used anywhere; several ids may stand for the same texts.
//!
//! **Stacks.** A stack is named by the id of its leaf node; 0 is "no stack". Walking the parents from
//! the leaf leads to the outermost frame and then to a `NODE_ROOT`. A `NODE_TRUNCATED` below the root
//! says that the walk could not reach the outermost frame. The same (parent, pc) may get two ids when
//! two threads find it at once: a reader joins them. A node is recorded, possibly in another
//! thread's stream, before its id is used anywhere.
//!
//! **Generations.** Addresses mean what the modules of the node's generation say. A module joins the
//! current generation when it is first seen; when one is unloaded a new generation begins, without it.

/// Number of words of the longest record: a module with a path of 4,096 bytes.
pub const MAX_WORDS: usize = 600;

/// The bits of word 0 that hold the operand.
pub const OPERAND_BITS: u32 = 56;
/// Mask of the operand in word 0.
pub const OPERAND_MASK: u64 = (1 << OPERAND_BITS) - 1;

/// Kinds of records, as they stand in the top byte of word 0.
pub mod kind {
    const fn class(class: u8, words: u8) -> u8 {
        class << 3 | words
    }
    /// A block's end by `free` or a kin of it.
    pub const FREE: u8 = class(1, 2);
    /// A block's start, size below 2^32.
    pub const ALLOC: u8 = class(1, 3);
    /// A block's start, any size.
    pub const ALLOC_LARGE: u8 = class(1, 4);
    /// A `realloc` of this block begins.
    pub const REALLOC_BEGIN: u8 = class(2, 2);
    /// The block that a `realloc` returned.
    pub const REALLOC_MOVED: u8 = class(2, 3);
    /// The same, any size.
    pub const REALLOC_MOVED_LARGE: u8 = class(2, 4);
    /// `realloc(p, 0)` freed the block and returned null.
    pub const REALLOC_FREED: u8 = class(3, 2);
    /// The `realloc` failed: the old block lives on.
    pub const REALLOC_FAILED: u8 = class(4, 2);
    /// An allocation failed.
    pub const FAILED: u8 = class(5, 2);
    /// A stack node whose pc is a return address.
    pub const NODE: u8 = class(6, 2);
    /// A stack node whose pc is that of an interrupted instruction.
    pub const NODE_EXACT: u8 = class(7, 2);
    /// A stack node that a frame pointer led to.
    pub const NODE_GUESSED: u8 = class(8, 2);
    /// The marker that outer frames are missing.
    pub const NODE_TRUNCATED: u8 = class(9, 2);
    /// The root of a generation's stacks.
    pub const NODE_ROOT: u8 = class(10, 2);
    /// The records that follow in this stream belong to this thread.
    pub const THREAD_START: u8 = class(11, 4);
    /// The thread is about to end.
    pub const THREAD_END: u8 = class(12, 4);
    /// A module was first seen.
    pub const MODULE: u8 = class(13, 7);
    /// A module was unloaded.
    pub const MODULES_GONE: u8 = class(14, 3);
    /// What a variable is called.
    pub const NAME: u8 = class(15, 7);
    /// A live block belongs to a variable.
    pub const NAMED: u8 = class(16, 3);
}

/// Word 0 of a record.
#[inline(always)]
#[must_use]
pub const fn head(kind: u8, operand: u64) -> u64 {
    (kind as u64) << OPERAND_BITS | (operand & OPERAND_MASK)
}

/// The kind byte of word 0.
#[inline(always)]
#[must_use]
pub const fn kind_of(word0: u64) -> u8 {
    (word0 >> OPERAND_BITS) as u8
}

/// The operand of word 0.
#[inline(always)]
#[must_use]
pub const fn operand(word0: u64) -> u64 {
    word0 & OPERAND_MASK
}

/// Whether a record with this first word counts as a call that begins or ends a block. (A `realloc` does so by what it begins with and
/// by what it moves to; that it has only freed, or failed, is said besides.)
#[must_use]
pub const fn is_call(word0: u64) -> bool {
    matches!(
        kind_of(word0),
        kind::FREE
            | kind::ALLOC
            | kind::ALLOC_LARGE
            | kind::REALLOC_BEGIN
            | kind::REALLOC_MOVED
            | kind::REALLOC_MOVED_LARGE
    )
}

/// The stamp of a record, where its kind has one.
#[must_use]
pub fn stamp_of(record: &[u64]) -> Option<u64> {
    let word0 = *record.first()?;
    let others = [
        kind::REALLOC_FREED,
        kind::REALLOC_FAILED,
        kind::FAILED,
        kind::THREAD_START,
        kind::THREAD_END,
        kind::MODULES_GONE,
        kind::NAMED,
    ];
    let has_one = is_call(word0) || others.contains(&kind_of(word0));
    if has_one { record.get(1).copied() } else { None }
}

/// Number of words of the record that starts `words`, or `None` where it is cut or malformed.
#[inline]
#[must_use]
pub fn length(words: &[u64]) -> Option<usize> {
    let n = match kind_of(*words.first()?) & 7 {
        n @ 2..=6 => n as usize,
        7 => (*words.get(1)? & 0xffff) as usize,
        _ => return None,
    };
    (n >= 2 && n <= words.len()).then_some(n)
}

/// Walks the records of a run of words; ends at the first that is cut or malformed.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    words: &'a [u64],
}

impl<'a> Records<'a> {
    /// Starts at the first word.
    #[must_use]
    pub const fn new(words: &'a [u64]) -> Self {
        Self { words }
    }

    /// The words that were not walked yet; not empty at the end if the last record is cut.
    #[must_use]
    pub const fn rest(&self) -> &'a [u64] {
        self.words
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u64];

    #[inline]
    fn next(&mut self) -> Option<&'a [u64]> {
        let (record, rest) = self.words.split_at(length(self.words)?);
        self.words = rest;
        Some(record)
    }
}

/// The operand of `THREAD_START` and `THREAD_END`: (thread number, tid).
#[must_use]
pub const fn thread_operand(number: u32, tid: u32) -> u64 {
    ((number as u64) << 32 | tid as u64) & OPERAND_MASK
}

/// A `MODULE` record: a mapped ELF file.
///
/// ```text
/// w0 MODULE, generation | w1 length in words | w2 start | w3 end | w4 load bias
/// w5 build-id length << 32 | path length | build-id, then path, padded to whole words
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// The generation that it joined.
    pub generation: u32,
    /// First mapped address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// What to subtract from an address to get the file's virtual address.
    pub bias: u64,
    /// The GNU build-id; empty where the file has none.
    pub build_id: &'a [u8],
    /// Path of the file, as the loader named it. Any bytes.
    pub path: &'a [u8],
}

/// Longest path that a `MODULE` record holds, in bytes.
pub const MAX_PATH: usize = 4096;
/// Longest build-id that a `MODULE` record holds, in bytes.
pub const MAX_BUILD_ID: usize = 64;

impl Module<'_> {
    /// Number of words of the record.
    #[must_use]
    pub fn words(&self) -> usize {
        6 + (self.build_id.len().min(MAX_BUILD_ID) + self.path.len().min(MAX_PATH)).div_ceil(8)
    }

    /// Writes the record through `put(index, word)`, for each index below [`Module::words`].
    pub fn encode(&self, mut put: impl FnMut(usize, u64)) {
        let build_id = &self.build_id[..self.build_id.len().min(MAX_BUILD_ID)];
        let path = &self.path[..self.path.len().min(MAX_PATH)];
        put(0, head(kind::MODULE, u64::from(self.generation)));
        put(1, self.words() as u64);
        put(2, self.start);
        put(3, self.end);
        put(4, self.bias);
        put(5, (build_id.len() as u64) << 32 | path.len() as u64);
        let total = build_id.len() + path.len();
        let byte = |i: usize| if i < build_id.len() { build_id[i] } else { path[i - build_id.len()] };
        for word in 0..total.div_ceil(8) {
            let mut bytes = [0; 8];
            for (k, slot) in bytes.iter_mut().enumerate() {
                if word * 8 + k < total {
                    *slot = byte(word * 8 + k);
                }
            }
            put(6 + word, u64::from_le_bytes(bytes));
        }
    }
}

impl<'a> Module<'a> {
    /// Reads a `MODULE` record; its build-id and path are copied to `bytes`. `None` where it makes no
    /// sense.
    #[must_use]
    pub fn decode(record: &[u64], bytes: &'a mut Vec<u8>) -> Option<Self> {
        let (head, tail) = record.split_at_checked(6)?;
        if kind_of(head[0]) != kind::MODULE || length(record) != Some(record.len()) {
            return None;
        }
        let (build_id, path) = ((head[5] >> 32) as usize, head[5] as u32 as usize);
        if build_id > MAX_BUILD_ID || path > MAX_PATH || build_id + path > tail.len() * 8 {
            return None;
        }
        bytes.clear();
        bytes.extend(tail.iter().flat_map(|word| word.to_le_bytes()).take(build_id + path));
        let (build_id, path) = bytes.split_at(build_id);
        let generation = operand(head[0]) as u32;
        Some(Self { generation, start: head[2], end: head[3], bias: head[4], build_id, path })
    }
}

const _: () = assert!(6 + (MAX_PATH + MAX_BUILD_ID) / 8 <= MAX_WORDS);

/// Unit of a `NAMED` record's reach, in bytes. Blocks that are named from inside begin at its multiples.
pub const NAMED_UNIT: u64 = 16;

/// A `NAME` record: what a variable is called.
///
/// ```text
/// w0 NAME, id | w1 scope length << 48 | type length << 32 | name length << 16 | length in words
/// w2.. name, then type, then scope, padded to whole words
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// Its id, not 0.
    pub id: u32,
    /// Name of the variable. Any bytes, as the other two; none where it is not known.
    pub name: &'a [u8],
    /// Its type.
    pub type_name: &'a [u8],
    /// Its scope.
    pub scope: &'a [u8],
}

/// Longest text that a `NAME` record holds, in bytes.
pub const MAX_NAME: usize = 1000;

/// As much of a text as a `NAME` record holds, without a character that is cut in two.
fn clipped(text: &[u8]) -> &[u8] {
    let mut end = text.len().min(MAX_NAME);
    while end > 0 && text.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    &text[..end]
}

impl Name<'_> {
    fn texts(&self) -> [&[u8]; 3] {
        [clipped(self.name), clipped(self.type_name), clipped(self.scope)]
    }

    /// Number of words of the record.
    #[must_use]
    pub fn words(&self) -> usize {
        2 + self.texts().iter().map(|text| text.len()).sum::<usize>().div_ceil(8)
    }

    /// Writes the record through `put(index, word)`, for each index below [`Name::words`].
    pub fn encode(&self, mut put: impl FnMut(usize, u64)) {
        let [name, type_name, scope] = self.texts();
        put(0, head(kind::NAME, u64::from(self.id)));
        let lengths = (scope.len() as u64) << 48 | (type_name.len() as u64) << 32 | (name.len() as u64) << 16;
        let words = self.words();
        put(1, lengths | words as u64);
        let mut bytes = name.iter().chain(type_name).chain(scope);
        for index in 2..words {
            let word = core::array::from_fn(|_| bytes.next().copied().unwrap_or(0));
            put(index, u64::from_le_bytes(word));
        }
    }
}

impl<'a> Name<'a> {
    /// Reads a `NAME` record; its texts are copied to `bytes`. `None` where it makes no sense.
    #[must_use]
    pub fn decode(record: &[u64], bytes: &'a mut Vec<u8>) -> Option<Self> {
        let (head, tail) = record.split_at_checked(2)?;
        if kind_of(head[0]) != kind::NAME || length(record) != Some(record.len()) {
            return None;
        }
        let id = u32::try_from(operand(head[0])).ok().filter(|&id| id != 0)?;
        let [name, type_name, scope] = [16, 32, 48].map(|shift| (head[1] >> shift & 0xffff) as usize);
        if name.max(type_name).max(scope) > MAX_NAME || name + type_name + scope > tail.len() * 8 {
            return None;
        }
        bytes.clear();
        bytes.extend(tail.iter().flat_map(|word| word.to_le_bytes()));
        let (name, rest) = bytes.split_at(name);
        let (type_name, rest) = rest.split_at(type_name);
        Some(Self { id, name, type_name, scope: &rest[..scope] })
    }
}

const _: () = assert!(2 + (3 * MAX_NAME).div_ceil(8) <= MAX_WORDS);

#[cfg(test)]
mod tests {
    use super::*;

    fn record(module: &Module<'_>) -> Vec<u64> {
        let mut words = vec![u64::MAX; module.words()];
        module.encode(|i, word| words[i] = word);
        words
    }

    #[test]
    fn modules_come_back() {
        let long = vec![b'p'; MAX_PATH];
        for (build_id, path) in
            [(&b""[..], &b""[..]), (b"12345678901234567890", b"/lib/a b\xff.so"), (&[9; 64], &long)]
        {
            let module = Module { generation: 3, start: 1 << 46, end: u64::MAX, bias: 7, build_id, path };
            let words = record(&module);
            assert_eq!(length(&words), Some(words.len()));
            let mut bytes = Vec::new();
            assert_eq!(Module::decode(&words, &mut bytes), Some(module));
        }
    }

    #[test]
    fn senseless_modules_are_refused() {
        let module = Module { generation: 3, start: 1, end: 2, bias: 7, build_id: &[1; 20], path: b"/lib/x" };
        let words = record(&module);
        let mut bytes = Vec::new();
        for cut in 0..words.len() {
            assert_eq!(Module::decode(&words[..cut], &mut bytes), None);
        }
        for lengths in [u64::MAX, 65 << 32, 20 << 32 | 4097, 20 << 32 | 13] {
            let mut damaged = words.clone();
            damaged[5] = lengths;
            assert_eq!(Module::decode(&damaged, &mut bytes), None);
        }
    }

    #[test]
    fn names_come_back() {
        let long = "ä".repeat(600);
        for (name, type_name, scope) in [("", "", ""), ("my_vec", "Vec<i32>", "app::main"), ("x", "", "y")] {
            let [name, type_name, scope] = [name, type_name, scope].map(str::as_bytes);
            let record = Name { id: 77, name, type_name, scope };
            let mut words = vec![u64::MAX; record.words()];
            record.encode(|i, word| words[i] = word);
            assert_eq!(length(&words), Some(words.len()));
            assert_eq!(Name::decode(&words, &mut Vec::new()), Some(record));
        }
        let (name, type_name, scope) = (long.as_bytes(), &b"x"[..], &[0x80; 2000][..]);
        let record = Name { id: 5, name, type_name, scope };
        let mut words = vec![0; record.words()];
        record.encode(|i, word| words[i] = word);
        let mut bytes = Vec::new();
        let found = Name::decode(&words, &mut bytes).unwrap();
        assert_eq!(
            (found.name, found.type_name, found.scope),
            ("ä".repeat(500).as_bytes(), type_name, &b""[..])
        );
        for cut in 0..words.len() {
            assert_eq!(Name::decode(&words[..cut], &mut Vec::new()), None);
        }
        let mut nameless = words.clone();
        nameless[0] = head(kind::NAME, 0);
        assert_eq!(Name::decode(&nameless, &mut Vec::new()), None);
        words[1] |= 0xffff << 48;
        assert_eq!(Name::decode(&words, &mut Vec::new()), None);
    }

    #[test]
    fn a_call_is_counted_once_and_has_a_stamp() {
        let calls = |kinds: &[u8]| kinds.iter().filter(|&&kind| is_call(head(kind, 7))).count();
        assert_eq!(calls(&[kind::ALLOC, kind::FREE]), 2);
        assert_eq!(calls(&[kind::REALLOC_BEGIN, kind::REALLOC_MOVED_LARGE]), 2);
        assert_eq!(calls(&[kind::REALLOC_BEGIN, kind::REALLOC_FREED]), 1);
        assert_eq!(calls(&[kind::REALLOC_BEGIN, kind::REALLOC_FAILED]), 1);
        assert_eq!(calls(&[kind::NODE, kind::NAMED, kind::THREAD_START, kind::FAILED]), 0);
        for kind in 0..=u8::MAX {
            let stamp = stamp_of(&[head(kind, 7), 55, 0]);
            assert!(!is_call(head(kind, 7)) || stamp == Some(55));
            assert!(stamp.is_none() || (kind::FREE..=kind::NAMED).contains(&kind));
        }
        assert_eq!([stamp_of(&[head(kind::NODE, 7), 55]), stamp_of(&[head(kind::MODULE, 7), 55])], [None; 2]);
        assert_eq!(stamp_of(&[head(kind::NAMED, 7), 55, 0]), Some(55));
        assert_eq!([stamp_of(&[]), stamp_of(&[head(kind::FREE, 7)])], [None; 2]);
    }

    #[test]
    fn records_are_walked_to_the_first_that_is_cut() {
        let module = Module { generation: 0, start: 0, end: 0, bias: 0, build_id: &[], path: b"x" };
        let mut words = record(&module);
        words.extend([head(kind::FREE, 5), 1, head(kind::ALLOC, 5), 2]);
        let mut records = Records::new(&words);
        assert_eq!(records.by_ref().map(<[u64]>::len).collect::<Vec<_>>(), [7, 2]);
        assert_eq!(records.rest().len(), 2);
        assert_eq!(Records::new(&[0, 0, 0]).count(), 0);
        assert_eq!(Records::new(&[head(kind::MODULE, 0), 1]).count(), 0);
    }
}
