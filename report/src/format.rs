//! Numbers for people: bytes, counts, durations, shares, points in time, command lines.
//!
//! `assets/format.js` has the same rules for the HTML report. Both round half up on the same
//! floating-point products, so a number reads the same in both.

const KIB: f64 = 1024.0;
const SECOND: u64 = 1_000_000_000;

/// Bytes in binary units, to three digits: `512 B`, `1.50 KiB`, `72.7 MiB`, `1012 GiB`.
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / KIB;
    for unit in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value.round() < KIB {
            return format!("{} {unit}", three_digits(value));
        }
        value /= KIB;
    }
    format!("{} EiB", three_digits(value))
}

/// A count with its thousands apart: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its noun: `1 block`, `1,234 blocks`.
pub fn counted(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(n))
}

/// A length of time: `850 ns`, `12.3 µs`, `4.56 ms`, `1.24 s`, `2 min 05 s`, `3 h 07 min`, `2 d 04 h`.
pub fn duration(ns: u64) -> String {
    if ns < 1000 {
        return format!("{ns} ns");
    }
    for (unit, name) in [(1e3, "µs"), (1e6, "ms")] {
        let value = ns as f64 / unit;
        if value.round() < 1000.0 {
            return format!("{} {name}", three_digits(value));
        }
    }
    let seconds = ns as f64 / SECOND as f64;
    if (seconds * 10.0).round() < 600.0 {
        return format!("{} s", three_digits(seconds));
    }
    long_duration(seconds.round() as u64)
}

/// From one minute on, in the two largest units that matter.
fn long_duration(seconds: u64) -> String {
    if seconds < 3600 {
        return format!("{} min {:02} s", seconds / 60, seconds % 60);
    }
    let minutes = (seconds + 30) / 60;
    if minutes < 24 * 60 {
        return format!("{} h {:02} min", minutes / 60, minutes % 60);
    }
    let hours = (minutes + 30) / 60;
    format!("{} d {:02} h", hours / 24, hours % 24)
}

/// A share: `0%`, `<0.1%`, `12.3%`, `100%`.
pub fn percent(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return "0%".to_owned();
    }
    let tenths = (part as f64 * 1000.0 / whole as f64).round() as u64;
    match tenths {
        0 => "<0.1%".to_owned(),
        1000.. => format!("{}%", tenths / 10),
        _ => format!("{}.{}%", tenths / 10, tenths % 10),
    }
}

/// `value`, from 1 to 1024, with two, one or no decimals.
fn three_digits(value: f64) -> String {
    let hundredths = (value * 100.0).round() as u64;
    if hundredths < 1000 {
        return format!("{}.{:02}", hundredths / 100, hundredths % 100);
    }
    let tenths = (value * 10.0).round() as u64;
    if tenths < 1000 {
        return format!("{}.{}", tenths / 10, tenths % 10);
    }
    format!("{}", value.round() as u64)
}

/// A point in time: `2023-11-14 22:13:20.123 UTC`.
pub fn utc(ns: u64) -> String {
    let seconds = ns / SECOND;
    let (year, month, day) = date(seconds / 86_400);
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let millis = ns % SECOND / 1_000_000;
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03} UTC")
}

/// Year, month and day of a day since 1970-01-01.
///
/// Counts from 0000-03-01, so that the leap day is a year's last; 400 years have 146,097 days, and the
/// months from March on have 153 days every five.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + (month <= 2) as u64;
    (year, month, day)
}

/// A command as one would type it, quoted where the shell needs it.
pub fn command_line(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as one would type it, quoted where the shell needs it.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./=:,+@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The last part of a path.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_binary_with_three_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1152, "1.13 KiB"),
            (10_234, "9.99 KiB"),
            (10_239, "10.0 KiB"),
            (102_348, "99.9 KiB"),
            (102_349, "100 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_064, "1.00 MiB"),
            (72_704, "71.0 KiB"),
            (5 << 40, "5.00 TiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (n, text) in cases {
            assert_eq!(bytes(n), text, "{n}");
        }
    }

    #[test]
    fn counts_have_their_thousands_apart() {
        for (n, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(n), text);
        }
        assert_eq!(counted(1, "block"), "1 block");
        assert_eq!(counted(0, "block"), "0 blocks");
    }

    #[test]
    fn durations_change_their_unit_where_rounding_does() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1000, "1.00 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (12_345_678, "12.3 ms"),
            (59_949_999_999, "59.9 s"),
            (59_950_000_000, "1 min 00 s"),
            (125_000_000_000, "2 min 05 s"),
            (3_599_600_000_000, "1 h 00 min"),
            (86_399_000_000_000, "1 d 00 h"),
            (187_200_000_000_000, "2 d 04 h"),
        ];
        for (ns, text) in cases {
            assert_eq!(duration(ns), text, "{ns}");
        }
    }

    #[test]
    fn shares_never_hide_that_there_is_something() {
        for (part, whole, text) in [
            (0, 0, "0%"),
            (1, 0, "0%"),
            (1, 100_000, "<0.1%"),
            (1, 8, "12.5%"),
            (1, 1, "100%"),
            (3, 2, "150%"),
        ] {
            assert_eq!(percent(part, whole), text);
        }
    }

    #[test]
    fn points_in_time_follow_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(utc(1_700_000_000_123_456_789), "2023-11-14 22:13:20.123 UTC");
        assert_eq!(utc(1_709_164_800 * SECOND), "2024-02-29 00:00:00.000 UTC");
        assert_eq!(utc(951_868_799 * SECOND), "2000-02-29 23:59:59.000 UTC");
        assert_eq!(utc(4_107_542_400 * SECOND), "2100-03-01 00:00:00.000 UTC");
    }

    #[test]
    fn command_lines_are_quoted_where_needed() {
        let words = ["./a.out", "two words", "", "it's", "ünïcode"].map(str::to_owned);
        assert_eq!(command_line(&words), r"./a.out 'two words' '' 'it'\''s' ünïcode");
    }

    #[test]
    fn file_names_are_the_last_part() {
        assert_eq!(file_name("/usr/lib/libc.so.6"), "libc.so.6");
        assert_eq!(file_name("plain"), "plain");
    }
}
