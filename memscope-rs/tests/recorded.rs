//! Together with the interposer: the real allocations have the names of the variables that own them.

#[path = "harness/example.rs"]
mod example;

use example::example;
use memscope_tests::recording::{analyze, report};
use memscope_tests::snapshot::Allocation;
use memscope_tests::{Process, Record, Snapshot};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Address and size of blocks by what the program calls them.
type Said = HashMap<String, (u64, u64)>;

/// What the program `named` does on one thread, recorded once for several tests: its process, and what it said.
static PLAIN: LazyLock<(Process, Said)> = LazyLock::new(|| {
    let recorded = named("").success();
    (recorded.process(), said(&recorded.ran.stdout))
});

/// The program `named`, recorded.
fn named(part: &str) -> Record {
    Record::new([example("named").into_os_string(), part.into()])
}

fn variable(allocation: &Allocation) -> Option<&str> {
    allocation.var_name.as_deref()
}

/// All blocks of a variable, in order of their starts.
fn blocks<'a>(process: &'a Process, name: &str) -> Vec<&'a Allocation> {
    process.allocations.iter().filter(|allocation| variable(allocation) == Some(name)).collect()
}

/// The one block of a size, which has this name.
#[track_caller]
fn expect(process: &Process, size: u64, name: &str, type_name: &str, scope: &str) {
    let block = process.one_sized(size);
    let found = [&block.var_name, &block.type_name, &block.scope_name].map(|text| text.as_deref());
    assert_eq!(found, [Some(name), Some(type_name), Some(scope)]);
}

/// What the program says about its blocks.
fn said(stdout: &[u8]) -> Said {
    let stdout = std::str::from_utf8(stdout).unwrap();
    let lines = stdout.lines().map(|line| {
        let mut words = line.rsplitn(3, ' ');
        let (size, address) =
            (words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap());
        (words.next().unwrap().to_owned(), (address, size))
    });
    lines.collect()
}

/// Names of the last block that had an address and a size.
fn name_at(process: &Process, (address, size): (u64, u64)) -> Option<&str> {
    let found = process.allocations.iter().rev().find(|a| (a.ptr, a.size) == (address, size));
    variable(found.expect("the block is recorded"))
}

#[test]
fn a_vectors_blocks_are_named_through_realloc_and_replacement() {
    let (process, said) = &*PLAIN;
    let vec = blocks(process, "my_vec");
    assert_eq!(name_at(process, said["first"]), Some("my_vec"));
    assert_eq!(name_at(process, said["replaced"]), Some("my_vec"));
    assert_eq!(name_at(process, said["unnamed"]), None);
    // 8008 bytes, doubled until 6001 numbers fit, shrunk; and the one that replaced it.
    let sizes: Vec<_> = vec.iter().map(|block| block.size).collect();
    assert_eq!(sizes, [8008, 16016, 32032, 64064, 48008, 1777 * 8]);
    let ends: Vec<_> = vec.iter().map(|block| block.freed_by.as_str()).collect();
    assert_eq!(ends, ["realloc", "realloc", "realloc", "realloc", "free", "free"]);
    assert!(vec.iter().all(|block| block.type_name.as_deref() == Some("alloc::vec::Vec<u64>")));
    assert!(vec.iter().all(|block| block.scope_name.as_deref() == Some("named")));
}

#[test]
fn variables_are_summed_up() {
    let (process, _) = &*PLAIN;
    let vec = process.variables.iter().find(|variable| variable.var_name == "my_vec").expect("my_vec");
    assert_eq!(
        (vec.type_name.as_deref(), vec.scope_name.as_deref()),
        (Some("alloc::vec::Vec<u64>"), Some("named"))
    );
    assert_eq!((vec.allocations, vec.active_allocations, vec.active_memory), (6, 0, 0));
    // One block follows the other, but that the replacing one is there before the shrunk one goes.
    assert_eq!(vec.peak_memory, 64064);
    let peaks: Vec<u64> = process.variables.iter().map(|variable| variable.peak_memory).collect();
    assert!(peaks.is_sorted_by(|a, b| a >= b), "{peaks:?}");
}

#[test]
fn every_report_lists_the_variables() {
    let recorded = named("").success();
    let variables = recorded.process().variables;
    let text = report(&recorded.dir()).success().out();
    let title = format!("Named variables by their peak (10 of {} variables)", variables.len());
    let section = text.split_once(&title).unwrap_or_else(|| panic!("{title}\n{text}")).1;
    for (variable, lines) in
        variables.iter().take(10).zip(section.lines().skip(1).collect::<Vec<_>>().chunks(2))
    {
        assert!(lines[0].contains(&format!("  {} block", variable.allocations)), "{lines:?}");
        assert!(lines[1].trim_start().starts_with(&variable.var_name), "{lines:?}");
    }
    let html = recorded.folder.path().join("report.html");
    let _ = analyze(&recorded.dir(), &html, &[]).success();
    let page = std::fs::read_to_string(html).expect("a page");
    assert!(page.contains(&format!("\"all_variables\":{}", variables.len())), "the page's data have them");
    // From the snapshot, the same.
    assert_eq!(report(&recorded.dir().join("snapshot.json")).success().out(), text);
}

#[test]
fn every_kind_of_owner_is_named() {
    let (process, _) = &*PLAIN;
    expect(process, 3001, "text", "alloc::string::String", "owners");
    expect(process, 3011, "boxed", "alloc::boxed::Box<[u8; 3011]>", "owners");
    expect(process, 3019 + 16 + 5, "Rc::new([7_u8; 3019])", "alloc::rc::Rc<[u8; 3019]>", "owners");
    expect(process, 3041 + 16 + 7, "Arc::new([7_u8; 3041])", "alloc::sync::Arc<[u8; 3041]>", "owners");
    let option = "Some(vec![7_u8; 3037])";
    expect(process, 3037, option, "core::option::Option<alloc::vec::Vec<u8>>", "owners");
    let ring = "alloc::collections::vec_deque::VecDeque<u8>";
    expect(process, 3301, "VecDeque::with_capacity(3301)", ring, "named");
    expect(process, 3307, "Session { id: 1, packets: vec![1; 3307] }", "named::Session", "named");
    let map = blocks(process, "HashMap::new()");
    let largest = map.iter().map(|block| block.size).max();
    assert_eq!(largest, Some(32768 * 9 + 16), "the table of 20,000 entries is named");
    assert!(map.len() > 5, "and those that it grew out of: {}", map.len());
    assert_eq!(blocks(process, "BTreeMap::new()").len(), 1);
}

#[test]
fn blocks_that_are_given_away_hand_no_name_on() {
    let (process, said) = &*PLAIN;
    assert_eq!(variable(process.one_sized(4001)), Some("vec![1_u8; 4001]"));
    assert_eq!(name_at(process, said["after into_inner"]), None);
    assert_eq!(variable(process.one_sized(4111)), Some("vec![1_u8; 4111]"));
    assert_eq!(variable(process.one_sized(4127)), Some("vec![1_u8; 4111]"));
    assert_eq!(name_at(process, said["after take"]), None);
}

#[test]
fn no_block_has_anothers_name_across_threads() {
    let process = named("threads").success().process();
    let count = |size, name| process.sized(size).iter().filter(|block| variable(block) == name).count();
    assert_eq!(count(5003, None), 4_000, "what was not tracked has no name");
    assert_eq!(count(5009, Some("vec![1_u8; 5009]")), 4_000);
    // Between threads a name may be missing, where the clocks leave open whose it is.
    let handed_over = count(5011, Some("handed_over"));
    assert_eq!(handed_over + count(5011, None), 4_000);
    assert!(handed_over > 1_000, "{handed_over}");
}

#[test]
fn names_survive_a_kill() {
    let snapshot = named("kill").run().snapshot();
    let process = &snapshot.processes[0];
    assert_eq!((process.end.as_str(), process.signal), ("signal", Some(9)));
    let block = process.one_sized(6007);
    assert_eq!((variable(block), block.freed_by.as_str()), (Some("vec![1_u8; 6007]"), "exit"));
}

#[test]
fn a_forked_child_names_in_its_own_recording() {
    let snapshot: Snapshot = named("fork").success().snapshot();
    assert_eq!(snapshot.processes.len(), 2);
    for process in &snapshot.processes {
        assert_eq!(variable(process.one_sized(7013)), Some("vec![1_u8; size]"), "{}", process.pid);
    }
    assert_eq!(variable(snapshot.processes[0].one_sized(7001)), Some("vec![1_u8; size]"));
}

#[test]
fn the_recording_is_the_export() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.json");
    let _recorded = named("").env("MEMSCOPE_EXPORT_PATH", &own).success();
    assert!(!own.exists(), "nobody asked for it");
    let recorded = named("export").env("MEMSCOPE_EXPORT_PATH", &own).success();
    assert!(own.exists());
    assert!(!blocks(&recorded.process(), "my_vec").is_empty());
}
