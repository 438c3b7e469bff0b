//! YAML as Incus writes it (Go's yaml.v2), and reading what people type.
//!
//! Written by hand over JSON values, because scripts compare this text: sequences are not indented in their mapping, text
//! that a YAML 1.1 reader would take for a number, boolean, null or date is quoted, and times stand bare.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::failure::{Failure, Result};

/// The text of any object.
pub fn of<T: Serialize + ?Sized>(object: &T) -> Result<String> {
    let value = serde_json::to_value(object).map_err(|cause| Failure::new("cannot print this as YAML").cause(cause))?;
    Ok(to_text(&value))
}

/// The text of a value.
pub fn to_text(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut text, map, 0, false),
        Value::Array(items) if !items.is_empty() => sequence(&mut text, items, 0, false),
        other => {
            scalar(&mut text, other, 0);
            text.push('\n');
        }
    }
    text
}

/// Reads a document; an empty one is the zero value.
pub fn parse<T: DeserializeOwned + Default>(text: &str) -> Result<T> {
    let blank = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if blank {
        return Ok(T::default());
    }
    // As Go reads text fields: `mode: 0660` and `yes` stay what was typed.
    let options = serde_saphyr::options! { leading_zero_numbers_as_strings: true, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|cause| Failure::new("this is not valid YAML for this object").cause(cause.to_string().trim_end()))
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

fn mapping(text: &mut String, map: &Map<String, Value>, depth: usize, mut at_dash: bool) {
    for (key, value) in map {
        if !std::mem::take(&mut at_dash) {
            indent(text, depth);
        }
        text.push_str(&quoted(key));
        text.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                text.push('\n');
                mapping(text, inner, depth + 1, false);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                sequence(text, items, depth, false);
            }
            other => {
                text.push(' ');
                scalar(text, other, depth + 1);
                text.push('\n');
            }
        }
    }
}

fn sequence(text: &mut String, items: &[Value], depth: usize, mut at_dash: bool) {
    for item in items {
        if !std::mem::take(&mut at_dash) {
            indent(text, depth);
        }
        text.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => mapping(text, inner, depth + 1, true),
            Value::Array(inner) if !inner.is_empty() => sequence(text, inner, depth + 1, true),
            other => {
                scalar(text, other, depth + 1);
                text.push('\n');
            }
        }
    }
}

fn scalar(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(b) => text.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => text.push_str(&n.to_string()),
        Value::Object(_) => text.push_str("{}"),
        Value::Array(_) => text.push_str("[]"),
        Value::String(s) if is_literal(s) => literal(text, s, depth),
        Value::String(s) => text.push_str(&quoted(s)),
    }
}

fn is_literal(s: &str) -> bool {
    s.contains('\n') && !s.contains(" \n") && s.chars().all(|c| c == '\n' || c == '\t' || !c.is_control())
}

fn literal(text: &mut String, s: &str, depth: usize) {
    text.push('|');
    if s.starts_with([' ', '\n', '\t']) {
        text.push('2');
    }
    let body = s.strip_suffix('\n');
    match body {
        None => text.push('-'),
        Some(body) if body.ends_with('\n') || body.is_empty() => text.push('+'),
        Some(_) => {}
    }
    for line in body.unwrap_or(s).split('\n') {
        text.push('\n');
        if !line.is_empty() {
            indent(text, depth);
            text.push_str(line);
        }
    }
}

/// A string on one line, quoted where it must be.
fn quoted(s: &str) -> String {
    if is_time(s) {
        return s.to_owned();
    }
    if s.chars().any(|c| c.is_control()) || reads_as_other(s) {
        // JSON's escapes are YAML's.
        return Value::String(s.to_owned()).to_string();
    }
    if needs_quotes(s) { format!("'{}'", s.replace('\'', "''")) } else { s.to_owned() }
}

fn needs_quotes(s: &str) -> bool {
    let first = s.chars().next().unwrap_or(' ');
    let second_is_blank = s.chars().nth(1).is_none_or(char::is_whitespace);
    s.starts_with(' ')
        || s.ends_with(' ')
        || ",[]{}#&*!|>'\"%@`".contains(first)
        || ("-?:".contains(first) && second_is_blank)
        || s.starts_with("---")
        || s.starts_with("...")
        || s.contains(": ")
        || s.ends_with(':')
        || s.contains(" #")
}

/// An RFC 3339 time, as every timestamp field is.
fn is_time(s: &str) -> bool {
    s.len() >= 20 && s.as_bytes()[10] == b'T' && chrono::DateTime::parse_from_rfc3339(s).is_ok()
}

/// Whether a YAML 1.1 reader would not take the bare word for text.
fn reads_as_other(s: &str) -> bool {
    const WORDS: &[&str] = &[
        "", "~", "null", "true", "false", "y", "n", "yes", "no", "on", "off", ".nan", ".inf", "+.inf", "-.inf", "<<",
        "=",
    ];
    let lower = s.to_ascii_lowercase();
    if WORDS.contains(&lower.as_str()) {
        return true;
    }
    let body = lower.strip_prefix(['+', '-']).unwrap_or(&lower);
    if !body.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let plain = body.replace('_', "");
    let radix = |prefix, radix| {
        plain.strip_prefix(prefix).is_some_and(|d| !d.is_empty() && d.chars().all(|c: char| c.is_digit(radix)))
    };
    let is_date = body.len() == 10 && chrono::NaiveDate::parse_from_str(body, "%Y-%m-%d").is_ok();
    let is_sixty = body.contains(':')
        && body.split(':').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || c == '.'));
    plain.parse::<f64>().is_ok() || radix("0x", 16) || radix("0b", 2) || radix("0o", 8) || is_date || is_sixty
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;
    use stapes_api::InstancePut;

    #[test]
    fn it_reads_like_go_s_yaml() {
        let value = json!({
            "architecture": "x86_64",
            "config": {"image.release": "12", "limits.cpu": "2", "user.note": "a: b", "user.script": "#!/bin/sh\nexit 0\n",
                       "volatile.hwaddr": "10:66:6a:e9:f8:7f", "on": "yes"},
            "devices": {"root": {"path": "/", "type": "disk"}},
            "ephemeral": false,
            "profiles": ["default"],
            "snapshots": [{"name": "s0", "size": -1}, []],
            "description": "",
            "created_at": "2021-03-23T20:00:00-04:00",
            "used_by": [],
            "state": null,
        });
        expect![[r##"
            architecture: x86_64
            config:
              image.release: "12"
              limits.cpu: "2"
              user.note: 'a: b'
              user.script: |
                #!/bin/sh
                exit 0
              volatile.hwaddr: 10:66:6a:e9:f8:7f
              "on": "yes"
            devices:
              root:
                path: /
                type: disk
            ephemeral: false
            profiles:
            - default
            snapshots:
            - name: s0
              size: -1
            - []
            description: ""
            created_at: 2021-03-23T20:00:00-04:00
            used_by: []
            state: null
        "##]]
        .assert_eq(&to_text(&value));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let texts = [
            "",
            "12",
            "0660",
            "1.10",
            "yes",
            "~",
            "a\nb",
            "a\n",
            "\n",
            "a\n\n",
            "  x\ny",
            "- x",
            "it's",
            "a #b",
            "2024-01-02",
        ];
        let mut put = InstancePut { ephemeral: true, ..InstancePut::default() };
        for (index, text) in texts.iter().enumerate() {
            put.config.insert(format!("user.k{index}"), (*text).to_owned());
        }
        let read: InstancePut = parse(&of(&put).unwrap()).unwrap();
        assert_eq!(read, put);
    }

    #[test]
    fn typed_values_stay_text() {
        let put: InstancePut =
            parse("config:\n  limits.cpu: 2\n  a.b: yes\n  c.d: true\ndevices:\n  t:\n    mode: 0660\n").unwrap();
        assert_eq!((put.config["limits.cpu"].as_str(), put.config["a.b"].as_str()), ("2", "yes"));
        assert_eq!((put.config["c.d"].as_str(), put.devices["t"]["mode"].as_str()), ("true", "0660"));
    }

    #[test]
    fn an_empty_document_is_the_zero_value_and_a_bad_one_says_where() {
        assert_eq!(parse::<InstancePut>("# nothing\n\n").unwrap(), InstancePut::default());
        let failure = parse::<InstancePut>("config: [\n").unwrap_err();
        assert!(!failure.causes.is_empty());
    }
}
