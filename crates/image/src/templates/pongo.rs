//! Pongo2's dialect, which images are written in, as minijinja's.
//!
//! Outside of tags nothing changes. Inside: `x|default:"y"` becomes `x|default("y")`, `&&`, `||` and `!` become words,
//! `{% comment %}` blocks vanish, and loops over a map get `items`.

/// Statements that exist here. `set` and `with` are not among them: they let a text double itself in a few steps.
const STATEMENTS: &[&str] = &["if", "elif", "else", "endif", "for", "empty", "endfor", "autoescape", "endautoescape"];

pub(super) fn translate(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let (open, close) = match rest.as_bytes().get(1) {
            Some(b'{') => ("{{", "}}"),
            Some(b'%') => ("{%", "%}"),
            Some(b'#') => {
                let end = rest.find("#}").ok_or("a comment is not closed")?;
                rest = &rest[end + 2..];
                continue;
            }
            _ => {
                out.push('{');
                rest = &rest[1..];
                continue;
            }
        };
        let end = find_close(&rest[2..], close).ok_or_else(|| format!("a {open} is not closed"))?;
        let inner = &rest[2..2 + end];
        rest = &rest[2 + end + 2..];
        let (left, inner) = marker(inner);
        if open == "{{" {
            out.extend(["{{", left.0, &expression(inner)?, left.1, "}}"]);
            continue;
        }
        let word = inner.split_whitespace().next().unwrap_or_default();
        if word == "comment" {
            rest = skip_comment(rest)?;
            continue;
        }
        if !STATEMENTS.contains(&word) {
            return Err(format!("the statement {word:?} is not allowed in templates"));
        }
        match word {
            // Nothing is escaped anyway.
            "autoescape" | "endautoescape" => {}
            "empty" => out.extend(["{%", left.0, " else ", left.1, "%}"]),
            _ => out.extend(["{%", left.0, &statement(word, inner)?, left.1, "%}"]),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The whitespace markers of a tag (`{{-`, `-%}`) and what is between them.
fn marker(inner: &str) -> ((&'static str, &'static str), &str) {
    let (left, inner) = inner.strip_prefix('-').map_or(("", inner), |inner| ("-", inner));
    let (right, inner) = inner.strip_suffix('-').map_or(("", inner), |inner| ("-", inner));
    ((left, right), inner)
}

fn find_close(text: &str, close: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(close.as_bytes()) => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn skip_comment(text: &str) -> Result<&str, String> {
    let mut rest = text;
    while let Some(start) = rest.find("{%") {
        rest = &rest[start + 2..];
        let Some(end) = rest.find("%}") else { break };
        if marker(&rest[..end]).1.trim() == "endcomment" {
            return Ok(&rest[end + 2..]);
        }
    }
    Err("a comment block is not closed".into())
}

fn statement(word: &str, inner: &str) -> Result<String, String> {
    let text = expression(inner)?;
    if word == "for"
        && let Some((names, over)) = text.split_once(" in ")
        && names.contains(',')
    {
        // Pongo2 walks a map by key and value; jinja's way to say so.
        let over = over.trim();
        return Ok(format!("{names} in {over}|items "));
    }
    Ok(text)
}

fn expression(inner: &str) -> Result<String, String> {
    let mut out = String::with_capacity(inner.len() + 8);
    let mut chars = inner.char_indices().peekable();
    // A filter's name was read and its colon may come.
    let mut after_filter = false;
    while let Some((at, c)) = chars.next() {
        match c {
            '"' | '\'' => {
                let length = literal(&inner[at..])?;
                out.push_str(&inner[at..at + length]);
                while chars.next_if(|(next, _)| *next < at + length).is_some() {}
                after_filter = false;
            }
            '|' if chars.next_if(|(_, next)| *next == '|').is_some() => out.push_str(" or "),
            '|' => {
                after_filter = true;
                out.push('|');
            }
            '&' if chars.next_if(|(_, next)| *next == '&').is_some() => out.push_str(" and "),
            '!' if chars.peek().is_none_or(|(_, next)| *next != '=') => out.push_str(" not "),
            ':' if after_filter => {
                after_filter = false;
                let rest = inner[at + 1..].trim_start();
                let skipped = inner.len() - rest.len();
                let length = if rest.starts_with(['"', '\'']) {
                    literal(rest)?
                } else {
                    rest.find(|c: char| !(c.is_alphanumeric() || "._-".contains(c))).unwrap_or(rest.len())
                };
                out.extend(["(", &rest[..length], ")"]);
                while chars.next_if(|(next, _)| *next < skipped + length).is_some() {}
            }
            '~' => return Err("the operator ~ is not allowed in templates".into()),
            c => {
                if after_filter && !(c.is_alphanumeric() || c == '_' || c.is_whitespace()) {
                    after_filter = false;
                }
                out.push(c);
            }
        }
    }
    Ok(out.replace("forloop.Counter0", "loop.index0").replace("forloop.Counter", "loop.index"))
}

/// Bytes of the quoted text at the start.
fn literal(text: &str) -> Result<usize, String> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == bytes[0] => return Ok(at + 1),
            _ => at += 1,
        }
    }
    Err("a quoted text is not closed".into())
}
