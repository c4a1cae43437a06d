//! Text for a terminal: nothing that steers it, nothing wider than it.

/// `raw` with every character that could steer a terminal or turn the line around replaced.
pub fn harmless(raw: &str) -> String {
    let turns = |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let steers = |c: char| c.is_control() || turns(c);
    raw.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

/// Columns that a text takes, near enough: combining marks none, East Asian ones and emoji two.
pub fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

const fn width(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// `text`, or as much of it as fits with an ellipsis behind.
pub fn clipped(text: &str, limit: usize) -> String {
    if columns(text) <= limit {
        return text.to_owned();
    }
    let mut used = 1;
    let fits = |c: &char| {
        used += width(*c);
        used <= limit
    };
    let mut out: String = text.chars().take_while(fits).collect();
    out.push('…');
    out
}

/// `text` over as many lines as it needs: broken at spaces, and inside of a word that is wider than a line.
pub fn broken(text: &str, limit: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for (at, word) in text.split(' ').enumerate() {
        if at > 0 && columns(&line) + 1 + columns(word) > limit {
            lines.push(std::mem::take(&mut line));
        } else if at > 0 {
            line.push(' ');
        }
        for c in word.chars() {
            if !line.is_empty() && columns(&line) + width(c) > limit {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::super::fixture::HOSTILE;
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        for name in HOSTILE {
            let text = harmless(name);
            assert!(
                !text.contains(['\u{1b}', '\n', '\r', '\u{7}', '\0', '\u{202e}', '\u{2028}']),
                "{text:?}"
            );
            assert_eq!(text.chars().count(), name.chars().count());
        }
    }

    #[test]
    fn clipping_counts_columns() {
        assert_eq!(clipped("short", 5), "short");
        assert_eq!(clipped("longer", 5), "long…");
        assert_eq!(clipped("索引::构建", 6), "索引:…");
        assert_eq!(columns("e\u{301}索"), 3);
    }

    #[test]
    fn breaking_loses_nothing() {
        assert_eq!(broken("one two  three", 7), ["one two", " three"]);
        assert_eq!(broken("a longerthanaline b", 6), ["a", "longer", "thanal", "ine b"]);
        assert_eq!(broken("索引构建", 5), ["索引", "构建"]);
        assert_eq!(broken("", 5), [""]);
    }
}
