//! What we need to know of an ELF file: for whom it is, who loads it, which build it is.

use std::fs::File;
use std::io;
use std::path::Path;

use object::LittleEndian;
use object::elf::{
    self, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_DYN, ET_EXEC, NT_GNU_BUILD_ID, PT_DYNAMIC, PT_INTERP,
};
use object::read::elf::{FileHeader, Note, ProgramHeader, SectionHeader};
use object::read::{Object, ObjectSymbol, ReadCache, ReadRef};

type Header = elf::FileHeader64<LittleEndian>;
const ENDIAN: LittleEndian = LittleEndian;

/// What a file is to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// Not an ELF file.
    Foreign,
    /// An ELF file for another machine, which is named.
    OtherMachine(String),
    /// An ELF file for x86-64.
    Native(Native),
}

/// An ELF file for x86-64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Native {
    /// A program or a library, not an object file or a core dump.
    pub loadable: bool,
    /// The loader that it asks for.
    pub interpreter: Option<Vec<u8>>,
    /// It has a dynamic section.
    pub dynamic: bool,
    /// Its GNU build-id.
    pub build_id: Option<Vec<u8>>,
}

/// Reads the headers of a file.
pub fn read(path: &Path) -> io::Result<Image> {
    let cache = ReadCache::new(File::open(path)?);
    let data = &cache;
    // The class, the byte order and the machine stand at the same places in all ELF files.
    if data.read_bytes_at(0, 4) != Ok(&ELFMAG) {
        return Ok(Image::Foreign);
    }
    let ident = data.read_bytes_at(0, 20).map_err(|()| damaged("it is cut"))?;
    let (class, order) = (ident[4], ident[5]);
    let machine = [ident[18], ident[19]];
    let machine =
        if order == ELFDATA2LSB.0 { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
    if class != ELFCLASS64.0 || order != ELFDATA2LSB.0 || machine != EM_X86_64.0 {
        return Ok(Image::OtherMachine(machine_name(class, machine)));
    }
    native(data).map(Image::Native).map_err(|error| damaged(&error.to_string()))
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The build-id of a file in hex; `None` where it has none or cannot be read.
pub fn build_id(path: &Path) -> Option<Vec<u8>> {
    match read(path) {
        Ok(Image::Native(native)) => native.build_id,
        _ => None,
    }
}

/// A symbol of a file.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// It is in the file, rather than asked for.
    pub defined: bool,
    /// It is in the dynamic table: other modules can see it.
    pub dynamic: bool,
}

/// Shows a file's symbols: first the dynamic ones, which even a stripped file has, then those of its full table. None
/// where the file cannot be read.
pub fn each_symbol(path: &Path, mut show: impl FnMut(Symbol<'_>)) {
    let Ok(file) = File::open(path) else { return };
    let cache = ReadCache::new(file);
    let Ok(file) = object::File::parse(&cache) else { return };
    for symbol in file.dynamic_symbols() {
        if let Ok(name) = symbol.name() {
            show(Symbol { name, defined: symbol.is_definition(), dynamic: true });
        }
    }
    for symbol in file.symbols() {
        if let Ok(name) = symbol.name() {
            show(Symbol { name, defined: symbol.is_definition(), dynamic: false });
        }
    }
}

fn native<'data, R: ReadRef<'data>>(data: R) -> object::read::Result<Native> {
    let header = Header::parse(data)?;
    let kind = header.e_type(ENDIAN);
    let mut found = Native { loadable: kind == ET_EXEC || kind == ET_DYN, ..Native::default() };
    for segment in header.program_headers(ENDIAN, data)? {
        match segment.p_type(ENDIAN) {
            // In a debug file the segments lead nowhere.
            PT_INTERP => {
                found.interpreter = segment.interpreter(ENDIAN, data).ok().flatten().map(<[u8]>::to_vec);
            }
            PT_DYNAMIC => found.dynamic = true,
            _ => {}
        }
        if found.build_id.is_none() {
            found.build_id = build_id_in(segment, data);
        }
    }
    if found.build_id.is_none() {
        found.build_id = build_id_in_sections(header, data);
    }
    Ok(found)
}

/// Debug files keep their notes' sections, but their segments lead nowhere.
fn build_id_in_sections<'data, R: ReadRef<'data>>(header: &Header, data: R) -> Option<Vec<u8>> {
    header.section_headers(ENDIAN, data).ok()?.iter().find_map(|section| {
        let mut notes = section.notes(ENDIAN, data).ok()??;
        std::iter::from_fn(|| notes.next().ok().flatten()).find_map(|note| build_id_of(&note))
    })
}

/// The build-id in a note segment. A damaged note is no reason to refuse the file.
fn build_id_in<'data, R: ReadRef<'data>>(
    segment: &elf::ProgramHeader64<LittleEndian>,
    data: R,
) -> Option<Vec<u8>> {
    let mut notes = segment.notes(ENDIAN, data).ok()??;
    std::iter::from_fn(|| notes.next().ok().flatten()).find_map(|note| build_id_of(&note))
}

fn build_id_of(note: &Note<'_, Header>) -> Option<Vec<u8>> {
    let ours = note.name() == elf::ELF_NOTE_GNU && note.n_type(ENDIAN) == NT_GNU_BUILD_ID;
    ours.then(|| note.desc().to_vec())
}

fn machine_name(class: u8, machine: u16) -> String {
    const EM_386: u16 = elf::EM_386.0;
    const EM_X86_64: u16 = elf::EM_X86_64.0;
    const EM_AARCH64: u16 = elf::EM_AARCH64.0;
    const EM_ARM: u16 = elf::EM_ARM.0;
    const EM_RISCV: u16 = elf::EM_RISCV.0;
    const EM_PPC64: u16 = elf::EM_PPC64.0;
    const EM_S390: u16 = elf::EM_S390.0;
    match machine {
        EM_386 => "32-bit x86".to_owned(),
        EM_X86_64 if class != ELFCLASS64.0 => "x86-64 with 32-bit pointers (x32)".to_owned(),
        EM_AARCH64 => "64-bit ARM".to_owned(),
        EM_ARM => "32-bit ARM".to_owned(),
        EM_RISCV => "RISC-V".to_owned(),
        EM_PPC64 => "64-bit PowerPC".to_owned(),
        EM_S390 => "s390".to_owned(),
        other => format!("another machine (ELF number {other})"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Image, build_id, read};

    #[test]
    fn our_own_binary_is_native_and_dynamic() {
        let own = std::env::current_exe().expect("our path");
        match read(&own).expect("headers") {
            Image::Native(native) => {
                assert!(native.loadable && native.dynamic);
                assert!(native.interpreter.expect("a loader").ends_with(b"ld-linux-x86-64.so.2"));
                assert_eq!(native.build_id, build_id(&own));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn other_files_are_foreign() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, content) in
            [("empty", &b""[..]), ("short", b"\x7fEL"), ("text", b"#!/bin/sh\nexit 0 # padding\n")]
        {
            let path = directory.path().join(name);
            fs::write(&path, content).expect("written");
            assert_eq!(read(&path).expect("read"), Image::Foreign, "{name}");
        }
    }

    #[test]
    fn other_machines_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("arm");
        let mut header = fs::read(std::env::current_exe().expect("our path")).expect("our bytes");
        header.truncate(4096);
        header[18] = 183;
        fs::write(&path, &header).expect("written");
        assert_eq!(read(&path).expect("read"), Image::OtherMachine("64-bit ARM".to_owned()));
        // A 32-bit, big-endian file.
        (header[4], header[5], header[18], header[19]) = (1, 2, 0, 40);
        fs::write(&path, &header).expect("written");
        assert_eq!(read(&path).expect("read"), Image::OtherMachine("32-bit ARM".to_owned()));
    }

    #[test]
    fn a_cut_file_is_an_error_not_a_panic() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cut");
        let whole = fs::read(std::env::current_exe().expect("our path")).expect("our bytes");
        for length in [4, 19, 20, 40, 64, 100, 300] {
            fs::write(&path, &whole[..length]).expect("written");
            assert!(read(&path).is_err() || length >= 300, "{length}");
        }
    }
}
