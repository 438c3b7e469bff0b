use serde_json::{Map, Value, json};

/// Longest line that is taken; QEMU's longest answers (schema, block graph) stay far below.
const LONGEST: usize = 8 * 1024 * 1024;

/// A line of QEMU's.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// First on every connection.
    Greeting {
        version: (u64, u64, u64),
    },
    Return {
        id: Option<u64>,
        value: Value,
    },
    /// A command was refused.
    Error {
        id: Option<u64>,
        class: String,
        description: String,
    },
    Event {
        name: String,
        data: Map<String, Value>,
        /// When it happened, in milliseconds since 1970; it may have waited for a listener. 0 where QEMU does not say.
        at: i64,
    },
}

/// Bytes that are no QMP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QmpError {
    #[error("QEMU sent a line of more than {LONGEST} bytes")]
    TooLong,
    #[error("QEMU sent a line that is no QMP: {0:.200}")]
    Line(String),
}

/// Bytes as they come, turned into lines, and commands into bytes.
#[derive(Debug, Default)]
pub struct Codec {
    pending: Vec<u8>,
    last_id: u64,
}

impl Codec {
    /// A command as bytes, with the id that its answer will carry.
    pub fn command(&mut self, name: &str, arguments: &Value) -> (u64, Vec<u8>) {
        self.last_id += 1;
        let mut command = json!({ "execute": name, "id": self.last_id });
        if !arguments.is_null() {
            command["arguments"] = arguments.clone();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(b'\n');
        (self.last_id, bytes)
    }

    /// Takes what was read and returns the lines that end in it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Incoming>, QmpError> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.pending.len() + piece.len() > LONGEST {
                return Err(QmpError::TooLong);
            }
            self.pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.pending);
                if !line.trim_ascii().is_empty() {
                    lines.push(parse(&line)?);
                }
            }
        }
        Ok(lines)
    }
}

fn parse(line: &[u8]) -> Result<Incoming, QmpError> {
    let strange = || QmpError::Line(String::from_utf8_lossy(line).into_owned());
    let mut value: Value = serde_json::from_slice(line).map_err(|_| strange())?;
    let object = value.as_object_mut().ok_or_else(strange)?;
    let id = object.get("id").and_then(Value::as_u64);
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    if let Some(greeting) = object.get("QMP") {
        let qemu = &greeting["version"]["qemu"];
        let part = |name: &str| qemu[name].as_u64().unwrap_or(0);
        return Ok(Incoming::Greeting { version: (part("major"), part("minor"), part("micro")) });
    }
    if let Some(value) = object.remove("return") {
        return Ok(Incoming::Return { id, value });
    }
    if let Some(error) = object.get("error") {
        return Ok(Incoming::Error { id, class: text(error, "class"), description: text(error, "desc") });
    }
    if let Some(name) = object.get("event").and_then(Value::as_str) {
        let data = object.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
        let stamp = |part: &str| object.get("timestamp").and_then(|stamp| stamp[part].as_i64()).unwrap_or(0);
        let at = stamp("seconds").saturating_mul(1000).saturating_add(stamp("microseconds") / 1000);
        return Ok(Incoming::Event { name: name.to_owned(), data, at });
    }
    Err(strange())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_says_is_told_apart() {
        let mut codec = Codec::default();
        let text = concat!(
            r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}"#,
            "\r\n",
            r#"{"return": {}, "id": 1}"#,
            "\r\n",
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#,
            "\r\n",
            r#"{"id": 2, "error": {"class": "GenericError", "desc": "no"}}"#,
            "\r\n",
        );
        let lines: Vec<_> = text.as_bytes().chunks(7).flat_map(|piece| codec.feed(piece).unwrap()).collect();
        assert_eq!(lines[0], Incoming::Greeting { version: (10, 0, 2) });
        assert_eq!(lines[1], Incoming::Return { id: Some(1), value: json!({}) });
        let Incoming::Event { name, data, at } = &lines[2] else { panic!("{:?}", lines[2]) };
        assert_eq!(*at, 1000);
        assert_eq!((name.as_str(), &data["reason"]), ("SHUTDOWN", &json!("guest-shutdown")));
        let refused = Incoming::Error { id: Some(2), class: "GenericError".into(), description: "no".into() };
        assert_eq!(lines[3], refused);
    }

    #[test]
    fn a_command_carries_an_id_of_its_own() {
        let mut codec = Codec::default();
        let (first, bytes) = codec.command("cont", &Value::Null);
        assert_eq!(bytes, format!("{{\"execute\":\"cont\",\"id\":{first}}}\n").into_bytes());
        let (second, bytes) = codec.command("device_del", &json!({ "id": "eth0" }));
        assert!(second > first && bytes.ends_with(b"\"arguments\":{\"id\":\"eth0\"}}\n"));
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        for text in ["{}\n", "[]\n", "\u{0}\n", "{\"return\"\n", "null\n"] {
            assert!(matches!(Codec::default().feed(text.as_bytes()), Err(QmpError::Line(_))), "{text:?}");
        }
        let mut codec = Codec::default();
        let endless = (0..=LONGEST / 65536).try_for_each(|_| codec.feed(&[b' '; 65536]).map(drop));
        assert_eq!(endless, Err(QmpError::TooLong));
    }
}
