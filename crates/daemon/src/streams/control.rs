//! The control websocket of exec and console: JSON messages from the client.

use futures_util::StreamExt;
use stapes_api::InstanceExecControl;
use tokio_tungstenite::tungstenite::Message;

use super::upgrade::Source;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Resize { columns: u16, rows: u16 },
    Signal(i32),
}

/// Understands one message; `None` for what is unknown or makes no sense, which Incus ignores too.
fn parse(bytes: &[u8]) -> Option<Control> {
    let message: InstanceExecControl = serde_json::from_slice(bytes).ok()?;
    let size = |name: &str| message.args.get(name)?.parse().ok();
    match message.command.as_str() {
        "window-resize" => Some(Control::Resize { columns: size("width")?, rows: size("height")? }),
        "signal" => i32::try_from(message.signal).ok().filter(|signal| (1..=64).contains(signal)).map(Control::Signal),
        _ => None,
    }
}

/// The next request; `None` when the client left.
pub async fn next(source: &mut Source) -> Option<Control> {
    loop {
        let parsed = match source.next().await? {
            Ok(Message::Text(text)) => parse(text.as_bytes()),
            Ok(Message::Binary(bytes)) => parse(&bytes),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => None,
        };
        if parsed.is_some() {
            return parsed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_strings_and_signals_are_numbers() {
        let resize = br#"{"command":"window-resize","args":{"width":"132","height":"50"}}"#;
        assert_eq!(parse(resize), Some(Control::Resize { columns: 132, rows: 50 }));
        assert_eq!(parse(br#"{"command":"signal","args":null,"signal":15}"#), Some(Control::Signal(15)));
    }

    #[test]
    fn nonsense_is_ignored() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"command":"reboot"}"#,
            r#"{"command":"window-resize","args":{"width":"-1","height":"99999"}}"#,
            r#"{"command":"signal","signal":0}"#,
            r#"{"command":"signal","signal":4294967305}"#,
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
