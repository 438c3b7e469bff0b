//! Sizes and times as Incus prints them.

use chrono::{Local, TimeZone};
use stapes_api::Timestamp;

/// Bytes with binary units: `178.52MiB`.
pub fn iec(bytes: i64) -> String {
    scaled(bytes, 1024, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// Bytes with decimal units: `178.52MB`.
pub fn decimal(bytes: i64) -> String {
    scaled(bytes, 1000, ["kB", "MB", "GB", "TB", "PB", "EB"])
}

fn scaled(bytes: i64, step: i64, units: [&str; 6]) -> String {
    if bytes < step {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64;
    for unit in units {
        value /= step as f64;
        if value < step as f64 {
            return format!("{value:.2}{unit}");
        }
    }
    format!("{value:.2}{}", units[5])
}

/// A limit such as `512MiB` or `1GB`, in bytes.
pub fn parse_size(text: &str) -> Option<f64> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: f64 = text[..at].parse().ok()?;
    let (step, power) = match &text[at..] {
        "" | "B" | " bytes" => (1, 0),
        "kB" => (1000, 1),
        "MB" => (1000, 2),
        "GB" => (1000, 3),
        "TB" => (1000, 4),
        "PB" => (1000, 5),
        "EB" => (1000, 6),
        "KiB" => (1024, 1),
        "MiB" => (1024, 2),
        "GiB" => (1024, 3),
        "TiB" => (1024, 4),
        "PiB" => (1024, 5),
        "EiB" => (1024, 6),
        _ => return None,
    };
    Some(number * f64::from(step).powi(power))
}

/// A moment in local time, to the minute; empty for "never".
pub fn moment(time: &Timestamp) -> String {
    if time.is_unset() { String::new() } else { in_zone(time, &Local) }
}

fn in_zone<Z: TimeZone>(time: &Timestamp, zone: &Z) -> String
where
    Z::Offset: std::fmt::Display,
{
    time.with_timezone(zone).format("%Y/%m/%d %H:%M %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_decimals_above_the_first_unit() {
        assert_eq!(iec(1023), "1023B");
        assert_eq!(iec(187_190_784), "178.52MiB");
        assert_eq!(decimal(1500), "1.50kB");
    }

    #[test]
    fn limits_are_read_in_both_systems() {
        assert_eq!(parse_size("512MiB"), Some(536_870_912.0));
        assert_eq!(parse_size("1GB"), Some(1e9));
        assert_eq!(parse_size("10%"), None);
    }

    #[test]
    fn never_is_blank_and_a_moment_is_local() {
        assert_eq!(moment(&Timestamp::default()), "");
        let time: Timestamp = serde_json::from_str("\"2024-05-06T07:08:09Z\"").unwrap();
        assert_eq!(in_zone(&time, &chrono::Utc), "2024/05/06 07:08 UTC");
    }
}
