//! Symbols of the loaded modules, looked up in their tables in memory.
//!
//! What `dlsym` would do takes the loader's lock, may allocate from the program's heap, and on glibc before
//! 2.34 lies in a library that the program may not have loaded. The loader's list is walked without its lock: at the
//! start nothing is unloaded yet; later only the C++ library and the unwinder are looked for, once, which programs do not unload.

use crate::program::stack::elf::Dynamic;
use crate::program::stack::loader::{self, LinkMap};
use core::ffi::CStr;

/// A loaded module.
#[derive(Clone, Copy, Debug)]
pub struct Module(&'static LinkMap);

impl PartialEq for Module {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self.0, other.0)
    }
}

impl Module {
    /// Its path as the loader has it; empty for the program.
    #[must_use]
    pub fn path(&self) -> &'static CStr {
        if self.0.name.is_null() {
            return c"";
        }
        // SAFETY: a C string that lives as long as the module.
        unsafe { CStr::from_ptr(self.0.name) }
    }

    /// File name of its path.
    #[must_use]
    pub fn file_name(&self) -> &'static [u8] {
        self.path().to_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Address of a symbol that it defines.
    #[must_use]
    pub fn symbol(&self, name: &CStr) -> Option<usize> {
        // SAFETY: the loader's entry of a mapped module.
        unsafe { Dynamic::at(self.0.dynamic, self.0.bias) }.symbol(name)
    }
}

/// All modules, in the order in which the program's symbols are searched.
pub fn modules() -> impl Iterator<Item = Module> {
    let mut at = loader::first_module().unwrap_or(core::ptr::null());
    core::iter::from_fn(move || {
        // SAFETY: entries of the loader's list stay valid while their modules are loaded.
        let entry = unsafe { at.as_ref() }?;
        at = entry.next;
        Some(Module(entry))
    })
}

/// The module that an address lies in: the one with the highest load address below it. (The bias of the
/// program itself may be 0.)
#[must_use]
pub fn containing(address: usize) -> Option<Module> {
    modules().filter(|module| module.0.bias <= address).max_by_key(|module| module.0.bias)
}

/// The module that this code is part of.
#[must_use]
pub fn own() -> Option<Module> {
    containing(own as fn() -> Option<Module> as usize)
}

/// The first definition of a symbol in the program.
#[must_use]
pub fn first(name: &CStr) -> Option<(usize, Module)> {
    modules().find_map(|module| Some((module.symbol(name)?, module)))
}

/// The first definition behind this module: what `RTLD_NEXT` means here.
///
/// (The address of a function of ours is no help in finding the place: in a program that is not
/// position-independent it may be that of the program's own jump to it.)
#[must_use]
pub fn next(name: &CStr) -> Option<(usize, Module)> {
    let own = own()?;
    modules()
        .skip_while(|module| *module != own)
        .skip(1)
        .find_map(|module| Some((module.symbol(name)?, module)))
}

/// The library before this one that defines the symbol, too. None precedes what is built into the program, and the program's own
/// definitions do not count.
#[must_use]
pub fn preceding(name: &CStr) -> Option<Module> {
    let own = own().filter(|own| !own.path().is_empty())?;
    modules().skip(1).take_while(|module| *module != own).find(|module| module.symbol(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_libc_are_found() {
        let (found, module) = first(c"malloc").expect("libc defines it");
        assert_eq!(found, libc::malloc as *const () as usize);
        assert!(module.file_name().starts_with(b"libc.so"));
        assert_eq!(containing(found), Some(module));
        assert!(own().is_some_and(|own| own.path().is_empty()));
        assert_eq!(next(c"malloc"), Some((found, module)));
        assert!(preceding(c"malloc").is_none());
        assert!(first(c"no_such_symbol_anywhere").is_none());
    }
}
