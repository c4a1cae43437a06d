//! The stacks of slots, with names: those that were captured, else the one place where the variable was tracked.

use crate::names::{self, Place};
use crate::stacks;
use crate::store::Slot;
use memscope_shared::model::StackFrame;
use std::collections::HashMap;

/// What a slot's stack is known by: the numbers of its name and of its captured stack.
pub type Key = (u32, u32);

/// The key of a slot.
pub fn key(slot: &Slot) -> Key {
    (slot.name(), slot.stack())
}

/// Stacks that were resolved.
#[derive(Debug, Default)]
pub struct Frames {
    known: HashMap<Key, Vec<StackFrame>>,
}

impl Frames {
    /// The frames of a slot's stack.
    pub fn of(&mut self, slot: &Slot) -> &[StackFrame] {
        self.known.entry(key(slot)).or_insert_with_key(|&key| resolve(key))
    }
}

/// Resolves a stack. What was tracked inside of a call that was just allocating has none.
pub fn resolve((name, stack): Key) -> Vec<StackFrame> {
    let name = names::get(name);
    let place = name.and_then(|name| name.place);
    match (stacks::get(stack), place) {
        (Some(stack), Some(Place { file, line, .. })) => stack.resolve(file, line),
        (None, Some(place)) => vec![here(name.and_then(|name| name.module), place)],
        (_, None) => Vec::new(),
    }
}

/// Whether outer frames are missing.
pub fn is_truncated((_, stack): Key) -> bool {
    stacks::get(stack).is_none_or(|stack| stack.truncated)
}

fn here(module: Option<&str>, place: Place) -> StackFrame {
    StackFrame {
        function: module.map(str::to_owned),
        file: Some(place.file.to_owned()),
        line: Some(place.line),
        column: Some(place.column),
        ..StackFrame::default()
    }
}
