//! Numbers as people read them: counts with separators, four digits of a measurement, durations.

pub use crate::base::numbers::count;

/// A measurement: whole numbers as [`count`], others with four digits after the point (fewer from 10
/// on), or in scientific form where those would show nothing.
pub fn quantity(number: f64) -> String {
    if !number.is_finite() {
        return number.to_string();
    }
    let size = number.abs();
    if number.fract() == 0.0 && size < 1e15 {
        let sign = if number < 0.0 { "-" } else { "" };
        return format!("{sign}{}", count(whole(size)));
    }
    if size >= 1e4 {
        return count(whole(number.round().abs()));
    }
    if size < 1e-3 {
        return format!("{number:.3e}");
    }
    let digits = if size < 10.0 { 4 } else { 2 };
    format!("{number:.digits$}")
}

/// Seconds as `0.42 s`, `12.3 s`, `2m 03s` or `1h 05m`.
pub fn duration(seconds: f64) -> String {
    if seconds < 1.0 {
        return format!("{seconds:.2}s");
    }
    if seconds < 59.95 {
        return format!("{seconds:.1}s");
    }
    let whole = whole(seconds.round());
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h {minutes:02}m"),
    }
}

/// A size in bytes as `12.3 MiB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = number as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// A text on one line, cut to `width` characters with an ellipsis.
pub fn one_line(text: &str, width: usize) -> String {
    let shown = text.trim().replace('\n', "⏎");
    if shown.chars().count() <= width {
        return shown;
    }
    let mut cut: String = shown.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[expect(clippy::cast_sign_loss, reason = "callers pass sizes")]
fn whole(size: f64) -> u64 {
    size as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(quantity(2500.0), "2,500");
        assert_eq!(quantity(-3.0), "-3");
        assert_eq!(quantity(0.5312), "0.5312");
        assert_eq!(quantity(31.25), "31.25");
        assert_eq!(quantity(12_345.6), "12,346");
        assert_eq!(quantity(3e-5), "3.000e-5");
        assert_eq!(quantity(f64::NAN), "NaN");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(0.4), "0.40s");
        assert_eq!(duration(12.34), "12.3s");
        assert_eq!(duration(59.96), "1m 00s");
        assert_eq!(duration(123.4), "2m 03s");
        assert_eq!(duration(3900.0), "1h 05m");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(one_line(" a\nb ", 10), "a⏎b");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(bytes(12_900_000), "12.3 MiB");
    }
}
