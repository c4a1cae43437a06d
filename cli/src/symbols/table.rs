//! The frames of one process: each distinct one once, and which of them an address stands for.

use std::collections::HashMap;

use memscope_shared::model::StackFrame;

use super::file::ModuleFile;
use super::resolver::{Named, Resolver};

/// A file where it was mapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mapped {
    /// The file.
    pub file: ModuleFile,
    /// What to subtract from an address to get the file's.
    pub bias: u64,
}

/// A file mapped at the same place again (after an unloading) is the same to us.
type Key = (Option<u32>, u64);

/// Frames, and the frames of each address.
#[derive(Debug, Default)]
pub struct FrameTable {
    frames: Vec<StackFrame>,
    of: HashMap<Key, Box<[u32]>>,
    /// For each module, the first that is equal to it.
    first: Vec<u32>,
}

impl FrameTable {
    /// Resolves all `addresses`: (index into `modules`, address to look up).
    pub fn new(
        modules: &[Mapped],
        addresses: impl Iterator<Item = (Option<u32>, u64)>,
        resolver: &mut Resolver,
        mut progress: impl FnMut(u64),
    ) -> Self {
        let mut table = Self { first: first_of_equals(modules), ..Self::default() };
        let mut wanted: Vec<Key> = addresses.map(|(module, address)| table.key(module, address)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        for group in wanted.chunk_by(|a, b| a.0 == b.0) {
            let module = group[0].0.and_then(|index| modules.get(index as usize));
            table.add_group(module, group, resolver, &mut progress);
        }
        table
    }

    /// The frames of an address, the innermost first. Empty for an address that was not resolved.
    pub fn of(&self, module: Option<u32>, address: u64) -> &[u32] {
        self.of.get(&self.key(module, address)).map_or(&[], |frames| frames)
    }

    /// All frames.
    pub fn into_frames(self) -> Vec<StackFrame> {
        self.frames
    }

    fn key(&self, module: Option<u32>, address: u64) -> Key {
        (module.and_then(|index| self.first.get(index as usize).copied()), address)
    }

    fn add_group(
        &mut self,
        module: Option<&Mapped>,
        group: &[Key],
        resolver: &mut Resolver,
        progress: &mut impl FnMut(u64),
    ) {
        let Some(module) = module else {
            for key in group {
                self.add(*key, None, &[Named::default()]);
            }
            progress(group.len() as u64);
            return;
        };
        let in_file = |key: &Key| key.1.wrapping_sub(module.bias);
        let addresses: Vec<u64> = group.iter().map(in_file).collect();
        resolver.learn(&module.file, &addresses, progress);
        let path = module.file.path().to_string_lossy();
        for (key, address) in group.iter().zip(addresses) {
            self.add(*key, Some(&path), &resolver.places(&module.file, address));
        }
    }

    fn add(&mut self, key: Key, module: Option<&str>, places: &[Named]) {
        let before = self.frames.len();
        let places_kept = places.iter().enumerate().filter(|(_, place)| !is_allocators(place));
        let frames = places_kept.map(|(at, place)| {
            let frame = frame(place, key.1, module, at + 1 < places.len());
            // A call that is inlined into itself on one line gives the same frame twice.
            let same = self.frames[before..].iter().position(|known| *known == frame);
            let index = same.map_or(self.frames.len(), |at| before + at);
            if same.is_none() {
                self.frames.push(frame);
            }
            index as u32
        });
        let frames = frames.collect();
        self.of.insert(key, frames);
    }
}

/// Whether a place lies in the Rust library's recording allocator, whose code is part of the program: it stands between
/// an allocation's caller and the recorder, and no stack shows it. Or in the loader's inlined functions that are called as the
/// program's `malloc` and `calloc` are, and call them: a part of the call, not its caller.
fn is_allocators(place: &Named) -> bool {
    if place.file.as_deref().is_some_and(|file| file.ends_with("/rtld-malloc.h")) {
        return true;
    }
    let name = place.function.as_deref().unwrap_or_default();
    name.trim_start_matches('<').starts_with("memscope_rs::allocator::")
}

fn first_of_equals(modules: &[Mapped]) -> Vec<u32> {
    let mut first = HashMap::new();
    (0..).zip(modules).map(|(at, module)| *first.entry(module).or_insert(at)).collect()
}

fn frame(place: &Named, address: u64, module: Option<&str>, inlined: bool) -> StackFrame {
    StackFrame {
        function: place.function.as_deref().map(str::to_owned),
        file: place.file.as_deref().map(str::to_owned),
        line: place.line,
        column: place.column,
        module: module.map(str::to_owned),
        address,
        inlined,
    }
}
