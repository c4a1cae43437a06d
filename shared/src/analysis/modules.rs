//! Mapped files over time: which one an address of a generation belongs to.
//!
//! A module joins a generation and stays in all later ones until it goes; each unloading begins a
//! new generation, so that the same address may belong to different files in different ones.

use super::hash::Map;
use crate::record;

/// A mapped file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its path as the loader named it. Any bytes.
    pub path: Vec<u8>,
    /// Its GNU build-id; empty where it has none.
    pub build_id: Vec<u8>,
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// What to subtract from an address to get the file's virtual address.
    pub bias: u64,
    /// First generation that it belongs to.
    pub joined: u32,
    /// First generation that it doesn't belong to any more; `u32::MAX` if it never went.
    pub gone: u32,
}

/// All modules of a recording.
#[derive(Debug, Default)]
pub struct Modules {
    list: Vec<Module>,
    /// Of each generation asked for: (start, end, index), sorted.
    views: Map<u32, Vec<(u64, u64, u32)>>,
}

/// Generations whose sorted modules are kept.
const VIEWS: usize = 64;

impl Modules {
    /// From what was recorded, in any order: modules, and (new generation, start of what went).
    #[must_use]
    pub fn new(mut list: Vec<Module>, mut gone: Vec<(u32, u64)>) -> Self {
        list.sort_by(|a, b| (a.joined, a.start, &a.path).cmp(&(b.joined, b.start, &b.path)));
        gone.sort_unstable();
        let mut by_start: Map<u64, Vec<usize>> = Map::default();
        for (at, module) in list.iter().enumerate() {
            by_start.entry(module.start).or_default().push(at);
        }
        for (generation, start) in gone {
            for &at in by_start.get(&start).into_iter().flatten() {
                let module = &mut list[at];
                if module.joined < generation && module.gone > generation {
                    module.gone = generation;
                }
            }
        }
        Self { list: without_repeats(list), views: Map::default() }
    }

    /// The modules, in order of their generations and addresses.
    #[must_use]
    pub fn list(&self) -> &[Module] {
        &self.list
    }

    /// Index of the module that `address` belongs to in `generation`.
    pub fn find(&mut self, generation: u32, address: u64) -> Option<u32> {
        if self.views.len() >= VIEWS && !self.views.contains_key(&generation) {
            self.views.clear();
        }
        let list = &self.list;
        let view = self.views.entry(generation).or_insert_with(|| view(list, generation));
        let at = view.partition_point(|&(start, _, _)| start <= address).checked_sub(1)?;
        let (_, end, index) = view[at];
        (address < end).then_some(index)
    }
}

/// The modules of a generation by address.
fn view(list: &[Module], generation: u32) -> Vec<(u64, u64, u32)> {
    let mut view: Vec<_> = list
        .iter()
        .enumerate()
        .filter(|(_, m)| m.joined <= generation && generation < m.gone)
        .map(|(at, m)| (m.start, m.end, at as u32))
        .collect();
    view.sort_unstable();
    view
}

/// Leaves out what two threads have recorded at once.
fn without_repeats(list: Vec<Module>) -> Vec<Module> {
    let mut last: Map<u64, usize> = Map::default();
    let mut kept: Vec<Module> = Vec::with_capacity(list.len());
    for module in list {
        if let Some(&at) = last.get(&module.start) {
            let before = &mut kept[at];
            let same =
                before.path == module.path && before.build_id == module.build_id && before.end == module.end;
            if same && module.joined <= before.gone && module.bias == before.bias {
                before.gone = before.gone.max(module.gone);
                continue;
            }
        }
        last.insert(module.start, kept.len());
        kept.push(module);
    }
    kept
}

/// Reads a `MODULE` record; `None` where its lengths make no sense.
#[must_use]
pub fn read_module(words: &[u64]) -> Option<Module> {
    let &[word0, _, start, end, bias, lengths, ref bytes @ ..] = words else { return None };
    let (build_id, path) = ((lengths >> 32) as usize, (lengths & 0xffff_ffff) as usize);
    let bytes: Vec<u8> = bytes.iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = bytes.get(build_id..build_id.checked_add(path)?)?.to_vec();
    let joined = record::operand(word0) as u32;
    let build_id = bytes[..build_id].to_vec();
    Some(Module { path, build_id, start, end, bias, joined, gone: u32::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, start: u64, end: u64, joined: u32) -> Module {
        let (path, build_id) = (path.into(), Vec::new());
        Module { path, build_id, start, end, bias: start, joined, gone: u32::MAX }
    }

    #[test]
    fn records_come_back() {
        let written = record::Module {
            generation: 7,
            start: 0x1000,
            end: 0x9000,
            bias: 0x800,
            build_id: &[1, 2, 3, 4, 5, 6, 7, 8, 9],
            path: b"/lib/with space/\xff.so",
        };
        let mut words = vec![0; written.words()];
        written.encode(|at, word| words[at] = word);
        let read = read_module(&words).unwrap();
        assert_eq!((read.path.as_slice(), read.build_id.as_slice()), (written.path, written.build_id));
        assert_eq!((read.start, read.end, read.bias, read.joined), (0x1000, 0x9000, 0x800, 7));
        words[5] = u64::MAX;
        assert_eq!(read_module(&words), None);
        assert_eq!(read_module(&words[..5]), None);
    }

    #[test]
    fn an_address_means_what_its_generation_says() {
        let list = vec![
            module("b", 0x2000, 0x3000, 2),
            module("main", 0x1000, 0x1800, 0),
            module("a", 0x2000, 0x2800, 1),
        ];
        let mut modules = Modules::new(list, vec![(2, 0x2000)]);
        let mut name = |generation, address| {
            let at = modules.find(generation, address)?;
            Some(String::from_utf8_lossy(&modules.list()[at as usize].path).into_owned())
        };
        assert_eq!(name(0, 0x1000).as_deref(), Some("main"));
        assert_eq!(name(0, 0x1800), None);
        assert_eq!(name(0, 0x2000), None, "not there yet");
        assert_eq!(name(1, 0x2100).as_deref(), Some("a"));
        assert_eq!(name(2, 0x2100).as_deref(), Some("b"));
        assert_eq!(name(9, 0x2fff).as_deref(), Some("b"));
        assert_eq!(name(9, 0x17ff).as_deref(), Some("main"));
        assert_eq!(name(9, 0), None);
    }

    #[test]
    fn comes_and_goes() {
        let list = vec![module("a", 0x2000, 0x2800, 1), module("a", 0x2000, 0x2800, 3)];
        let mut modules = Modules::new(list, vec![(4, 0x2000), (2, 0x2000)]);
        let there: Vec<_> = (0..6).map(|generation| modules.find(generation, 0x2001).is_some()).collect();
        assert_eq!(there, [false, true, false, true, false, false]);
    }

    #[test]
    fn what_two_threads_saw_at_once_is_one() {
        let list = vec![module("a", 0x2000, 0x2800, 1), module("a", 0x2000, 0x2800, 1)];
        assert_eq!(Modules::new(list, Vec::new()).list().len(), 1);
    }
}
