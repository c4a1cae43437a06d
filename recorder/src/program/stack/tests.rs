//! Captures of real stacks, compared with libgcc's unwinder.

use super::*;
use core::arch::naked_asm;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

mod exotic;
mod guesses;
mod libraries;
mod paths;
mod roots;
mod signals;

/// All nodes that any test has recorded: id -> (key, parent).
static NODES: Mutex<Option<HashMap<u32, (u64, u32)>>> = Mutex::new(None);

/// Takes records as a thread's buffer would.
#[derive(Default)]
pub struct Log {
    pub nodes: Vec<(u8, u64, u32, u32)>,
    pub modules: Vec<(u32, u64, u64, String, usize)>,
    pub gone: Vec<(u32, u64)>,
}

impl Sink for Log {
    fn node(&mut self, kind: u8, operand: u64, id: u32, parent: u32) {
        self.nodes.push((kind, operand, id, parent));
        let mut nodes = NODES.lock().unwrap();
        let old = nodes.get_or_insert_default().insert(id, (record::head(kind, operand), parent));
        assert_eq!(old, None);
    }

    fn module(&mut self, module: &Module<'_>) {
        let path = String::from_utf8_lossy(module.path).into_owned();
        self.modules.push((module.generation, module.start, module.end, path, module.build_id.len()));
    }

    fn modules_gone(&mut self, new_generation: u32, start: u64) {
        self.gone.push((new_generation, start));
    }
}

/// A stack by its id: kinds and pcs from the leaf to the outermost frame, and whether it is truncated.
pub fn resolve(mut id: u32) -> (Vec<(u8, u64)>, bool) {
    let (mut frames, mut truncated) = (Vec::new(), false);
    let nodes = NODES.lock().unwrap();
    let nodes = nodes.as_ref().unwrap();
    loop {
        let (key, parent) = nodes[&id];
        match record::kind_of(key) {
            kind::NODE_ROOT => return (frames, truncated),
            kind::NODE_TRUNCATED => truncated = true,
            kind => frames.push((kind, record::operand(key))),
        }
        id = parent;
    }
}

thread_local! {
    static STATE: RefCell<Box<[u64; 64]>> = RefCell::new(Box::new([0; 64]));
    static LOG: RefCell<Log> = RefCell::default();
}

const _: () = assert!(size_of::<StackState>() <= 512);

/// Captures with this thread's state.
pub fn capture(entry: Entry) -> u32 {
    STATE.with_borrow_mut(|state| {
        LOG.with_borrow_mut(|log| {
            // SAFETY: the state is this thread's, zero at first, and not in use; `entry` comes from a hook's stub.
            unsafe { StackState::capture(state.as_mut_ptr().cast(), entry, log) }
        })
    })
}

/// Stands for a hook: passes its entry on, as the real stubs do.
///
/// Returns what `captured` returns.
#[unsafe(naked)]
pub extern "C" fn hook() -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "mov rdi, rsp",
        "mov rsi, rbp",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {inner}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
        inner = sym captured,
    )
}

/// What libgcc sees from the hook's caller on: (ip, whether it is exact).
fn libgcc_frames(entry: Entry) -> Vec<u64> {
    let mut frames = Vec::new();
    // SAFETY: the word that the stub has pointed out.
    let first = unsafe { (entry.sp as *const usize).read() };
    let mut started = false;
    backtrace::trace(|frame| {
        let ip = frame.ip() as usize;
        started |= ip == first && frame.sp() as usize == entry.sp + 8;
        if started {
            frames.push(ip as u64);
        }
        true
    });
    frames
}

static MISMATCHES: AtomicU32 = AtomicU32::new(0);
static CAPTURES: AtomicUsize = AtomicUsize::new(0);

/// Captures, compares with libgcc, and returns (depth << 32 | id).
unsafe extern "C" fn captured(sp: usize, bp: usize) -> u64 {
    let entry = Entry { sp, bp };
    let id = capture(entry);
    CAPTURES.fetch_add(1, Ordering::Relaxed);
    let (frames, _) = resolve(id);
    let mut expected = libgcc_frames(entry);
    // libgcc shows a last frame without tables; so do we. It also shows a frame for a null return address in
    // some versions.
    while expected.last() == Some(&0) {
        expected.pop();
    }
    // It does not guess: it ends where the tables end.
    let known = frames.iter().take_while(|frame| frame.0 != kind::NODE_GUESSED);
    let mine: Vec<u64> = known.map(|frame| frame.1).collect();
    if mine != expected {
        MISMATCHES.fetch_add(1, Ordering::Relaxed);
        eprintln!("mine {mine:#x?}\nlibgcc {expected:#x?}");
        std::process::abort();
    }
    (frames.len() as u64) << 32 | u64::from(id)
}

fn depth(result: u64) -> u64 {
    result >> 32
}

#[inline(never)]
fn recurse(levels: u64) -> u64 {
    if levels == 0 {
        return core::hint::black_box(hook());
    }
    core::hint::black_box(recurse(core::hint::black_box(levels - 1)))
}

#[test]
fn equal_stacks_have_equal_ids() {
    // Another test may end a generation meanwhile, and then everything has new ids.
    loop {
        let generation = modules::generation();
        let mut ids = Vec::new();
        // A loop that the compiler does not unroll: it is to be the same call each time.
        for _ in 0..core::hint::black_box(5) {
            ids.push(core::hint::black_box(hook()));
        }
        let other = core::hint::black_box(hook());
        if generation == modules::generation() {
            assert!(ids.iter().all(|id| *id == ids[0]));
            assert_ne!(ids[0] as u32, other as u32);
            assert_eq!(depth(ids[0]), depth(other));
            break;
        }
    }
}

#[test]
fn recursion() {
    let base = depth(recurse(0));
    for levels in [1, 7, 100, 1000] {
        assert_eq!(depth(recurse(levels)), base + levels);
    }
}

/// More equal inner frames than the memo holds, below different outer ones.
#[test]
fn equal_inner_frames_below_others() {
    #[inline(never)]
    fn twin(bits: u32, levels: u32, below: u64) -> u64 {
        match (levels, bits & 1) {
            (0, _) => core::hint::black_box(recurse(below)),
            (_, 0) => core::hint::black_box(twin(bits >> 1, levels - 1, below)),
            _ => core::hint::black_box(twin(bits >> 1, levels - 1, below)),
        }
    }
    let mut seed = 1_u32;
    for round in 0..2000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        assert_ne!(twin(seed >> 29, 3, round / 100), 0);
    }
}

#[test]
fn stacks_reach_the_start_of_the_thread() {
    let id = recurse(3) as u32;
    let (frames, truncated) = resolve(id);
    assert!(!truncated);
    assert!(frames.iter().all(|frame| frame.0 == kind::NODE));
    assert!(frames.len() > 8);
}

#[test]
fn modules_are_recorded_before_their_nodes() {
    let mut log = Log::default();
    startup_modules(&mut log);
    let id = recurse(1) as u32;
    let (frames, _) = resolve(id);
    LOG.with_borrow(|mine| {
        // Other tests may have met the modules first; then they are recorded there.
        for (_, start, end, path, build_id) in log.modules.iter().chain(&mine.modules) {
            assert!(start < end && !path.is_empty());
            assert!(*build_id == 20 || path.contains("vdso") || *build_id == 0);
        }
    });
    for (_, pc) in frames {
        let (module, recorded) = modules::find(pc as usize - 1, None).unwrap();
        assert!(recorded && (module.start..module.end).contains(&(pc as usize)));
    }
}

#[test]
fn very_deep_recursion() {
    std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(|| {
            // Without libgcc, which would take long.
            #[inline(never)]
            fn deep(levels: u64) -> u64 {
                if levels == 0 {
                    return core::hint::black_box(signals::bare_hook());
                }
                core::hint::black_box(deep(core::hint::black_box(levels - 1)))
            }
            // The shallow stacks between are recalled from a memory that has moved meanwhile.
            let mut base = None;
            for levels in [0, 0, 3000, 0, 20_000, 0, 100_000, 0] {
                let (frames, truncated) = resolve(deep(levels) as u32);
                assert!(!truncated);
                let base = *base.get_or_insert(frames.len());
                assert_eq!(frames.len(), base + levels as usize);
            }
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn threads_share_the_trie() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for levels in 0..200 {
                    // As above.
                    let ids: Vec<u64> = (0..core::hint::black_box(2)).map(|_| recurse(levels)).collect();
                    assert_eq!(resolve(ids[0] as u32), resolve(ids[1] as u32));
                }
            });
        }
    });
}

#[test]
fn rules_exist_for_the_vdso() {
    // SAFETY: reads the auxiliary vector.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    let module = modules::find(vdso + 64, Some(&mut Log::default())).expect("the vdso is a module").0;
    assert_eq!(module.start, vdso);
    let tables = cfi::Tables::of(&module).unwrap();
    let covered = (vdso..module.end).filter(|address| tables.fde(*address).is_some()).count();
    assert!(covered > 100);
}

/// A forked child has an empty trie, and records roots and modules for its own stream.
#[test]
fn forked_children_start_afresh() {
    static FRESH: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];
    extern "C" fn in_child(sp: usize, bp: usize) {
        let mut log = Bare::default();
        // SAFETY: a zero state of nobody else's, and a hook's entry.
        let id = unsafe { StackState::capture(FRESH.as_ptr().cast_mut().cast(), Entry { sp, bp }, &mut log) };
        let fine =
            log.modules > 1 && log.modules_before_nodes && log.nodes > 3 && id == log.last && id == log.nodes;
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!fine)) };
    }
    assert_ne!(recurse(3), 0);
    // SAFETY: the child calls nothing that needs a lock.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            reset_after_fork();
            signals::with_entry(in_child);
        }
        let mut status = -1;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert_eq!(status, 0);
    }
}

/// A sink that needs no memory.
#[derive(Default)]
struct Bare {
    nodes: u32,
    last: u32,
    modules: u32,
    modules_before_nodes: bool,
}

impl Sink for Bare {
    fn node(&mut self, kind: u8, _operand: u64, id: u32, _parent: u32) {
        if self.nodes == 0 {
            self.modules_before_nodes = self.modules > 0 && kind == kind::NODE_ROOT;
        }
        self.nodes += 1;
        self.last = id;
    }

    fn module(&mut self, _module: &Module<'_>) {
        self.modules += 1;
    }

    fn modules_gone(&mut self, _new_generation: u32, _start: u64) {}
}

#[test]
fn stale_states_can_be_released() {
    let mut state = [0_u64; 64];
    // SAFETY: zero bytes are a valid state.
    unsafe {
        StackState::release(state.as_mut_ptr().cast());
        assert!(state.iter().all(|word| *word == 0));
    }
    recurse(5);
    STATE.with_borrow_mut(|state| {
        // SAFETY: not in use.
        unsafe { StackState::release(state.as_mut_ptr().cast()) };
    });
    recurse(5);
}
