//! From addresses in files to names and lines.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;

use blazesym::symbolize::source::{Elf, Source as Symbols};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

use rustix::process::{Resource, getrlimit};

use super::demangle;
use super::file::{DEBUG_DIRECTORIES, ModuleFile, Source, Unusable};

/// Addresses given to the library at once: enough to share its work, and a bar that moves.
const BATCH: usize = 16_384;
/// Where no more files than this may be open, none stays so.
const FEW_FILES: u64 = 64;

/// A place in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Demangled name.
    pub function: Option<Rc<str>>,
    /// Source file.
    pub file: Option<Rc<str>>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
}

/// The places that an address means: the innermost inlined call first, the function itself last. Never empty.
pub type Places = Rc<[Named]>;

/// What is known of one module's addresses.
#[derive(Debug, Default)]
struct Known {
    sources: Vec<Source>,
    places: HashMap<u64, Places>,
}

fn symbolizer() -> Symbolizer {
    let directories = DEBUG_DIRECTORIES.iter().map(Path::new).filter(|d| d.is_dir());
    Symbolizer::builder()
        .enable_code_info(true)
        .enable_inlined_fns(true)
        .enable_demangling(false)
        .enable_auto_reload(false)
        .set_debug_dirs(Some(directories))
        .build()
}

/// Resolves addresses, each once, however many processes share a file.
#[derive(Debug)]
pub struct Resolver {
    symbolizer: Symbolizer,
    files: HashMap<ModuleFile, Known>,
    unusable: Vec<(ModuleFile, Unusable)>,
    strings: HashSet<Rc<str>>,
    nothing: Places,
    /// The library's files are closed after each module.
    closes: bool,
}

impl Resolver {
    /// A resolver that knows nothing yet.
    pub fn new() -> Self {
        Self {
            symbolizer: symbolizer(),
            files: HashMap::new(),
            unusable: Vec::new(),
            strings: HashSet::new(),
            nothing: Rc::new([Named::default()]),
            closes: getrlimit(Resource::Nofile).current.is_some_and(|most| most < FEW_FILES),
        }
    }

    /// Modules whose file is gone or changed since.
    pub fn unusable(&self) -> &[(ModuleFile, Unusable)] {
        &self.unusable
    }

    /// Looks up the addresses (as the file counts them), those that are not known yet. `progress` hears how
    /// many are done.
    pub fn learn(&mut self, file: &ModuleFile, addresses: &[u64], mut progress: impl FnMut(u64)) {
        self.open(file);
        let mut known = self.files.remove(file).unwrap_or_default();
        let mut wanted: Vec<u64> =
            addresses.iter().filter(|a| !known.places.contains_key(a)).copied().collect();
        // In order, the library finds what it needs close to where it was.
        wanted.sort_unstable();
        wanted.dedup();
        for batch in wanted.chunks(BATCH) {
            let places = self.look_up(&known.sources, batch);
            known.places.extend(batch.iter().copied().zip(places));
            progress(batch.len() as u64);
        }
        self.files.insert(file.clone(), known);
        if self.closes {
            self.symbolizer = symbolizer();
        }
    }

    /// What an address means that was learnt.
    pub fn places(&self, file: &ModuleFile, address: u64) -> Places {
        let known = self.files.get(file).and_then(|known| known.places.get(&address));
        known.unwrap_or(&self.nothing).clone()
    }

    /// Finds a file's sources when it is met first.
    fn open(&mut self, file: &ModuleFile) {
        if self.files.contains_key(file) {
            return;
        }
        let sources = file.sources().unwrap_or_else(|why| {
            if why != Unusable::NoFile {
                self.unusable.push((file.clone(), why));
            }
            Vec::new()
        });
        self.files.insert(file.clone(), Known { sources, places: HashMap::new() });
    }

    /// Asks one source after the other for what is still missing.
    fn look_up(&mut self, sources: &[Source], batch: &[u64]) -> Vec<Places> {
        let mut found: Vec<Option<Vec<Named>>> = vec![None; batch.len()];
        for source in sources {
            let missing: Vec<usize> =
                (0..batch.len()).filter(|at| !is_named(found[*at].as_deref())).collect();
            if missing.is_empty() {
                break;
            }
            let addresses: Vec<u64> = missing.iter().map(|at| batch[*at]).collect();
            // A file that cannot be read as a whole (a debug link that leads astray) leaves it to the next.
            let Ok(answers) = self.symbolizer.symbolize(&symbols(source), Input::VirtOffset(&addresses))
            else {
                continue;
            };
            let answers: Vec<Option<Vec<Named>>> =
                answers.into_iter().map(|answer| places(&answer, &mut self.strings)).collect();
            for (at, answer) in missing.into_iter().zip(answers) {
                found[at] = better(found[at].take(), answer);
            }
        }
        found.into_iter().map(|places| places.map_or_else(|| self.nothing.clone(), Rc::from)).collect()
    }
}

fn symbols(source: &Source) -> Symbols<'static> {
    let (path, debug_syms) = match source {
        Source::Debug(path) => (path, true),
        Source::Table(path) => (path, false),
    };
    Symbols::Elf(Elf { debug_syms, ..Elf::new(path.clone()) })
}

/// Whether no other source needs to be asked.
fn is_named(places: Option<&[Named]>) -> bool {
    places.and_then(<[Named]>::last).is_some_and(|outer| outer.function.is_some())
}

/// Lines from the one and the name from the other, where neither has both.
fn better(before: Option<Vec<Named>>, answer: Option<Vec<Named>>) -> Option<Vec<Named>> {
    match (before, answer) {
        (Some(mut lines), Some(names)) => {
            if let (Some(outer), Some(name)) = (lines.last_mut(), names.last()) {
                outer.function.clone_from(&name.function);
            }
            Some(lines)
        }
        (before, answer) => before.or(answer),
    }
}

/// One of each string: a program has few functions and files for its many addresses.
fn shared(strings: &mut HashSet<Rc<str>>, text: &str) -> Option<Rc<str>> {
    // A debug file that refers to a missing one gives empty names.
    if text.is_empty() {
        return None;
    }
    if let Some(known) = strings.get(text) {
        return Some(known.clone());
    }
    let new: Rc<str> = text.into();
    strings.insert(new.clone());
    Some(new)
}

fn places(answer: &Symbolized<'_>, strings: &mut HashSet<Rc<str>>) -> Option<Vec<Named>> {
    let Symbolized::Sym(symbol) = answer else { return None };
    Some(places_of(symbol, strings))
}

/// The library lists inlined calls from the outside in; a stack goes the other way.
fn places_of(symbol: &Sym<'_>, strings: &mut HashSet<Rc<str>>) -> Vec<Named> {
    let mut places = Vec::with_capacity(symbol.inlined.len() + 1);
    for call in symbol.inlined.iter().rev() {
        places.push(named(&call.name, call.code_info.as_ref(), strings));
    }
    places.push(named(&symbol.name, symbol.code_info.as_deref(), strings));
    places
}

fn named(name: &str, code: Option<&CodeInfo<'_>>, strings: &mut HashSet<Rc<str>>) -> Named {
    let readable = demangle::readable(name);
    let name = readable.as_deref().unwrap_or(name);
    let mut named = Named { function: shared(strings, name), ..Named::default() };
    if let Some(code) = code {
        named.file = shared(strings, &code.to_path().to_string_lossy());
        // DWARF says 0 for "no particular line".
        named.line = code.line.filter(|line| *line > 0);
        named.column = code.column.filter(|column| *column > 0).map(u32::from);
    }
    named
}
