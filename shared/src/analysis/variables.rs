//! Sums of each named variable, over all blocks that it has owned.
//!
//! Variables of the same name, type and scope are one: a loop that makes a thousand `row`s has one line. Memory grows with
//! the distinct names, not with the blocks.

use std::collections::HashMap;

use super::hash::Map;
use super::names::{Name, Names};
use super::sites::Sites;
use crate::model::Variable;

/// What blocks of a name are live at once.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    now: u64,
    peak: u64,
}

/// The variables with their sums. One without a name is not among them.
#[derive(Debug, Default)]
pub struct Variables {
    numbers: HashMap<Name, u32>,
    /// By the ids of a recording.
    of_id: Map<u32, u32>,
    held: Vec<Held>,
    /// Counts and lifetimes, each variable being a site.
    sums: Sites,
}

impl Variables {
    /// Those that a recording tells of; blocks are then known by the ids of their names.
    #[must_use]
    pub fn of(names: &Names) -> Self {
        let mut variables = Self::default();
        for (id, name) in names.iter() {
            if let Some(number) = variables.number(name) {
                variables.of_id.insert(id, number);
            }
        }
        variables
    }

    /// The number of a variable; `None` where it has no name.
    pub fn number(&mut self, name: &Name) -> Option<u32> {
        name.variable.as_ref()?;
        if let Some(&number) = self.numbers.get(name) {
            return Some(number);
        }
        let number = self.sums.add();
        self.held.push(Held::default());
        self.numbers.insert(name.clone(), number);
        Some(number)
    }

    /// The number of a name's id.
    #[must_use]
    pub fn of_id(&self, id: u32) -> Option<u32> {
        self.of_id.get(&id).copied()
    }

    /// The variable has a block more.
    pub fn takes(&mut self, number: u32, size: u64) {
        let held = &mut self.held[number as usize];
        held.now = held.now.saturating_add(size);
        held.peak = held.peak.max(held.now);
    }

    /// The variable has a block less.
    pub fn gives(&mut self, number: u32, size: u64) {
        let held = &mut self.held[number as usize];
        held.now = held.now.saturating_sub(size);
    }

    /// A block of the variable has lived so long, and does so still or not.
    pub fn lived(&mut self, number: u32, size: u64, lifetime: u64, lives: bool) {
        self.sums.start(number, size);
        self.sums.lived(number, lifetime);
        if !lives {
            self.sums.end(number, size);
        }
    }

    /// All that have owned a block: those with the highest peak first, then by name.
    #[must_use]
    pub fn list(mut self) -> Vec<Variable> {
        self.sums.settle();
        let (sums, held) = (&self.sums, &self.held);
        let variable = |(name, number): (Name, u32)| {
            let stats = sums.stats(number);
            Variable {
                var_name: name.variable.unwrap_or_default(),
                type_name: name.type_name,
                scope_name: name.scope,
                allocations: stats.allocations,
                allocated: stats.allocated,
                active_allocations: stats.active_allocations,
                active_memory: stats.active_memory,
                peak_memory: held[number as usize].peak,
                lifetime_ns: stats.lifetime_ns,
                short_lived: stats.short_lived,
            }
        };
        let mut list: Vec<Variable> = self.numbers.into_iter().map(variable).collect();
        list.retain(|variable| variable.allocations > 0);
        list.sort_by(|a, b| {
            let by_text = || {
                let text = |of: &Variable| of.var_name.cmp(&b.var_name);
                text(a)
                    .then_with(|| a.type_name.cmp(&b.type_name))
                    .then_with(|| a.scope_name.cmp(&b.scope_name))
            };
            b.peak_memory.cmp(&a.peak_memory).then_with(by_text)
        });
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(variable: &str, scope: &str) -> Name {
        let text = |text: &str| Some(text.to_owned());
        Name { variable: text(variable), type_name: text("T"), scope: text(scope) }
    }

    #[test]
    fn the_same_texts_are_one_variable() {
        let mut variables = Variables::default();
        let first = variables.number(&name("row", "a")).unwrap();
        assert_eq!(variables.number(&name("row", "a")), Some(first));
        assert_ne!(variables.number(&name("row", "b")), Some(first));
        assert_eq!(variables.number(&Name { variable: None, ..name("", "a") }), None);
        assert!(variables.list().is_empty(), "none of them has owned a block");
    }

    #[test]
    fn sums_and_the_peak() {
        let mut variables = Variables::default();
        let [small, large] = ["small", "large"].map(|text| variables.number(&name(text, "")).unwrap());
        for (number, size) in [(small, 10), (large, 100), (small, 20)] {
            variables.takes(number, size);
        }
        variables.gives(small, 10);
        variables.takes(small, 5);
        variables.lived(small, 10, 7, false);
        variables.lived(small, 20, 9, true);
        variables.lived(small, 5, 2_000_000, true);
        variables.lived(large, 100, 1, false);
        let list = variables.list();
        let names: Vec<&str> = list.iter().map(|variable| variable.var_name.as_str()).collect();
        assert_eq!(names, ["large", "small"]);
        let small = &list[1];
        assert_eq!((small.allocations, small.allocated, small.peak_memory), (3, 35, 30));
        assert_eq!((small.active_allocations, small.active_memory, small.short_lived), (2, 25, 2));
        assert_eq!((small.lifetime_ns.min, small.lifetime_ns.max), (7, 2_000_000));
    }
}
