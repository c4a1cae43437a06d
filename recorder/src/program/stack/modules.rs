//! The modules (mapped ELF files) that stacks have met, and their generations.
//!
//! A module is met when a pc misses the rule cache: the loader is asked, the module joins the table and is recorded
//! as `MODULE` before any rule for its code is cached, so before any node can hold a pc of it. (Two threads
//! that meet it at once may both record it: a reader sees the same module twice.)
//!
//! The table never shrinks and is read without locks. Each slot is a small seqlock: its version says whether it is
//! free, being written or live, and counts up, so that a reader notices a change under its hands.
//!
//! **Generations.** When a module is unloaded, its addresses can come to mean something else. The loader frees
//! its own blocks through our `free`; then [`check_unloaded`] asks about every known module. For each one that went a
//! new generation begins: the rule cache is emptied, stacks get a new root, and the modules that are left belong
//! to the new generation too.
//!
//! **Fork.** A child records into a stream of its own, so it has to announce the modules again. It knows that by
//! the epoch: see [`new_image`].

use super::cache::CACHE;
use super::elf::{self, Image};
use super::loader::{self, LinkMap, Object};
use super::{Sink, maps};
use crate::hot::HOT;
use crate::sys::{file, memory};
use core::ffi::CStr;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
use memscope_shared::record;

const CHUNK: usize = 64;
const CHUNKS: usize = 256;

const STATE_MASK: u32 = 3;
const FREE: u32 = 0;
const BUSY: u32 = 1;
const LIVE: u32 = 2;

/// A module as the unwinder needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// First mapped address.
    pub start: usize,
    /// First address behind it.
    pub end: usize,
    /// Difference between addresses in memory and in the file.
    pub bias: usize,
    /// `.eh_frame_hdr`, 0 where there is none.
    pub eh_frame_hdr: usize,
    /// The loader's `struct link_map`, 0 where it is not known.
    link_map: usize,
}

#[repr(align(64))]
struct Slot {
    version: AtomicU32,
    /// The epoch in which it was recorded.
    announced: AtomicU32,
    start: AtomicUsize,
    end: AtomicUsize,
    bias: AtomicUsize,
    eh_frame_hdr: AtomicUsize,
    link_map: AtomicUsize,
    /// The last walk over the loader's list that met it.
    seen: AtomicUsize,
}

const _: () = assert!(size_of::<Slot>() == 64);

impl Slot {
    const fn new() -> Self {
        Self {
            version: AtomicU32::new(FREE),
            announced: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            bias: AtomicUsize::new(0),
            eh_frame_hdr: AtomicUsize::new(0),
            link_map: AtomicUsize::new(0),
            seen: AtomicUsize::new(0),
        }
    }

    fn read(&self) -> Option<Module> {
        let version = self.version.load(Ordering::Acquire);
        if version & STATE_MASK != LIVE {
            return None;
        }
        let module = Module {
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            bias: self.bias.load(Ordering::Relaxed),
            eh_frame_hdr: self.eh_frame_hdr.load(Ordering::Relaxed),
            link_map: self.link_map.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == version).then_some(module)
    }

    /// Takes the slot from one state into [`BUSY`].
    fn seize(&self, from: u32) -> bool {
        let version = self.version.load(Ordering::Relaxed);
        let busy = (version & !STATE_MASK).wrapping_add(4) | BUSY;
        version & STATE_MASK == from
            && self.version.compare_exchange(version, busy, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Leaves [`BUSY`].
    fn release(&self, to: u32) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store((version & !STATE_MASK) | to, Ordering::Release);
    }

    fn write(&self, module: &Module) {
        self.announced.store(0, Ordering::Relaxed);
        self.start.store(module.start, Ordering::Relaxed);
        self.end.store(module.end, Ordering::Relaxed);
        self.bias.store(module.bias, Ordering::Relaxed);
        self.eh_frame_hdr.store(module.eh_frame_hdr, Ordering::Relaxed);
        self.link_map.store(module.link_map, Ordering::Relaxed);
        self.seen.store(PASS.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

static FIRST: [Slot; CHUNK] = [const { Slot::new() }; CHUNK];
static MORE: [AtomicPtr<Slot>; CHUNKS] = [const { AtomicPtr::new(null_mut()) }; CHUNKS];
static NEXT: AtomicU32 = AtomicU32::new(2);
static EPOCH: AtomicU32 = AtomicU32::new(1);
static PASS: AtomicUsize = AtomicUsize::new(0);

/// The generation of now; the first is 1.
#[inline(always)]
#[must_use]
pub fn generation() -> u32 {
    HOT.generation.load(Ordering::Acquire)
}

/// The process goes on in a new image with streams of its own: all modules are to be recorded again.
pub fn new_image() {
    EPOCH.fetch_add(1, Ordering::AcqRel);
}

fn slots() -> impl Iterator<Item = &'static Slot> {
    let more = MORE.iter().map(|chunk| chunk.load(Ordering::Acquire)).take_while(|chunk| !chunk.is_null());
    // SAFETY: a chunk is mapped for good and holds `CHUNK` slots, for which zero bytes are valid.
    FIRST.iter().chain(more.flat_map(|chunk| unsafe { core::slice::from_raw_parts(chunk, CHUNK) }))
}

/// Makes room for more slots; false where there is none.
fn grow() -> bool {
    let Some(end) = MORE.iter().find(|chunk| chunk.load(Ordering::Acquire).is_null()) else { return false };
    let bytes = CHUNK * size_of::<Slot>();
    let Ok(fresh) = memory::map_private(bytes) else { return false };
    if end.compare_exchange(null_mut(), fresh.cast(), Ordering::AcqRel, Ordering::Relaxed).is_err() {
        // SAFETY: nobody else has seen the fresh mapping.
        let _ = unsafe { memory::unmap(fresh, bytes) };
    }
    true
}

/// The module of an address, and whether it is recorded. It is recorded now if there is a sink.
#[cold]
pub fn find(address: usize, sink: Option<&mut dyn Sink>) -> Option<(Module, bool)> {
    let module = if loader::can_find_objects() {
        from_object(&loader::find_object(address)?)
    } else {
        known(address).or_else(|| from_maps(address))?
    };
    let slot = slots().find(|slot| slot.read() == Some(module));
    let recorded = |slot: &Slot| slot.announced.load(Ordering::Acquire) == EPOCH.load(Ordering::Relaxed);
    if slot.is_some_and(recorded) {
        return Some((module, true));
    }
    let Some(sink) = sink else { return Some((module, false)) };
    if slot.is_none() {
        retire_overlapping(&module, sink);
    }
    let slot = slot.or_else(|| insert(&module));
    announce(&module, sink);
    if let Some(slot) = slot {
        slot.announced.store(EPOCH.load(Ordering::Relaxed), Ordering::Release);
    }
    Some((module, true))
}

/// Records every known module that is not recorded yet in this image.
#[cold]
pub fn announce_all(sink: &mut dyn Sink) {
    let epoch = EPOCH.load(Ordering::Relaxed);
    for slot in slots() {
        if let Some(module) = slot.read()
            && slot.announced.swap(epoch, Ordering::AcqRel) != epoch
        {
            announce(&module, sink);
        }
    }
}

fn known(address: usize) -> Option<Module> {
    slots().filter_map(Slot::read).find(|module| (module.start..module.end).contains(&address))
}

fn insert(module: &Module) -> Option<&'static Slot> {
    loop {
        if let Some(slot) = slots().find(|slot| slot.seize(FREE)) {
            slot.write(module);
            slot.release(LIVE);
            return Some(slot);
        }
        if !grow() {
            return None;
        }
    }
}

fn from_object(object: &Object) -> Module {
    // SAFETY: the loader's `link_map` of a loaded module, which starts with these fields.
    let bias = unsafe { (*(object.link_map as *const LinkMap)).bias };
    Module {
        start: object.start,
        end: object.end,
        bias,
        eh_frame_hdr: object.eh_frame_hdr,
        link_map: object.link_map,
    }
}

fn from_image(image: &Image, start: usize, end: usize) -> Module {
    let eh_frame_hdr = image.find(elf::PT_GNU_EH_FRAME).unwrap_or(0);
    Module { start, end, bias: image.bias, eh_frame_hdr, link_map: 0 }
}

/// For a C library without `_dl_find_object`: the file whose mappings surround the address.
#[cold]
fn from_maps(address: usize) -> Option<Module> {
    let (mut start, mut inode, mut found) = (0, 0, false);
    maps::visit(|mapping| {
        if mapping.inode == 0 || mapping.inode != inode {
            (start, inode) = (mapping.start, mapping.inode);
        }
        found = (mapping.start..mapping.end).contains(&address)
            && mapping.executable
            && (mapping.inode != 0 || mapping.path == b"[vdso]");
        mapping.end <= address
    });
    if !found {
        return None;
    }
    // SAFETY: a mapped file or the vdso; should it be no ELF file, then nothing but its first page is read.
    let end = unsafe { Image::at(start, usize::MAX) }?.loaded_end().next_multiple_of(memory::PAGE);
    // SAFETY: the same with its true end.
    Some(from_image(&unsafe { Image::at(start, end) }?, start, end))
}

/// Records the module.
#[cold]
fn announce(module: &Module, sink: &mut dyn Sink) {
    // SAFETY: the module is mapped: it was found through a pc on a stack, and is not unloaded while its code runs.
    let image = unsafe { Image::at(module.start, module.end) };
    let build_id = image.map_or(&[][..], |image| image.build_id());
    with_path(module, |path| {
        sink.module(&record::Module {
            generation: generation(),
            start: module.start as u64,
            end: module.end as u64,
            bias: module.bias as u64,
            build_id: build_id.get(..record::MAX_BUILD_ID).unwrap_or(build_id),
            path: path.get(..record::MAX_PATH).unwrap_or(path),
        });
    });
}

fn with_path(module: &Module, then: impl FnOnce(&[u8])) {
    if module.link_map != 0 {
        // SAFETY: the loader's `link_map` of a loaded module; its name is a C string.
        let name = unsafe { CStr::from_ptr((*(module.link_map as *const LinkMap)).name) };
        if !name.is_empty() {
            return then(name.to_bytes());
        }
        return with_program_path(then);
    }
    let mut then = Some(then);
    maps::visit(|mapping| {
        let here = (mapping.start..mapping.end).contains(&module.start);
        if here && let Some(then) = then.take() {
            then(mapping.path);
        }
        !here
    });
    if let Some(then) = then {
        then(b"");
    }
}

fn with_program_path(then: impl FnOnce(&[u8])) {
    let Ok(page) = memory::map_private(record::MAX_PATH) else { return then(b"") };
    // SAFETY: a fresh mapping of that length, unmapped only below.
    let buffer = unsafe { core::slice::from_raw_parts_mut(page, record::MAX_PATH) };
    let length = file::read_link(c"/proc/self/exe", buffer).unwrap_or(0);
    then(buffer.get(..length).unwrap_or(b""));
    // SAFETY: nobody uses the buffer any more.
    let _ = unsafe { memory::unmap(page, record::MAX_PATH) };
}

/// A live slot where another module is now: its unloading was not noticed.
fn retire_overlapping(module: &Module, sink: &mut dyn Sink) {
    for slot in slots() {
        if slot.read().is_some_and(|old| old.start < module.end && module.start < old.end && old != *module) {
            retire(slot, sink);
        }
    }
}

/// Begins a new generation, without the slot's module.
#[cold]
fn retire(slot: &Slot, sink: &mut dyn Sink) {
    if !slot.seize(LIVE) {
        return;
    }
    let start = slot.start.load(Ordering::Relaxed);
    slot.release(FREE);
    let new = NEXT.fetch_add(1, Ordering::AcqRel);
    sink.modules_gone(new, start as u64);
    HOT.generation.fetch_max(new, Ordering::AcqRel);
    CACHE.clear();
}

/// Looks whether any known module was unloaded. To be called when the loader frees something.
#[cold]
pub fn check_unloaded(sink: &mut dyn Sink) {
    if loader::can_find_objects() {
        for slot in slots() {
            if let Some(module) = slot.read()
                && loader::find_object(module.start).map(|object| from_object(&object)) != Some(module)
            {
                retire(slot, sink);
            }
        }
        return;
    }
    // An older C library. The caller is the loader, which holds its own lock, so asking it can't block.
    let pass = PASS.fetch_add(1, Ordering::AcqRel) + 1;
    visit_loaded(|module| {
        for slot in slots() {
            if slot.read().is_some_and(|known| known.start == module.start) {
                slot.seen.store(pass, Ordering::Relaxed);
            }
        }
    });
    for slot in slots() {
        if slot.read().is_some() && slot.seen.load(Ordering::Relaxed) < pass {
            retire(slot, sink);
        }
    }
}

/// Meets every module that is loaded now. Takes the loader's lock: for the constructor.
#[cold]
pub fn meet_loaded(sink: &mut dyn Sink) {
    visit_loaded(|module| {
        if loader::can_find_objects() {
            find(module.start, Some(&mut *sink));
        } else if known(module.start).is_none()
            && let Some(slot) = insert(module)
        {
            announce(module, sink);
            slot.announced.store(EPOCH.load(Ordering::Relaxed), Ordering::Release);
        }
    });
}

fn visit_loaded<F: FnMut(&Module)>(mut visit: F) {
    unsafe extern "C" fn each<F: FnMut(&Module)>(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        visit: *mut core::ffi::c_void,
    ) -> i32 {
        // SAFETY: the loader passes its description of a loaded module, with its program headers.
        let (bias, headers) = unsafe {
            let info = &*info;
            let headers = info.dlpi_phdr.cast::<elf::ProgramHeader>();
            (info.dlpi_addr as usize, core::slice::from_raw_parts(headers, info.dlpi_phnum.into()))
        };
        let loads = || headers.iter().filter(|header| header.kind == elf::PT_LOAD);
        let start = loads().map(|header| header.address & !4095).min();
        let end = loads().map(|header| header.address + header.memory_size).max();
        if let (Some(start), Some(end)) = (start, end) {
            let eh_frame_hdr = headers.iter().find(|header| header.kind == elf::PT_GNU_EH_FRAME);
            let module = Module {
                start: bias.wrapping_add(start),
                end: bias.wrapping_add(end).next_multiple_of(memory::PAGE),
                bias,
                eh_frame_hdr: eh_frame_hdr.map_or(0, |header| bias.wrapping_add(header.address)),
                link_map: 0,
            };
            // SAFETY: the pointer that `visit_loaded` has passed, to a closure that is alive and not in use.
            unsafe { (*visit.cast::<F>())(&module) };
        }
        0
    }
    // SAFETY: `each` is called with the pointer to `visit` only during this call.
    unsafe { libc::dl_iterate_phdr(Some(each::<F>), (&raw mut visit).cast()) };
}
