//! From a pc to its rule: module, `.eh_frame_hdr`, entry, row.
//!
//! `.eh_frame_hdr` is a table of (function, entry) pairs sorted by address, which the linker makes for unwinders:
//!
//! ```text
//! +---+-----+-------+-------+------------------+-------+------------------------------------+
//! | 1 | enc | enc   | enc   | .eh_frame (enc)  | count | (function, entry) x count          |
//! +---+-----+-------+-------+------------------+-------+------------------------------------+
//!       of ptr, count, table                            each an i32 relative to the table's start
//! ```
//!
//! All linkers use these encodings; with others the entries are walked one by one. Then gimli decodes the entry and
//! [`super::row`] executes it.

use super::cache::CACHE;
use super::row::{self, Bytes, Fde, Frames, Row};
use super::rule::{Kind, Rule};
use super::{Sink, elf, executable, modules};
use gimli::{BaseAddresses, CieOrFde, EhFrame, EhFrameOffset, LittleEndian, UnwindSection};
use modules::Module;

const PCREL_SDATA4: u8 = 0x1b;
const UDATA4: u8 = 0x03;
const DATAREL_SDATA4: u8 = 0x3b;

/// The rule for an address that the cache doesn't know. It is cached if its module is recorded, which needs a sink.
#[cold]
#[inline(never)]
pub fn find_rule(address: usize, generation: u32, sink: Option<&mut dyn Sink>) -> Rule {
    let (rule, keep) = match modules::find(address, sink) {
        Some((module, recorded)) => (module_rule(&module, address), recorded),
        None => (foreign_rule(address), true),
    };
    if keep && generation == modules::generation() {
        CACHE.put(address, generation, rule);
    }
    rule
}

fn module_rule(module: &Module, address: usize) -> Rule {
    let tables = Tables::of(module);
    if let Some(rule) = tables.as_ref().and_then(|tables| tables.rule(address)) {
        return rule;
    }
    // SAFETY: the loader has the module mapped, as a pc of it is on a stack.
    match unsafe { elf::Image::at(module.start, module.end) } {
        Some(image) if !image.is_code(address) => Rule::plain(Kind::NotCode),
        Some(image) if is_loaders_entry(&image, address) => Rule::plain(Kind::End),
        _ => match uncovered_rule(address) {
            rule if rule.kind() == Kind::Unknown
                && tables.is_some_and(|tables| tables.begin_behind(address)) =>
            {
                Rule::plain(Kind::BeforeRoot)
            }
            rule => rule,
        },
    }
}

/// The loader's first instructions, which the kernel starts a process with, have no tables on older C libraries:
/// constructors are called from there.
fn is_loaders_entry(image: &elf::Image, address: usize) -> bool {
    const LENGTH: usize = 0x40;
    super::is_loader(address) && image.entry().is_some_and(|entry| address.wrapping_sub(entry) < LENGTH)
}

fn foreign_rule(address: usize) -> Rule {
    if executable::contains(address) { uncovered_rule(address) } else { Rule::plain(Kind::NotCode) }
}

/// Executable, but without tables. A program can bring its own return from signal handlers; it looks as the
/// kernel wants it: `mov $15, %rax; syscall`.
fn uncovered_rule(address: usize) -> Rule {
    const SIGRETURN: [[u8; 9]; 2] = [
        [0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05],
        [0xb8, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x00, 0x00],
    ];
    // `address` is one less than the return address. Only bytes of the same page are looked at: it is mapped.
    let start = address.wrapping_add(1);
    let matches = |code: &[u8]| {
        start % 4096 + code.len() <= 4096
            && !start.is_multiple_of(4096)
            // SAFETY: the page of `address` is executable memory, which x86-64 can read, and all the bytes lie in it.
            && code.iter().enumerate().all(|(i, byte)| unsafe { (start as *const u8).add(i).read() } == *byte)
    };
    let [long, short] = &SIGRETURN;
    let signal = matches(long) || short.get(..7).is_some_and(matches);
    Rule::plain(if signal { Kind::Signal } else { Kind::Unknown })
}

/// A module's unwind tables.
pub struct Tables {
    frames: Frames,
    section: &'static [u8],
    bases: BaseAddresses,
    /// The sorted table: address of its first pair and number of pairs.
    sorted: Option<(usize, usize)>,
    header: usize,
}

impl Tables {
    /// The tables of a module that is loaded.
    #[must_use]
    pub fn of(module: &Module) -> Option<Self> {
        let header = module.eh_frame_hdr;
        if header < module.start || header.checked_add(12)? > module.end {
            return None;
        }
        // SAFETY: the loader's program headers place `.eh_frame_hdr` here, inside the mapped module; it has 12 bytes at
        // least.
        let (encodings, frame, count) = unsafe {
            (
                (header as *const [u8; 4]).read(),
                (header as *const i32).byte_add(4).read_unaligned(),
                (header as *const u32).byte_add(8).read_unaligned(),
            )
        };
        let [1, PCREL_SDATA4, count_encoding, table_encoding] = encodings else { return None };
        let start = (header + 4).wrapping_add_signed(frame as isize);
        let length = module.end.checked_sub(start).filter(|_| start >= module.start)?;
        // SAFETY: `.eh_frame` starts here and lies inside the module; its entries end with a terminator and are
        // never read past it, so that the slice's end need not be exact.
        let section = unsafe { core::slice::from_raw_parts(start as *const u8, length) };
        let pairs = count as usize;
        let sorted = (count_encoding == UDATA4
            && table_encoding == DATAREL_SDATA4
            && header + 12 + pairs * 8 <= module.end)
            .then_some((header + 12, pairs));
        Some(Self {
            frames: EhFrame::new(section, LittleEndian),
            section,
            bases: BaseAddresses::default().set_eh_frame(start as u64),
            sorted,
            header,
        })
    }

    /// The entry that covers an address.
    #[must_use]
    pub fn fde(&self, address: usize) -> Option<Fde> {
        let fde = match self.sorted {
            Some((table, pairs)) => self.sorted_fde(table, pairs, address),
            None => self.walked_fde(address),
        }?;
        fde.contains(address as u64).then_some(fde)
    }

    fn sorted_fde(&self, table: usize, pairs: usize, address: usize) -> Option<Fde> {
        let word = |index: usize| {
            // SAFETY: callers pass indices below two words a pair, and the pairs were checked to lie in the module.
            let relative = unsafe { (table as *const i32).add(index).read_unaligned() };
            relative as isize
        };
        let (mut low, mut high) = (0, pairs);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.header.wrapping_add_signed(word(2 * middle)) <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let entry = self.header.wrapping_add_signed(word(2 * low.checked_sub(1)? + 1));
        let offset = entry.checked_sub(self.section.as_ptr() as usize)?;
        self.frames.fde_from_offset(&self.bases, EhFrameOffset(offset), EhFrame::cie_from_offset).ok()
    }

    fn walked_fde(&self, address: usize) -> Option<Fde> {
        let mut entries = self.frames.entries(&self.bases);
        while let Ok(Some(entry)) = entries.next() {
            if let CieOrFde::Fde(partial) = entry
                && let Ok(fde) = partial.parse(EhFrame::<Bytes>::cie_from_offset)
                && fde.contains(address as u64)
            {
                return Some(fde);
            }
        }
        None
    }

    /// The row at an address.
    #[must_use]
    pub fn row(&self, fde: &Fde, address: usize) -> Option<Row> {
        row::at(&self.frames, &self.bases, fde, address)
    }

    /// The bytes of `.eh_frame`, in which a row's expressions lie.
    #[must_use]
    pub const fn section(&self) -> &'static [u8] {
        self.section
    }

    /// Whether a function begins at the next address.
    fn begin_behind(&self, address: usize) -> bool {
        let next = address.wrapping_add(1);
        self.fde(next).is_some_and(|fde| fde.initial_address() == next as u64)
    }

    fn rule(&self, address: usize) -> Option<Rule> {
        let fde = self.fde(address)?;
        let signal = fde.is_signal_trampoline();
        Some(match self.row(&fde, address) {
            Some(row) => Rule::pack(&row, self.section, address, signal),
            None => Rule::plain(Kind::Slow),
        })
    }
}
