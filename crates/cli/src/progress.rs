//! One line on a terminal that says how far things are.

use std::io::{IsTerminal, Write};

use unicode_width::UnicodeWidthStr;

/// A line on stderr that overwrites itself; nothing where stderr is no terminal or `--quiet` is given.
#[derive(Debug)]
pub struct Progress {
    label: String,
    is_shown: bool,
    drawn: usize,
}

impl Progress {
    /// `label` precedes what `show` gets; it may be empty.
    pub fn new(quiet: bool, label: &str) -> Self {
        Progress { label: label.to_owned(), is_shown: !quiet && std::io::stderr().is_terminal(), drawn: 0 }
    }

    pub fn show(&mut self, text: &str) {
        if !self.is_shown {
            return;
        }
        let line = if self.label.is_empty() { text.to_owned() } else { format!("{}: {text}", self.label) };
        let line = fit(&line, crate::terminal::size().map_or(80, |(columns, _)| columns));
        let blank = " ".repeat(self.drawn.saturating_sub(line.width()));
        self.drawn = line.width();
        // A lost progress line is not worth failing for.
        _ = write!(std::io::stderr(), "\r{line}{blank}");
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.drawn > 0 {
            _ = write!(std::io::stderr(), "\r{}\r", " ".repeat(self.drawn));
            self.drawn = 0;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn fit(line: &str, columns: usize) -> String {
    let flat: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if flat.width() < columns { flat } else { flat.chars().take(columns.saturating_sub(2)).collect::<String>() + "…" }
}
