//! JSON that can stand inside a `<script>` element.

use std::io::{self, Write};

use serde_json::ser::Formatter;

/// Writes compact JSON without any character that means something to an HTML parser, or that ends a
/// line in older JavaScript: they become `\u` escapes, which only strings hold, so the value is the
/// same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inert;

impl Formatter for Inert {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}', '\u{7f}']) {
            let (plain, tail) = rest.split_at(at);
            let mut tail = tail.chars();
            out.write_all(plain.as_bytes())?;
            if let Some(c) = tail.next() {
                write!(out, "\\u{:04x}", u32::from(c))?;
            }
            rest = tail.as_str();
        }
        out.write_all(rest.as_bytes())
    }
}

/// Text for the content of an HTML element.
pub fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::Serializer;

    use super::super::super::fixture::HOSTILE;
    use super::*;

    #[test]
    fn hostile_strings_come_back_the_same_and_look_harmless() {
        let mut out = Vec::new();
        HOSTILE.serialize(&mut Serializer::with_formatter(&mut out, Inert)).unwrap();
        let json = String::from_utf8(out).unwrap();
        assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}', '\n']), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), HOSTILE);
    }

    #[test]
    fn text_holds_no_markup() {
        assert_eq!(text("a<b>&amp;"), "a&lt;b&gt;&amp;amp;");
    }
}
