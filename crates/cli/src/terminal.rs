//! The terminal: its size, and raw mode that never outlives its use.

use std::io::IsTerminal;
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::failure::{About, Result};

static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Columns and rows of the terminal on stdout, stderr or stdin; `None` where there is none.
pub fn size() -> Option<(usize, usize)> {
    let found = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stderr()));
    let found = found.or_else(|_| tcgetwinsize(std::io::stdin())).ok()?;
    (found.ws_col > 0).then_some((usize::from(found.ws_col), usize::from(found.ws_row)))
}

/// Raw mode on stdin while this lives. [`restore`] does the same from any other way out.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Nothing happens where stdin is no terminal.
    pub fn enter() -> Result<Raw> {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            let attributes = tcgetattr(&stdin).map_err(Into::into);
            let before = attributes.about(|| "cannot read the terminal's settings".to_owned())?;
            let mut raw = before.clone();
            raw.make_raw();
            if let Ok(mut kept) = BEFORE.lock() {
                kept.get_or_insert(before);
            }
            let set = tcsetattr(&stdin, OptionalActions::Drain, &raw).map_err(Into::into);
            set.about(|| "cannot put the terminal into raw mode".to_owned())?;
        }
        Ok(Raw(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was found; harmless at any time.
pub fn restore() {
    if let Ok(mut kept) = BEFORE.lock()
        && let Some(before) = kept.take()
    {
        // A terminal that is gone cannot be restored.
        _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}
