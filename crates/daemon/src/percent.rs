//! Percent-encoded text (RFC 3986 §2.1) and queries made of it. Pure: the fuzz targets include this file.

use std::collections::HashMap;

/// `a=b&c=d`, decoded; the last of two equal names wins.
pub fn parse_query(text: &str) -> HashMap<String, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decode(&name.replace('+', " "))?, percent_decode(&value.replace('+', " "))?))
        })
        .collect()
}

/// RFC 3986 §2.1. `None` for a broken escape or text that is not UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |byte: u8| (byte as char).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_once() {
        let query = parse_query("filter=name%20eq%20c1&path=%2Fetc%2F%2541&a+b=c+d&=x&flag");
        assert_eq!(query["filter"], "name eq c1");
        assert_eq!(query["path"], "/etc/%41");
        assert_eq!(query["a b"], "c d");
        assert_eq!(query["flag"], "");
    }

    #[test]
    fn broken_escapes_are_no_text() {
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }
}
