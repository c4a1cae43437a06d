//! The terminal, the JSON and the HTML show the same numbers.

use std::path::Path;

use memscope_tests::TempDir;
use memscope_tests::recording::{analyze, report};
use memscope_tests::snapshot::Stats;
use memscope_tests::text::numbers;
use memscope_tests::{Cmd, Record, Snapshot, artifacts, program, things};
use serde_json::Value;

/// A recording with several images, leaks, failures and reallocations.
fn recorded(folder: &TempDir) -> (std::path::PathBuf, Snapshot) {
    let shell = format!(
        "{0} realloc_fails; {0} calloc_overflow; {1} 200; ls /usr",
        program::c("edges", &[]).display(),
        program::c("brief_threads", &[]).display()
    );
    let recorded = Record::new(["sh", "-c", &format!("{shell} >/dev/null; exit 0")]).success();
    let snapshot = recorded.snapshot();
    let kept = folder.path().join("rec");
    std::fs::rename(recorded.dir(), &kept).expect("the recording in its place");
    (kept, snapshot)
}

fn html(input: &Path, folder: &TempDir) -> String {
    let path = folder.path().join("out.html");
    let ran = analyze(input, &path, &[]).success();
    assert_eq!(ran.out(), "", "nothing on standard output");
    std::fs::read_to_string(path).expect("a report")
}

/// The JSON documents inside of the page.
fn documents(html: &str) -> Vec<Value> {
    html.split("<script type=\"application/json\"")
        .skip(1)
        .filter_map(|part| part.split_once('>')?.1.split_once("</script>").map(|(text, _)| text))
        .map(|text| serde_json::from_str(text).expect("JSON inside of the page"))
        .collect()
}

fn counts(stats: &Stats) -> [u64; 9] {
    [
        stats.total_allocations,
        stats.total_allocated,
        stats.total_deallocations,
        stats.total_deallocated,
        stats.active_allocations,
        stats.active_memory,
        stats.peak_memory,
        stats.peak_allocations,
        stats.threads,
    ]
}

#[test]
fn the_terminal_and_the_json() {
    let folder = TempDir::new().expect("a folder");
    let program = program::c("edges", &[]);
    for case in ["realloc_fails", "mapped_blocks", "errno_kept"] {
        let recorded = Record::new([&program]).arg(case).success();
        let stats = recorded.process().stats;
        let text = report(&recorded.dir()).success().out();
        let shown = numbers(&text);
        for value in counts(&stats) {
            assert!(shown.contains(&value.to_string()), "{case}: {value} of {stats:?} is not in\n{text}");
        }
        // A snapshot is an input as good as the recording it was made from.
        let json = folder.path().join(format!("{case}.json"));
        let _ = analyze(&recorded.dir(), &json, &[]).success();
        assert_eq!(report(&json).success().out(), text, "{case}");
    }
}

#[test]
fn the_page_and_the_json() {
    let folder = TempDir::new().expect("a folder");
    let (recording, snapshot) = recorded(&folder);
    let page = html(&recording, &folder);
    let documents = documents(&page);
    let images =
        documents.iter().find_map(|document| document["processes"].as_array()).expect("the process images");
    assert_eq!(images.len(), snapshot.processes.len());
    for (image, process) in images.iter().zip(&snapshot.processes) {
        let stats: Stats = serde_json::from_value(image["stats"].clone()).expect("the totals");
        assert_eq!(stats, process.stats);
        assert_eq!(image["pid"].as_u64(), Some(u64::from(process.pid)));
    }
    let json = folder.path().join("again.json");
    let _ = analyze(&recording, &json, &[]).success();
    let again = Snapshot::load(&json);
    assert_eq!(again.processes.len(), snapshot.processes.len());
    for (one, other) in again.processes.iter().zip(&snapshot.processes) {
        assert_eq!(one.stats, other.stats);
        assert_eq!(one.allocations.len(), other.allocations.len());
    }
    // From the snapshot: the same page.
    assert_eq!(html(&json, &folder), page);
}

/// Nothing is loaded from elsewhere.
#[test]
fn the_page_stands_alone() {
    let folder = TempDir::new().expect("a folder");
    let (recording, _) = recorded(&folder);
    let page = html(&recording, &folder);
    for loads in ["src=\"", "href=\"http", "url(http", "@import", "stylesheet", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(loads), "the page contains {loads}");
    }
}

/// What a browser makes of a page at that fragment of its address: the body's elements without the scripts. None of them may
/// complain.
fn drawn(page: &Path, fragment: &str, folder: &TempDir) -> String {
    let ran =
        Cmd::new(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .args(["--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom"])
            .arg(format!("file://{}#{fragment}", page.display()))
            .run()
            .success();
    let errors: Vec<_> =
        ran.err().lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    assert!(errors.is_empty(), "the page's scripts complain: {errors:#?}");
    let body = ran.out().split("<body").nth(1).expect("a body").to_owned();
    body.split("<script").map(|part| part.split_once("</script>").map_or(part, |(_, after)| after)).collect()
}

/// A browser draws it: without an error, with the numbers of the JSON.
#[test]
fn the_page_in_a_browser() {
    let folder = TempDir::new().expect("a folder");
    let recorded = Record::new([things::workload("churn.c")]).arg("20011").success();
    let stats = recorded.process().stats;
    let page = folder.path().join("page.html");
    let _ = analyze(&recorded.dir(), &page, &[]).success();
    let visible = drawn(&page, "", &folder);
    let shown = numbers(&visible);
    for value in [stats.total_allocations, stats.total_deallocations, stats.active_allocations] {
        assert!(shown.contains(&value.to_string()), "{value} is not shown; {shown:?}");
    }
    assert!(visible.contains("<svg") || visible.contains("<canvas"), "a timeline is drawn");
    assert!(visible.contains("level4"), "the call sites are named");
    // The list of stacks, filtered: it says what matches comes to, and by what stacks of one place differ.
    let stacks = drawn(&page, "view=stacks&find=main", &folder);
    assert!(stacks.contains(" match: ") && stacks.contains(" at the peak ("), "the filter sums up");
    assert!(stacks.contains("class=\"apart\"") && stacks.contains("← "), "callers tell stacks apart");
}

/// The command line's wide output is stable: two analyses of one recording are byte for byte the same.
#[test]
fn analysis_is_repeatable() {
    let folder = TempDir::new().expect("a folder");
    let (recording, _) = recorded(&folder);
    let make = |name: &str| {
        let path = folder.path().join(name);
        let _ = analyze(&recording, &path, &["--allocations", "all", "--inline-stacks"]).success();
        std::fs::read(path).expect("a snapshot")
    };
    assert!(make("one.json") == make("two.json"), "two analyses differ");
}

/// Another implementation of JSON Schema says the same as the harness's own.
#[test]
fn another_validator_agrees() {
    let folder = TempDir::new().expect("a folder");
    let (_, snapshot) = recorded(&folder);
    assert!(snapshot.processes.len() > 3);
    let json = folder.path().join("s.json");
    let _ = analyze(&folder.path().join("rec"), &json, &["--inline-stacks"]).success();
    let schema = artifacts::source_dir().join("fixtures/snapshot.schema.json");
    let script = "import json, sys, jsonschema\n\
                  jsonschema.validate(json.load(open(sys.argv[2])), json.load(open(sys.argv[1])))\nprint('valid')";
    let python = ["/usr/bin/python3", "python3"]
        .into_iter()
        .find(|python| Cmd::new([python, "-c", "import jsonschema"]).run().code() == 0)
        .expect("python3-jsonschema is needed");
    let ran = Cmd::new([python, "-c", script]).arg(&schema).arg(&json).run().success();
    assert_eq!(ran.out(), "valid\n");
}

/// The harness's validator notices what it must.
#[test]
fn the_validator_notices() {
    let folder = TempDir::new().expect("a folder");
    let recorded = Record::new([program::c("calls", &[])]).arg("free").success();
    let text = std::fs::read(recorded.dir().join("snapshot.json")).expect("a snapshot");
    let good: Value = serde_json::from_slice(&text).expect("JSON");
    let schema = memscope_tests::schema::snapshot();
    schema.check(&good).expect("it is valid");
    let breaks: [(&str, Value); 6] = [
        ("/schema_version", 2.into()),
        ("/processes", Value::Array(Vec::new())),
        ("/processes/0/stats/threads", (-1).into()),
        ("/processes/0/allocations/0/lifetime_ms", Value::Null),
        ("/processes/0/allocations/0/freed_by", "drop".into()),
        ("/processes/0/end", "killed".into()),
    ];
    for (place, wrong) in breaks {
        let mut value = good.clone();
        *value.pointer_mut(place).unwrap_or_else(|| panic!("no {place}")) = wrong;
        assert!(schema.check(&value).is_err(), "{place}");
    }
    let mut value = good;
    let leaked =
        value.pointer("/processes/0/allocations/0/is_leaked").and_then(Value::as_bool).expect("a flag");
    *value.pointer_mut("/processes/0/allocations/0/is_leaked").expect("a flag") = (!leaked).into();
    assert!(schema.check(&value).is_err(), "is_leaked against freed_by");
    drop(folder);
}
