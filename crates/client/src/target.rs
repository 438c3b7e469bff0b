//! Paths and queries of requests.

use std::fmt::Write;

/// The path and query of a request, escaped piece by piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    has_query: bool,
}

impl Target {
    /// From a path that is already escaped, such as `/1.0/instances` or an operation's.
    pub fn new(path: &str) -> Self {
        Target { text: path.to_owned(), has_query: path.contains('?') }
    }

    /// Adds one path segment; a `/` in it is escaped. Only before the first `query`.
    pub fn join(mut self, segment: &str) -> Self {
        self.text.push('/');
        escape(&mut self.text, segment);
        self
    }

    /// Adds a query parameter.
    pub fn query(mut self, key: &str, value: &str) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        escape(&mut self.text, key);
        self.text.push('=');
        escape(&mut self.text, value);
        self
    }

    /// Adds a query parameter unless there is nothing to say.
    pub fn query_some(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) if !value.is_empty() => self.query(key, value),
            _ => self,
        }
    }

    pub(crate) fn names(&self, key: &str) -> bool {
        let query = self.text.split_once('?').map_or("", |(_, query)| query);
        query.split('&').any(|pair| pair.split('=').next() == Some(key))
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&str> for Target {
    fn from(path: &str) -> Self {
        Target::new(path)
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub(crate) fn escape(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn every_piece_is_escaped() {
        let target = Target::new("/1.0/instances").join("a/b c").query("path", "/etc/x&y").query_some("project", None);
        assert_eq!(target.as_str(), "/1.0/instances/a%2Fb%20c?path=%2Fetc%2Fx%26y");
        assert!(target.names("path") && !target.names("project"));
    }
}
