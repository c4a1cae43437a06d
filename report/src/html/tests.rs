use memscope_shared::model::{Process, Stack};
use serde_json::Value;

use super::super::fixture::{self, HOSTILE};
use super::*;

fn page(snapshot: &Snapshot) -> String {
    let mut out = Vec::new();
    write(snapshot, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The JSON document of that id inside a page.
fn json(page: &str, id: &str) -> Value {
    let start = format!("<script type=\"application/json\" id=\"{id}\">");
    let (_, tail) = page.split_once(&start).unwrap();
    serde_json::from_str(tail.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn hostile_names_leave_the_page_as_it_is() {
    let scripts = |page: &str| (page.matches("<script").count(), page.matches("</script").count());
    let mut snapshot = fixture::snapshot(300, 20);
    let plain = scripts(&page(&Snapshot { processes: vec![Process::default()], ..Snapshot::default() }));
    snapshot.command = HOSTILE.map(str::to_owned).to_vec();
    snapshot.command.rotate_left(6);
    snapshot.processes[0].exe = HOSTILE[0].to_owned();
    snapshot.processes[0].incomplete_reason = Some(HOSTILE[1].to_owned());
    snapshot.processes[0].threads[0].name = Some(HOSTILE[6].to_owned());
    let hostile = page(&snapshot);
    assert_eq!(scripts(&hostile), plain);
    assert_eq!(hostile.matches("<!--").count(), 0);
    assert!(!hostile.contains("<img"));
    let strings = json(&hostile, "data-0")["strings"].clone();
    let strings: Vec<String> = serde_json::from_value(strings).unwrap();
    assert!(HOSTILE.iter().all(|name| strings.iter().any(|string| string == name)));
}

#[test]
fn the_page_loads_nothing_and_its_own_parts_are_harmless() {
    let page = page(&fixture::snapshot(3, 3));
    assert!(page.contains("default-src 'none'"));
    assert!(!page.contains("@@"));
    for part in SCRIPTS {
        assert!(!part.contains("</script") && !part.contains("<!--") && !part.contains("innerHTML"));
    }
    for load in ["http://", "https://", "@import", "url("] {
        let own = |part: &&str| !part.replace("http://www.w3.org/2000/svg", "").contains(load);
        assert!(SCRIPTS.iter().chain([&STYLE, &TEMPLATE]).all(own), "{load}");
    }
}

#[test]
fn the_numbers_are_those_of_the_snapshot() {
    let snapshot = fixture::snapshot(3000, 20);
    let page = page(&snapshot);
    let stats = serde_json::to_value(snapshot.processes[0].stats).unwrap();
    assert_eq!(json(&page, "data-recording")["processes"][0]["stats"], stats);
    let data = json(&page, "data-0");
    assert_eq!(
        (&data["all_stacks"], &data["all_threads"], &data["all_modules"]),
        (&3000.into(), &5.into(), &5.into())
    );
    for row in data["stacks"].as_array().unwrap() {
        let stack: &Stack = &snapshot.processes[0].stacks[row[0].as_u64().unwrap() as usize - 1];
        assert_eq!(row[3].as_array().unwrap().len(), stack.frames.len());
        assert_eq!(
            (row[4][0].as_u64(), row[4][7].as_u64()),
            (Some(stack.stats.allocations), Some(stack.stats.memory_at_peak))
        );
        let frames = &data["frames"];
        let name = |at: usize| frames[row[3][at].as_u64().unwrap() as usize][0].as_u64().unwrap() as usize;
        for (at, &frame) in stack.frames.iter().enumerate() {
            let expected = snapshot.processes[0].frames[frame as usize].function.clone().unwrap_or_default();
            assert_eq!(data["strings"][name(at)], Value::from(expected));
        }
    }
}

#[test]
fn the_page_stays_within_its_limits() {
    let large = page(&fixture::snapshot(60_000, 60));
    let data = json(&large, "data-0");
    assert!(data["stacks"].as_array().unwrap().len() <= 2500 * 6);
    assert!(large.len() < 8 << 20, "{}", large.len());
    let family = fixture::family(400);
    let page = page(&family);
    assert!(page.len() < 40 << 20, "{}", page.len());
    assert_eq!(json(&page, "data-recording")["tree"].as_array().unwrap().len(), 401);
    let most = digest::by_allocated(&family.processes)[0];
    assert_eq!(json(&page, "data-recording")["open"], Value::from(most));
    assert_eq!(
        json(&page, "data-recording")["unrecorded"][0][3],
        Value::from("'</script><script>alert(1)</script>' -x")
    );
    assert_eq!(json(&page, "data-recording")["all_unrecorded"], Value::from(8));
}

#[test]
fn an_empty_or_broken_snapshot_has_a_page_too() {
    assert!(json(&page(&Snapshot::default()), "data-recording")["processes"].as_array().unwrap().is_empty());
    let stack = |frames: &[u32]| Stack {
        frames: frames.to_vec(),
        ..fixture::snapshot(1, 1).processes[0].stacks[0].clone()
    };
    let mut broken = Snapshot { processes: vec![Process::default()], ..Snapshot::default() };
    broken.processes[0].frames = fixture::snapshot(9, 2).processes[0].frames[..1].to_vec();
    broken.processes[0].stacks = vec![stack(&[77, 0, u32::MAX]), stack(&[]), stack(&[5])];
    let data = json(&page(&broken), "data-0");
    assert_eq!(data["stacks"][0][3].as_array().unwrap().len(), 1);
    assert_eq!((&data["stacks"][0][2], &data["stacks"][1][2]), (&0.into(), &(-1).into()));
}
