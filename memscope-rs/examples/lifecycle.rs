//! Snapshots on the way: what lives in each phase of a program, with its lifetime so far.
//!
//! Writes `lifecycle_snapshot_1_all_alive.json`, `…_2_after_the_first.json` and `lifecycle.json` into the current
//! directory.

use memscope_rs::{Trackable, TrackingResult, track_scope, track_var};
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Trackable)]
struct Index {
    words: BTreeMap<String, usize>,
    longest: String,
}

fn index(text: &str) -> Index {
    let mut index = Index { words: BTreeMap::new(), longest: String::new() };
    for word in text.split_whitespace() {
        *index.words.entry(word.to_owned()).or_default() += 1;
        if word.len() > index.longest.len() {
            index.longest = word.to_owned();
        }
    }
    index
}

fn main() -> TrackingResult<()> {
    memscope_rs::init();
    memscope_rs::enable_auto_export(Some("lifecycle.json"));
    let text = track_var!(String::from("a snapshot shows what lives and for how long it has lived so far"));
    let index = {
        let _scope = track_scope!("indexing");
        track_var!(index(&text))
    };
    let shared = track_var!(Rc::new(index.words.len()));
    let again = track_var!(Rc::clone(&shared));
    let path = memscope_rs::snapshot("lifecycle_snapshot_1_all_alive")?;
    println!("all alive: {}", path.display());
    drop(text);
    drop(shared);
    let path = memscope_rs::snapshot("lifecycle_snapshot_2_after_the_first")?;
    println!("after the first are gone: {}", path.display());
    println!("{again} words, the longest is {}", index.longest);
    Ok(())
}
