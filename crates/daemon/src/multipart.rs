//! `multipart/form-data` (RFC 7578, RFC 2046 §5.1.1) as it streams in: bytes go in, parts and their pieces come out.
//!
//! Does no I/O and holds no more than one piece of input, a part's head and a delimiter's length.

use bytes::{Buf, Bytes, BytesMut};

/// Longest head of a part, and longest padding behind a delimiter.
const HEAD_LIMIT: usize = 16 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A part begins: its name, and the file name its sender gave.
    Part { name: String, filename: Option<String> },
    /// Some of the present part's content.
    Data(Bytes),
    /// The present part is complete.
    PartEnd,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    #[error("the content type has no boundary of 1 to 70 characters")]
    Boundary,
    #[error("the head of a part is longer than {HEAD_LIMIT} bytes")]
    LongHead,
    #[error("the head of a part is no text")]
    NoText,
    #[error("a part has no name")]
    NoName,
    #[error("a boundary is followed by what is neither a part nor the end")]
    BrokenBoundary,
    #[error("it ends before its last boundary")]
    Truncated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter; what is there is skipped.
    Preamble,
    /// Right behind a delimiter.
    Delimiter,
    Head,
    Content,
    /// Behind the last delimiter; what is there is skipped.
    End,
}

#[derive(Debug)]
pub struct Multipart {
    delimiter: Vec<u8>,
    buffer: BytesMut,
    /// Bytes of the buffer that hold no delimiter's start.
    searched: usize,
    state: State,
}

impl Multipart {
    /// For a `Content-Type`; `None` when that is no `multipart/form-data`.
    pub fn for_content_type(content_type: &str) -> Option<Result<Self, MultipartError>> {
        let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary").unwrap_or_default();
        Some(Self::new(&boundary))
    }

    fn new(boundary: &str) -> Result<Self, MultipartError> {
        if boundary.is_empty() || boundary.len() > 70 {
            return Err(MultipartError::Boundary);
        }
        // The first delimiter may stand at the very start, without the line break that begins all others.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        Ok(Self { delimiter, buffer, searched: 0, state: State::Preamble })
    }

    /// Takes more input; then ask [`Multipart::next`] until it has nothing more.
    pub fn feed(&mut self, input: &[u8]) {
        self.buffer.extend_from_slice(input);
    }

    /// The next event; `None`: more input is needed, or all is over.
    pub fn next(&mut self) -> Result<Option<Event>, MultipartError> {
        loop {
            match self.state {
                State::Preamble | State::Content => match self.content() {
                    Some(Event::Data(_)) if self.state == State::Preamble => {}
                    Some(Event::PartEnd) => {
                        let first = self.state == State::Preamble;
                        self.state = State::Delimiter;
                        if !first {
                            return Ok(Some(Event::PartEnd));
                        }
                    }
                    other => return Ok(other),
                },
                State::Delimiter => {
                    if !self.behind_delimiter()? {
                        return Ok(None);
                    }
                }
                State::Head => return self.head(),
                State::End => {
                    self.buffer.clear();
                    return Ok(None);
                }
            }
        }
    }

    /// Call at the end of the input: was it complete?
    pub fn finish(&self) -> Result<(), MultipartError> {
        if self.state == State::End { Ok(()) } else { Err(MultipartError::Truncated) }
    }

    /// Content up to a delimiter, or up to where one might begin.
    fn content(&mut self) -> Option<Event> {
        match find(&self.buffer, &self.delimiter) {
            Found::Whole(0) => {
                self.buffer.advance(self.delimiter.len());
                Some(Event::PartEnd)
            }
            Found::Whole(at) | Found::Start(at) if at > 0 => Some(Event::Data(self.buffer.split_to(at).freeze())),
            _ => None,
        }
    }

    /// Reads what follows a delimiter; `false`: more input is needed.
    fn behind_delimiter(&mut self) -> Result<bool, MultipartError> {
        if self.buffer.starts_with(b"--") {
            self.state = State::End;
            return Ok(true);
        }
        let padding = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let rest = &self.buffer[padding..];
        if rest.starts_with(b"\r\n") {
            // The line break stays: a head without lines is then the empty line alone.
            self.buffer.advance(padding);
            self.searched = 0;
            self.state = State::Head;
            return Ok(true);
        }
        let may_become = rest.is_empty() || rest == b"\r" || (padding == 0 && rest == b"-");
        if may_become && padding < HEAD_LIMIT { Ok(false) } else { Err(MultipartError::BrokenBoundary) }
    }

    fn head(&mut self) -> Result<Option<Event>, MultipartError> {
        let from = self.searched.saturating_sub(3);
        let Some(at) = self.buffer[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + from) else {
            self.searched = self.buffer.len();
            return if self.buffer.len() > HEAD_LIMIT { Err(MultipartError::LongHead) } else { Ok(None) };
        };
        if at > HEAD_LIMIT {
            return Err(MultipartError::LongHead);
        }
        let head = self.buffer.split_to(at);
        self.buffer.advance(4);
        self.state = State::Content;
        let head = std::str::from_utf8(&head).map_err(|_| MultipartError::NoText)?;
        let disposition = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
        });
        let parameters = disposition.and_then(|value| value.split_once(';')).ok_or(MultipartError::NoName)?.1;
        let name = parameter(parameters, "name").ok_or(MultipartError::NoName)?;
        Ok(Some(Event::Part { name, filename: parameter(parameters, "filename") }))
    }
}

enum Found {
    /// The whole needle begins here.
    Whole(usize),
    /// From here to the end, the needle's start; at the end when there is none.
    Start(usize),
}

/// Finds a needle that begins with a carriage return and has no other in it.
fn find(haystack: &[u8], needle: &[u8]) -> Found {
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == b'\r').map(|at| at + from) {
        let rest = &haystack[at..];
        if rest.starts_with(needle) {
            return Found::Whole(at);
        }
        if needle.starts_with(rest) {
            return Found::Start(at);
        }
        from = at + 1;
    }
    Found::Start(haystack.len())
}

/// One of `; name=value; name="quoted value"`, a backslash before a quote or a backslash taken out.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let (name, tail) = rest.split_once('=')?;
        let (value, tail) = match tail.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = tail.find(';').unwrap_or(tail.len());
                (tail[..end].trim().to_owned(), &tail[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = tail;
    }
}

fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = quoted.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' if matches!(letters.peek(), Some((_, '"' | '\\'))) => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=XyZ";

    fn parser() -> Multipart {
        Multipart::for_content_type(TYPE).unwrap().unwrap()
    }

    /// Parts with their contents, whatever pieces they came in.
    /// Name, file name and content of each part.
    type Parts = Vec<(String, Option<String>, Vec<u8>)>;

    fn parts(pieces: &[&[u8]]) -> Result<Parts, MultipartError> {
        let (mut parser, mut parts, mut open) = (parser(), Vec::new(), None);
        for piece in pieces {
            parser.feed(piece);
            while let Some(event) = parser.next()? {
                match event {
                    Event::Part { name, filename } => open = Some((name, filename, Vec::new())),
                    Event::Data(data) => open.as_mut().unwrap().2.extend_from_slice(&data),
                    Event::PartEnd => parts.push(open.take().unwrap()),
                }
            }
        }
        parser.finish().map(|()| parts)
    }

    fn sample() -> Vec<u8> {
        let mut text =
            b"ignored\r\n--XyZ\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"a \\\"b\\\".tar\"\r\n\
            Content-Type: application/octet-stream\r\n\r\n"
                .to_vec();
        text.extend_from_slice(b"one\r\n--Xy\r\n-\r\r\n--\r\n\0\xff");
        text.extend_from_slice(b"\r\n--XyZ \t\r\ncontent-disposition:form-data;name=rootfs\r\n\r\n");
        text.extend_from_slice(b"\r\n--XyZ--\r\nignored too\r\n--XyZ\r\n");
        text
    }

    #[test]
    fn a_body_split_at_every_byte_reads_the_same() {
        let text = sample();
        let wanted = vec![
            ("metadata".to_owned(), Some("a \"b\".tar".to_owned()), b"one\r\n--Xy\r\n-\r\r\n--\r\n\0\xff".to_vec()),
            ("rootfs".to_owned(), None, Vec::new()),
        ];
        assert_eq!(parts(&[&text]).unwrap(), wanted);
        for at in 0..text.len() {
            assert_eq!(parts(&[&text[..at], &text[at..]]).unwrap(), wanted, "split at {at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(parts(&bytes).unwrap(), wanted);
    }

    #[test]
    fn a_body_cut_short_anywhere_is_an_error() {
        let text = sample();
        let end = text.windows(7).position(|seven| seven == b"--XyZ--").unwrap() + 7;
        for at in 0..end {
            assert_eq!(parts(&[&text[..at]]), Err(MultipartError::Truncated), "cut at {at}");
        }
        parts(&[&text[..end]]).unwrap();
    }

    #[test]
    fn no_more_than_a_delimiter_is_held_back() {
        let mut parser = parser();
        parser.feed(b"--XyZ\r\nContent-Disposition: form-data; name=x\r\n\r\n");
        assert!(matches!(parser.next(), Ok(Some(Event::Part { .. }))));
        for _ in 0..100 {
            parser.feed(&[b'\r'; 10_000]);
            while parser.next().unwrap().is_some() {}
            assert!(parser.buffer.len() <= parser.delimiter.len());
        }
    }

    #[test]
    fn broken_bodies_are_refused() {
        let broken: [(&[u8], MultipartError); 5] = [
            (b"--XyZxyz\r\n", MultipartError::BrokenBoundary),
            (b"--XyZ -", MultipartError::BrokenBoundary),
            (b"--XyZ\r\n\r\ncontent", MultipartError::NoName),
            (b"--XyZ\r\nContent-Disposition: form-data; name=\xff\r\n\r\n", MultipartError::NoText),
            (b"--XyZ\r\nContent-Disposition: form-data; name=\"x\r\n\r\n", MultipartError::NoName),
        ];
        for (text, error) in broken {
            assert_eq!(parts(&[text]), Err(error), "{}", String::from_utf8_lossy(text));
        }
        let long = [b"--XyZ\r\n".as_slice(), &[b'a'; HEAD_LIMIT + 5]];
        assert_eq!(parts(&long), Err(MultipartError::LongHead));
        for bad in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"a"] {
            assert!(matches!(Multipart::for_content_type(bad), Some(Err(MultipartError::Boundary))), "{bad}");
        }
        assert!(Multipart::for_content_type("application/json").is_none());
    }
}
