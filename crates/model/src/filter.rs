//! Incus's OData-like filter of lists: `name eq c1 and status eq Running`.
//!
//! ```text
//! filter = clause { ("and" | "or") ["not"] clause }      evaluated from left to right, as Incus does
//! clause = field ("eq" | "ne") value                     field: name, config.limits.cpu, devices.eth0.type, …
//! value  = word | "…" | '…'
//! ```
//!
//! Text compares without regard to case, truth values and numbers by value. A field that the object has not is unequal to
//! everything. The command line's shorthand `key=value` is rewritten by the CLI, not here.

use serde_json::Value;

use crate::ErrorKind;

/// Bounds that no honest filter meets; they keep a hostile one cheap.
const LONGEST: usize = 16 * 1024;
const MOST_CLAUSES: usize = 256;

/// A parsed filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    clauses: Vec<Clause>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    /// How it joins what stands before it; the first joins nothing.
    join: Join,
    not: bool,
    field: String,
    equal: bool,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Join {
    And,
    Or,
}

/// Why a filter is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("the filter is longer than 16 KiB or has more than 256 conditions")]
    TooLong,
    #[error("the filter's quote that opens at character {at} is not closed")]
    OpenQuote { at: usize },
    #[error("the filter ends where {expected} should follow")]
    Ends { expected: &'static str },
    #[error("in the filter, {found:?} stands where {expected} should")]
    Unexpected { found: String, expected: &'static str },
}

impl FilterError {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadRequest
    }
}

impl Filter {
    /// An empty text is a filter that lets everything pass.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > LONGEST {
            return Err(FilterError::TooLong);
        }
        let mut tokens = tokens(text)?.into_iter();
        let mut clauses = Vec::new();
        let mut next = tokens.next();
        let mut join = Join::And;
        while let Some(token) = next.take() {
            let not = token == "not";
            let field = if not { tokens.next().ok_or(FilterError::Ends { expected: "a field" })? } else { token };
            let equal = is_equality(&tokens.next().ok_or(FilterError::Ends { expected: "eq or ne" })?)?;
            let value = tokens.next().ok_or(FilterError::Ends { expected: "a value" })?;
            clauses.push(Clause { join, not, field, equal, value });
            if clauses.len() > MOST_CLAUSES {
                return Err(FilterError::TooLong);
            }
            let Some(word) = tokens.next() else { break };
            join = match word.to_ascii_lowercase().as_str() {
                "and" => Join::And,
                "or" => Join::Or,
                _ => return Err(FilterError::Unexpected { found: short(&word), expected: "and or or" }),
            };
            next = Some(tokens.next().ok_or(FilterError::Ends { expected: "a condition" })?);
        }
        Ok(Self { clauses })
    }

    pub fn is_empty(&self) -> bool {
        self.clauses.is_empty()
    }

    /// The fields that the filter reads, so that a list joins live state only where it is asked for.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.clauses.iter().map(|clause| clause.field.as_str())
    }

    pub fn matches(&self, object: &Value) -> bool {
        let mut passes = true;
        for clause in &self.clauses {
            let holds = clause.holds(object);
            passes = match clause.join {
                Join::And => passes && holds,
                Join::Or => passes || holds,
            };
        }
        passes
    }
}

impl Clause {
    fn holds(&self, object: &Value) -> bool {
        let equal = find(object, &self.field).is_some_and(|value| same(value, &self.value));
        (equal == self.equal) != self.not
    }
}

fn is_equality(word: &str) -> Result<bool, FilterError> {
    match word.to_ascii_lowercase().as_str() {
        "eq" => Ok(true),
        "ne" => Ok(false),
        _ => Err(FilterError::Unexpected { found: short(word), expected: "eq or ne" }),
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Splits at blanks; quotes hold together, and a backslash within them keeps the next character.
fn tokens(text: &str) -> Result<Vec<String>, FilterError> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars().enumerate();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' | '\'' => {
                let open = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        None => return Err(FilterError::OpenQuote { at }),
                        Some((_, c)) if c == character => break,
                        Some((_, '\\')) => open.extend(characters.next().map(|(_, c)| c)),
                        Some((_, c)) => open.push(c),
                    }
                }
            }
            c if c.is_whitespace() => tokens.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word);
    Ok(tokens)
}

/// Follows a path whose keys may contain dots themselves (`config.limits.cpu`): the whole rest first, then the shorter.
fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    // Each step descends into the object, so the depth is bounded by what the object has, not by the path.
    let members = object.as_object()?;
    if let Some(value) = members.get(path) {
        return Some(value);
    }
    let mut ends = path.match_indices('.').map(|(at, _)| at);
    ends.find_map(|at| members.get(&path[..at]).and_then(|inner| find(inner, &path[at + 1..])))
}

fn same(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text.to_lowercase() == wanted.to_lowercase(),
        Value::Bool(truth) => wanted.parse::<bool>().ok() == Some(*truth),
        Value::Number(number) => match (number.as_i64(), wanted.parse::<i64>()) {
            (Some(number), Ok(wanted)) => number == wanted,
            _ => wanted.parse::<f64>().ok().is_some_and(|wanted| number.as_f64() == Some(wanted)),
        },
        Value::Null => wanted.is_empty(),
        Value::Array(items) => items.iter().any(|item| !item.is_array() && same(item, wanted)),
        Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn passes(filter: &str) -> bool {
        let object = json!({
            "name": "c1", "status": "Running", "ephemeral": false, "stateful": true, "size": 10, "profiles": ["default"],
            "config": {"limits.cpu": "2", "user.note": "it's \"a\" note"}, "devices": {"eth0": {"type": "nic"}},
        });
        Filter::parse(filter).unwrap().matches(&object)
    }

    #[test]
    fn conditions_join_from_left_to_right() {
        assert!(passes("") && passes("name eq c1") && passes("NAME eq c1") == passes("name eq c2"));
        assert!(passes("name eq c1 and status eq running") && !passes("name eq c1 and status eq stopped"));
        assert!(passes("name eq c2 or status eq Running") && passes("not name eq c2") && !passes("name ne c1"));
        assert!(!passes("name eq c1 or name eq c2 and status eq Stopped"), "(a or b) and c, as Incus evaluates");
        assert!(passes("name eq c2 or not status eq Stopped"));
    }

    #[test]
    fn fields_reach_into_the_object_and_values_compare_by_type() {
        assert!(passes("config.limits.cpu eq 2") && passes("devices.eth0.type eq nic"));
        assert!(passes("ephemeral eq false and stateful eq true and size eq 10 and profiles eq default"));
        assert!(passes("config.missing ne x") && !passes("config.missing eq x"));
        assert!(passes(r#"config.user.note eq "it's \"a\" note""#));
    }

    #[test]
    fn an_error_says_what_stands_where() {
        let error = |text| Filter::parse(text).unwrap_err().to_string();
        assert_eq!(error("name is c1"), "in the filter, \"is\" stands where eq or ne should");
        assert_eq!(error("name eq"), "the filter ends where a value should follow");
        assert_eq!(error("name eq c1 xor a eq b"), "in the filter, \"xor\" stands where and or or should");
        assert_eq!(error("name eq 'c1"), "the filter's quote that opens at character 8 is not closed");
        assert_eq!(error("name eq c1 and"), "the filter ends where a condition should follow");
        assert!(matches!(Filter::parse(&"a eq b or ".repeat(300)), Err(FilterError::TooLong)));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(name|eq|ne|and|or|not|config\\.a|[ '\"\\\\.a-zäß]){0,20}") {
            if let Ok(filter) = Filter::parse(&text) {
                filter.matches(&json!({"name": "c1", "config": {"a": {"a": "x"}}}));
            }
        }
    }
}
