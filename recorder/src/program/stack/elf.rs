//! ELF images in memory: program headers, build-ids, symbols of the loader.
//!
//! Everything here reads modules that the loader has mapped and checked; lengths are bounded by the module's range
//! all the same.

use core::ffi::CStr;

/// `Elf64_Phdr`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProgramHeader {
    /// Type.
    pub kind: u32,
    /// Flags.
    pub flags: u32,
    /// Offset in the file.
    pub offset: usize,
    /// Virtual address in the file's terms.
    pub address: usize,
    physical: usize,
    /// Bytes in the file.
    pub file_size: usize,
    /// Bytes in memory.
    pub memory_size: usize,
    /// Alignment.
    pub align: usize,
}

/// Loadable segment.
pub const PT_LOAD: u32 = 1;
/// Dynamic section.
pub const PT_DYNAMIC: u32 = 2;
/// Notes.
pub const PT_NOTE: u32 = 4;
/// `.eh_frame_hdr`.
pub const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
/// Executable segment.
pub const PF_X: u32 = 1;
const NT_GNU_BUILD_ID: u32 = 3;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_SONAME: usize = 14;
const DT_GNU_HASH: usize = 0x6fff_fef5;

/// An image whose ELF header is mapped at its start.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    start: usize,
    end: usize,
    headers: &'static [ProgramHeader],
    /// What to subtract from an address to get the file's.
    pub bias: usize,
}

impl Image {
    /// The image at `start`, if there is one.
    ///
    /// # Safety
    /// `start..end` must be the range of a mapped module, whose first page is readable and stays so.
    #[must_use]
    pub unsafe fn at(start: usize, end: usize) -> Option<Self> {
        const HEADER: usize = 64;
        // SAFETY: the caller promises a readable page at `start`; the fields lie within its first 64 bytes.
        let (magic, table, size, count) = unsafe {
            (
                (start as *const [u8; 5]).read(),
                (start as *const usize).byte_add(32).read(),
                (start as *const u16).byte_add(54).read(),
                (start as *const u16).byte_add(56).read(),
            )
        };
        let bytes = usize::from(count) * size_of::<ProgramHeader>();
        let in_first_page = table >= HEADER && table % 8 == 0 && table.checked_add(bytes)? <= 4096;
        if magic != *b"\x7fELF\x02" || usize::from(size) != size_of::<ProgramHeader>() || !in_first_page {
            return None;
        }
        // SAFETY: in the first page, as was just checked; any bytes are valid headers.
        let headers =
            unsafe { core::slice::from_raw_parts((start + table) as *const ProgramHeader, count.into()) };
        let first = headers.iter().find(|header| header.kind == PT_LOAD)?;
        let bias = start.wrapping_sub(first.address & !4095);
        Some(Self { start, end, headers, bias })
    }

    /// Address of the first instruction, if the image can be started.
    #[must_use]
    pub fn entry(&self) -> Option<usize> {
        // SAFETY: the header was read when this was made, and is 64 bytes.
        let entry = unsafe { (self.start as *const usize).byte_add(24).read() };
        (entry != 0).then(|| self.bias.wrapping_add(entry))
    }

    /// The program headers.
    #[must_use]
    pub const fn headers(&self) -> &'static [ProgramHeader] {
        self.headers
    }

    /// First address behind the last segment.
    #[must_use]
    pub fn loaded_end(&self) -> usize {
        let ends = self.headers.iter().filter(|header| header.kind == PT_LOAD);
        ends.map(|header| self.bias.wrapping_add(header.address + header.memory_size))
            .max()
            .unwrap_or(self.end)
    }

    /// Address of the first header of a kind.
    #[must_use]
    pub fn find(&self, kind: u32) -> Option<usize> {
        let header = self.headers.iter().find(|header| header.kind == kind)?;
        let address = self.bias.wrapping_add(header.address);
        (self.start..self.end).contains(&address).then_some(address)
    }

    /// True where the address lies in an executable segment.
    #[must_use]
    pub fn is_code(&self, address: usize) -> bool {
        let file_address = address.wrapping_sub(self.bias);
        let mut code =
            self.headers.iter().filter(|header| header.kind == PT_LOAD && header.flags & PF_X != 0);
        code.any(|header| file_address.wrapping_sub(header.address) < header.memory_size)
    }

    /// The GNU build-id, empty where there is none.
    #[must_use]
    pub fn build_id(&self) -> &'static [u8] {
        for header in self.headers.iter().filter(|header| header.kind == PT_NOTE) {
            let start = self.bias.wrapping_add(header.address);
            let Some(end) = start.checked_add(header.memory_size) else { continue };
            if start < self.start || end > self.end {
                continue;
            }
            // SAFETY: a note segment of a mapped module is part of a readable segment.
            let notes = unsafe { core::slice::from_raw_parts(start as *const u8, header.memory_size) };
            if let Some(id) = find_build_id(notes, header.align) {
                return id;
            }
        }
        &[]
    }

    /// The dynamic section.
    #[must_use]
    pub fn dynamic(&self) -> Option<Dynamic> {
        // SAFETY: the dynamic section of a mapped module.
        Some(unsafe { Dynamic::at(self.find(PT_DYNAMIC)?, self.bias) })
    }
}

/// A module's dynamic section.
#[derive(Clone, Copy, Debug)]
pub struct Dynamic {
    at: *const [usize; 2],
    bias: usize,
}

impl Dynamic {
    /// # Safety
    /// `at` must be the dynamic section of a mapped module with that bias.
    #[must_use]
    pub const unsafe fn at(at: usize, bias: usize) -> Self {
        Self { at: at as *const _, bias }
    }

    fn value(&self, tag: usize) -> Option<usize> {
        let mut at = self.at;
        loop {
            // SAFETY: a dynamic section ends with a zero tag.
            match unsafe { at.read() } {
                [0, _] => return None,
                [this, value] if this == tag => return Some(value),
                _ => at = at.wrapping_add(1),
            }
        }
    }

    /// The loader has made addresses of most entries; where the section is read-only they are the file's.
    fn address(&self, tag: usize) -> Option<usize> {
        let value = self.value(tag)?;
        Some(if value < self.bias { self.bias.wrapping_add(value) } else { value })
    }

    fn string(&self, offset: usize) -> Option<&'static CStr> {
        // SAFETY: an offset into the string table of a mapped module leads to a C string.
        Some(unsafe { CStr::from_ptr((self.address(DT_STRTAB)? + offset) as *const _) })
    }

    /// The module's own name.
    #[must_use]
    pub fn soname(&self) -> Option<&'static CStr> {
        self.string(self.value(DT_SONAME)?)
    }

    /// Address of a symbol that the module defines, by its GNU hash table.
    #[must_use]
    pub fn symbol(&self, name: &CStr) -> Option<usize> {
        let table = self.address(DT_GNU_HASH)? as *const u32;
        let symbols = self.address(DT_SYMTAB)? as *const Symbol;
        let hash = name
            .to_bytes()
            .iter()
            .fold(5381_u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(byte.into()));
        // SAFETY: the layout of a GNU hash table: number of buckets, first symbol, words and shift of the filter,
        // filter, buckets, chains. A chain's last hash is odd.
        unsafe {
            let (buckets, first, filter) = (table.read(), table.add(1).read(), table.add(2).read());
            let bucket = table.add(4 + 2 * filter as usize);
            let chain = bucket.add(buckets as usize);
            let mut index = bucket.add(hash.checked_rem(buckets)? as usize).read();
            while index >= first {
                let other = chain.add((index - first) as usize).read();
                let symbol = &*symbols.add(index as usize);
                if other | 1 == hash | 1 && symbol.section != 0 && self.string(symbol.name as usize)? == name
                {
                    return Some(self.bias.wrapping_add(symbol.value));
                }
                if other & 1 != 0 {
                    return None;
                }
                index += 1;
            }
        }
        None
    }
}

#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    size: usize,
}

fn find_build_id(mut notes: &'static [u8], align: usize) -> Option<&'static [u8]> {
    let align = if align == 8 { 8 } else { 4 };
    let padded = |length: usize| length.checked_next_multiple_of(align);
    loop {
        let word =
            |at: usize| -> Option<u32> { Some(u32::from_le_bytes(notes.get(at..at + 4)?.try_into().ok()?)) };
        let (name_size, size, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let name = notes.get(12..12_usize.checked_add(name_size)?)?;
        let start = padded(12_usize.checked_add(name_size)?)?;
        let end = start.checked_add(size)?;
        let contents = notes.get(start..end)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return Some(contents);
        }
        notes = notes.get(padded(end)?..)?;
    }
}
