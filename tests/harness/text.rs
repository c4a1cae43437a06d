//! Comparing what programs print.

/// Replaces what depends on the time of day or on how long something took: every number with a
/// fraction, a colon or a unit of time becomes `#`.
#[must_use]
pub fn without_times(text: &str) -> String {
    text.lines()
        .map(|line| line.split(' ').map(mask).collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n")
}

fn mask(word: &str) -> &str {
    let timed = word.starts_with(|c: char| c.is_ascii_digit())
        && (word.contains('.') || word.contains(':') || word.ends_with("s") || word.ends_with("sec"))
        && word.chars().all(|c| c.is_ascii_digit() || ".:,smuec".contains(c));
    if timed { "#" } else { word }
}

/// The digits of a text, with separators between groups of three taken out: `1,234,567` gives
/// `["1234567"]`, so that a number is found however a report writes it.
#[must_use]
pub fn numbers(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut current = String::new();
    for (i, &c) in chars.iter().enumerate() {
        if c.is_ascii_digit() {
            current.push(c);
            continue;
        }
        let goes_on = !current.is_empty() && is_separator(c) && starts_group(&chars[i + 1..]);
        if !goes_on && !current.is_empty() {
            found.push(std::mem::take(&mut current));
        }
    }
    if !current.is_empty() {
        found.push(current);
    }
    found
}

const fn is_separator(c: char) -> bool {
    matches!(c, ',' | '\'' | '_' | '\u{a0}' | '\u{202f}')
}

/// Exactly three digits follow.
fn starts_group(rest: &[char]) -> bool {
    rest.iter().take_while(|c| c.is_ascii_digit()).count() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_and_without_separators() {
        assert_eq!(
            numbers("1,234,567 allocs, 12 frees (0x7f) 1,23 2,000"),
            ["1234567", "12", "0", "7", "1", "23", "2000"]
        );
        assert!(numbers("none").is_empty());
    }

    #[test]
    fn only_times_are_masked() {
        let text =
            "Ran 12 tests in 0.123s\n0:00:01 load avg: 1.5 [1/3] test_json\ntook 3 sec, 15 files v1.2.3";
        let expected = "Ran 12 tests in #\n# load avg: # [1/3] test_json\ntook 3 sec, 15 files v1.2.3";
        assert_eq!(without_times(text), expected);
    }
}
