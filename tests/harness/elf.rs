//! What `readelf` says about a library.

use std::path::Path;

use crate::command::Cmd;

/// One entry of the dynamic symbol table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    /// Name without version.
    pub name: String,
    /// Version (`GLIBC_2.2.5`), empty where it has none.
    pub version: String,
    /// Defined here; else needed from elsewhere.
    pub defined: bool,
    /// `GLOBAL`, `WEAK`, ...
    pub binding: String,
}

/// The dynamic symbols of a library, local ones left out.
#[must_use]
pub fn dynamic_symbols(library: &Path) -> Vec<Symbol> {
    let table = Cmd::new(["readelf", "--wide", "--dyn-syms"]).arg(library).run().success().out();
    table.lines().filter_map(symbol).collect()
}

/// `  12: 0000000000001139    22 FUNC    GLOBAL DEFAULT   14 name@@VERSION (2)`
fn symbol(line: &str) -> Option<Symbol> {
    let mut words = line.split_whitespace();
    let number = words.next()?.strip_suffix(':')?;
    number.parse::<u32>().ok()?;
    let rest: Vec<&str> = words.collect();
    let [_value, _size, _kind, binding, _visibility, section, name, ..] = rest[..] else { return None };
    let (name, version) = name.split_once('@').unwrap_or((name, ""));
    (binding != "LOCAL").then(|| Symbol {
        name: name.to_owned(),
        version: version.trim_start_matches('@').to_owned(),
        defined: section != "UND",
        binding: binding.to_owned(),
    })
}

/// The libraries that it needs.
#[must_use]
pub fn needed(library: &Path) -> Vec<String> {
    let table = Cmd::new(["readelf", "--wide", "--dynamic"]).arg(library).run().success().out();
    table
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned()))
        .collect()
}
