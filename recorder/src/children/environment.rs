//! `LD_PRELOAD` in an environment: what it says, and the same environment with a change in it.
//!
//! Of several entries the loader takes the last, so that is the one that is changed. It splits at colons and
//! spaces.

use super::scratch::Words;
use super::{Inheritance, Strings};
use core::ffi::{CStr, c_char};
use core::ptr::null;

const PRELOAD: &[u8] = b"LD_PRELOAD=";
const OUTPUT: &[u8] = b"MEMSCOPE_OUTPUT=";
const FILE_NAME: &[u8] = b"libmemscope.so";
const WORD: usize = size_of::<usize>();

/// What has to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Nothing.
    None,
    /// Our library is to be this one: in the place of the one that is there, else in front.
    Set(&'a CStr),
    /// Our library goes, and the variable where nothing else is in it.
    Remove,
}

/// An environment.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    entries: Strings,
    count: usize,
    /// Index of the `LD_PRELOAD` that counts, and its value.
    preload: Option<(usize, &'a [u8])>,
    /// It says where a recording goes.
    pub names_directory: bool,
}

fn libraries(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| matches!(byte, b':' | b' ')).filter(|library| !library.is_empty())
}

fn is_named_like_ours(library: &[u8]) -> bool {
    library.rsplit(|&byte| byte == b'/').next() == Some(FILE_NAME)
}

impl<'a> Environment<'a> {
    /// Looks at an environment; null is an empty one.
    ///
    /// # Safety
    /// `entries` is null or an array of C strings with a null pointer behind the last, which lives for `'a`.
    pub unsafe fn of(entries: Strings) -> Self {
        let mut environment = Self { entries, count: 0, preload: None, names_directory: false };
        if entries.is_null() {
            return environment;
        }
        // SAFETY: as promised by the caller.
        unsafe {
            while let Some(entry) = (*entries.add(environment.count)).as_ref() {
                let entry = CStr::from_ptr(entry).to_bytes();
                if let Some(value) = entry.strip_prefix(PRELOAD) {
                    environment.preload = Some((environment.count, value));
                }
                environment.names_directory |= entry.starts_with(OUTPUT);
                environment.count += 1;
            }
        }
        environment
    }

    /// The library of ours (or one that is named like it) that the loader would load.
    pub fn library(&self, ours: &Inheritance) -> Option<&'a [u8]> {
        let value = self.preload?.1;
        let leading = libraries(value).find(|library| is_of(library, ours));
        leading.or_else(|| libraries(value).find(|library| is_named_like_ours(library)))
    }

    /// The `LD_PRELOAD` that counts, as it stands in the array; null where there is none.
    pub fn entry(&self) -> *const c_char {
        // SAFETY: the array had that entry when it was looked at.
        self.preload.map_or(null(), |(index, _)| unsafe { *self.entries.add(index) })
    }

    /// Whether our very own library is in it.
    pub fn names_us(&self, ours: &Inheritance) -> bool {
        self.preload.is_some_and(|(_, value)| libraries(value).any(|library| is_of(library, ours)))
    }

    /// Words that the changed environment takes at the most.
    pub fn words(&self, library: &CStr) -> usize {
        let value = self.preload.map_or(0, |(_, value)| value.len());
        let text = PRELOAD.len() + library.count_bytes() + 1 + value + 1;
        self.count + 2 + text.div_ceil(WORD)
    }

    /// Writes the changed environment into `words`: first the array, then the new entry's text.
    ///
    /// # Safety
    /// It has not changed since it was looked at, and there are as many words as [`Environment::words`] said.
    pub unsafe fn write(&self, change: &Change<'_>, ours: &Inheritance, words: Words<'_>) -> Strings {
        let (array, text) = words.split_at_mut(self.array_words());
        // SAFETY: as promised by the caller.
        unsafe { self.write_apart(change, ours, array, text) }
    }

    /// Words that the array takes at the most; the new entry's text takes the others of [`Environment::words`].
    pub const fn array_words(&self) -> usize {
        self.count + 2
    }

    /// The same with the text apart from the array.
    ///
    /// # Safety
    /// As for [`Environment::write`], with the words divided as [`Environment::array_words`] said.
    pub unsafe fn write_apart(
        &self,
        change: &Change<'_>,
        ours: &Inheritance,
        array: Words<'_>,
        text: Words<'_>,
    ) -> Strings {
        let mut text = Text { start: text.as_mut_ptr().cast(), length: 0, room: text.len() * WORD };
        let entry = self.value(change, ours, &mut text);
        let mut at = 0;
        let mut put = |pointer: *const c_char| {
            if let Some(slot) = array.get_mut(at) {
                slot.write(pointer as usize);
                at += 1;
            }
        };
        let place = self.preload.map(|(index, _)| index);
        for index in 0..self.count {
            if Some(index) == place {
                entry.into_iter().for_each(&mut put);
            } else {
                // SAFETY: the array had this many entries.
                put(unsafe { *self.entries.add(index) });
            }
        }
        if place.is_none() {
            entry.into_iter().for_each(&mut put);
        }
        put(null());
        array.as_ptr().cast()
    }

    /// The new entry; `None` where nothing is left to be preloaded.
    fn value(&self, change: &Change<'_>, ours: &Inheritance, text: &mut Text) -> Option<*const c_char> {
        let new = if let Change::Set(library) = change { Some(library.to_bytes()) } else { None };
        let old = self.preload.map_or(&[][..], |(_, value)| value);
        text.push(PRELOAD);
        let mut pending = new;
        if !self.names_us(ours) {
            text.library(pending.take());
        }
        for library in libraries(old) {
            text.library(if is_of(library, ours) { pending.take() } else { Some(library) });
        }
        let empty = text.length == PRELOAD.len();
        text.push(b"\0");
        (!empty).then_some(text.start.cast_const().cast())
    }
}

/// Whether this is the library of this recording, by either of its paths.
fn is_of(library: &[u8], ours: &Inheritance) -> bool {
    library == ours.library.to_bytes() || library == ours.leading.to_bytes()
}

/// A text that is being written.
struct Text {
    start: *mut u8,
    length: usize,
    room: usize,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.room - self.length {
            // SAFETY: there is room for them, and it is apart from what they are.
            unsafe { self.start.add(self.length).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            self.length += bytes.len();
        }
    }

    fn library(&mut self, library: Option<&[u8]>) {
        let Some(library) = library else { return };
        if self.length > PRELOAD.len() {
            self.push(b":");
        }
        self.push(library);
    }
}
