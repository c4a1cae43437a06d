//! Names: what variables are called, what their types are, and where they were tracked.
//!
//! A slot holds the number of a [`Name`]. `track_var!` makes a [`Site`] for each place where it stands; together with the
//! type (in a generic function one place has many) that leads to the number, from the second time on by a
//! glance into the site.

use crate::store::{Busy, Interner, hash_text, hash_words};
use std::borrow::Cow;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};

/// A place in the source where variables are tracked. Made by [`track_var!`](crate::track_var).
#[derive(Debug)]
pub struct Site {
    name: &'static str,
    module: &'static str,
    place: Place,
    /// The number that was last wanted.
    last: AtomicU32,
}

/// A position in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the compiler names it.
    pub file: &'static str,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

impl From<&'static Location<'static>> for Place {
    fn from(location: &'static Location<'static>) -> Self {
        Self { file: location.file(), line: location.line(), column: location.column() }
    }
}

impl Site {
    /// A place: the variable's name, the module, and the position in the source.
    #[must_use]
    pub const fn new(
        name: &'static str,
        module: &'static str,
        file: &'static str,
        line: u32,
        column: u32,
    ) -> Self {
        Self { name, module, place: Place { file, line, column }, last: AtomicU32::new(0) }
    }

    /// The number of this place's name with a type; 0 inside of a call that is just allocating.
    #[inline]
    pub(crate) fn number(&'static self, type_name: &'static str) -> u32 {
        let last = self.last.load(Ordering::Relaxed);
        if NAMES.get(last).is_some_and(|name| std::ptr::eq(name.key.type_name, type_name)) {
            return last;
        }
        self.look_up(type_name)
    }

    #[cold]
    fn look_up(&'static self, type_name: &'static str) -> u32 {
        let number = intern(Name {
            key: Key { site: std::ptr::from_ref(self) as usize, type_name },
            name: Some(Cow::Borrowed(self.name)),
            type_name: Some(Cow::Borrowed(type_name)),
            module: Some(self.module),
            place: Some(self.place),
        });
        self.last.store(number, Ordering::Relaxed);
        number
    }
}

/// What a name is found by: a static site (0 for names that come as texts) and a static type.
#[derive(Clone, Copy, Debug)]
struct Key {
    site: usize,
    type_name: &'static str,
}

/// A variable's name, type and place.
#[derive(Debug)]
pub struct Name {
    key: Key,
    /// The variable.
    pub name: Option<Cow<'static, str>>,
    /// Its type.
    pub type_name: Option<Cow<'static, str>>,
    /// The module, which is the scope where no other was set.
    pub module: Option<&'static str>,
    /// Where it was tracked.
    pub place: Option<Place>,
}

impl Name {
    fn is_same(&self, other: &Self) -> bool {
        self.key.site == other.key.site
            && self.name == other.name
            && self.type_name == other.type_name
            && self.place == other.place
    }

    fn hash(&self) -> u64 {
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().map_or(0, hash_text);
        let place = self.place.map_or(0, |place| u64::from(place.line) << 32 | u64::from(place.column));
        hash_words([self.key.site as u64, text(&self.name), text(&self.type_name), place])
    }
}

static NAMES: Interner<Name> = Interner::new();

fn intern(name: Name) -> u32 {
    let hash = name.hash();
    if let Some(number) = NAMES.find(hash, |known| known.is_same(&name)) {
        return number;
    }
    // The program's allocator tracks what we allocate: its blocks go without a name.
    let Some(_busy) = Busy::begin() else { return 0 };
    let copy = Name { name: name.name.clone(), type_name: name.type_name.clone(), ..name };
    NAMES.intern(hash, |known| known.is_same(&name), || copy)
}

/// The number of a name that comes as text.
pub fn number(
    name: Option<Cow<'static, str>>,
    type_name: Option<Cow<'static, str>>,
    place: Option<Place>,
) -> u32 {
    intern(Name { key: Key { site: 0, type_name: "" }, name, type_name, module: None, place })
}

/// The name of a number.
pub fn get(number: u32) -> Option<&'static Name> {
    NAMES.get(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_has_a_name_for_each_type() {
        static SITE: Site = Site::new("value", "app", "main.rs", 3, 5);
        let numbers: Vec<u32> = ["u8", "u16", "u8", "u16", "u16"].map(|name| SITE.number(name)).into();
        assert_eq!((numbers[0], numbers[1]), (numbers[2], numbers[3]));
        assert_ne!(numbers[0], numbers[1]);
        assert_eq!(numbers[3], numbers[4]);
        let name = get(numbers[1]).unwrap();
        assert_eq!((name.name.as_deref(), name.type_name.as_deref()), (Some("value"), Some("u16")));
    }

    #[test]
    fn texts_are_kept_once() {
        let text = |name: &str| number(Some(name.to_owned().into()), None, None);
        assert_eq!(text("some text"), text("some text"));
        assert_ne!(text("some text"), text("another"));
        let _busy = Busy::begin();
        assert_eq!(text("not yet known"), 0);
        assert_ne!(text("another"), 0);
    }
}
