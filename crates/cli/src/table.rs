//! Lists in the formats that `incus` prints: table, compact, csv, json, yaml, markdown.

use std::fmt::Write;

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::failure::{Failure, Result, fail};
use crate::{out, yaml};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Table,
    Compact,
    Csv,
    Json,
    Yaml,
    Markdown,
}

/// `--format`: a style with `,noheader` or `,header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    style: Style,
    header: Option<bool>,
}

impl std::str::FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut parts = text.split(',');
        let style = match parts.next().unwrap_or_default() {
            "table" => Style::Table,
            "compact" => Style::Compact,
            "csv" => Style::Csv,
            "json" => Style::Json,
            "yaml" => Style::Yaml,
            "markdown" => Style::Markdown,
            _ => {
                return Err(
                    "use table, compact, csv, json, yaml or markdown, then perhaps ,noheader or ,header".to_owned()
                );
            }
        };
        let mut header = None;
        for part in parts {
            match part {
                "noheader" => header = Some(false),
                "header" => header = header.or(Some(true)),
                "" => {}
                _ => return Err(format!("{part:?} is no modifier: use noheader or header")),
            }
        }
        Ok(Format { style, header })
    }
}

impl Format {
    /// Whether objects are shown as rows of cells, and not as they are.
    pub fn is_rows(self) -> bool {
        !matches!(self.style, Style::Json | Style::Yaml)
    }
}

/// What a column shows of a `T`.
pub type Cell<T> = fn(&T) -> String;

/// The columns a list can show, each with the letter that `--columns` names it by.
pub type Columns<T> = [(char, &'static str, Cell<T>)];

/// The columns that `letters` picks, in its order. Commas between letters are allowed.
pub fn pick<T>(all: &Columns<T>, letters: &str) -> Result<Vec<(&'static str, Cell<T>)>> {
    if letters.split(',').any(str::is_empty) {
        fail!("--columns {letters:?} has an empty entry");
    }
    let find = |letter: char| {
        let found = all.iter().find(|(l, _, _)| *l == letter).map(|(_, name, cell)| (*name, *cell));
        found.ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|(l, name, _)| format!("{l} ({})", name.to_lowercase())).collect();
            Failure::new(format!("there is no column {letter:?}")).hint(format!("columns are {}", known.join(", ")))
        })
    };
    letters.chars().filter(|c| *c != ',').map(find).collect()
}

/// Prints objects in the columns that `letters` picks, sorted by cell from left to right.
pub fn list<T: Serialize>(objects: &[T], all: &Columns<T>, letters: &str, format: Format) -> Result<()> {
    let columns = pick(all, letters)?;
    let rows = objects.iter().map(|object| columns.iter().map(|(_, cell)| cell(object)).collect()).collect();
    let headers: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    out::put(render(format, &headers, rows, objects)?)
}

/// The text of a list. `raw` is what JSON and YAML print instead of the rows.
pub fn render<R: Serialize + ?Sized>(
    format: Format,
    headers: &[&str],
    mut rows: Vec<Vec<String>>,
    raw: &R,
) -> Result<String> {
    crate::natural::sort_rows(&mut rows);
    let unserializable = |cause: serde_json::Error| Failure::new("cannot print this list").cause(cause);
    let show_header = format.header != Some(false);
    Ok(match format.style {
        Style::Json => serde_json::to_string(raw).map_err(unserializable)? + "\n",
        Style::Yaml => yaml::to_text(&serde_json::to_value(raw).map_err(unserializable)?),
        Style::Csv => csv(if format.header == Some(true) { headers } else { &[] }, &rows),
        Style::Table => boxed(if show_header { headers } else { &[] }, &rows),
        Style::Compact => compact(if show_header { headers } else { &[] }, &rows),
        Style::Markdown => markdown(headers, &rows),
    })
}

/// A table with a header, for lists within other output.
pub fn plain(headers: &[&str], rows: &[Vec<String>]) -> String {
    boxed(headers, rows)
}

/// Incus's table writer prints headings in capitals, with `_` and `.` as blanks.
fn heading(name: &str) -> String {
    name.replace(['_', '.'], " ").trim().to_uppercase()
}

fn widths(headers: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let count = rows.iter().map(Vec::len).chain([headers.len()]).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).chain(headers.get(column));
        cells.flat_map(|cell| cell.split('\n')).map(UnicodeWidthStr::width).max().unwrap_or(0)
    };
    (0..count).map(width).collect()
}

fn left(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

fn centered(text: &str, width: usize) -> String {
    let gap = width.saturating_sub(text.width());
    let before = gap / 2;
    format!("{}{text}{}", " ".repeat(before), " ".repeat(gap - before))
}

/// The lines of a row, every cell padded.
fn lines(row: &[String], widths: &[usize]) -> Vec<Vec<String>> {
    let height = row.iter().map(|cell| cell.split('\n').count()).max().unwrap_or(1);
    let cell = |line: usize, column: usize| {
        let text = row.get(column).and_then(|cell| cell.split('\n').nth(line)).unwrap_or_default();
        left(text, widths[column])
    };
    (0..height).map(|line| (0..widths.len()).map(|column| cell(line, column)).collect()).collect()
}

fn boxed(headers: &[&str], rows: &[Vec<String>]) -> String {
    let headers: Vec<_> = headers.iter().map(|h| heading(h)).collect();
    let widths = widths(&headers, rows);
    let rule: String = widths.iter().map(|w| format!("+{}", "-".repeat(w + 2))).collect::<String>() + "+\n";
    let mut text = rule.clone();
    let mut put = |cells: &[String]| _ = writeln!(text, "| {} |", cells.join(" | "));
    if !headers.is_empty() {
        put(&headers.iter().zip(&widths).map(|(h, w)| centered(h, *w)).collect::<Vec<_>>());
        text.push_str(&rule);
    }
    for row in rows {
        for line in lines(row, &widths) {
            _ = writeln!(text, "| {} |", line.join(" | "));
        }
        text.push_str(&rule);
    }
    text
}

fn compact(headers: &[&str], rows: &[Vec<String>]) -> String {
    let headers: Vec<_> = headers.iter().map(|h| heading(h)).collect();
    let widths = widths(&headers, rows);
    let mut text = String::new();
    let mut put = |cells: &[String]| _ = writeln!(text, "  {}  ", cells.join("  "));
    if !headers.is_empty() {
        put(&headers.iter().zip(&widths).map(|(h, w)| centered(h, *w)).collect::<Vec<_>>());
    }
    rows.iter().flat_map(|row| lines(row, &widths)).for_each(|line| put(&line));
    text
}

fn markdown(headers: &[&str], rows: &[Vec<String>]) -> String {
    let clean = |cell: &String| cell.replace('|', "\\|").replace('\n', "<br>");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(clean).collect()).collect();
    let headers: Vec<_> = headers.iter().map(|h| heading(h)).collect();
    let widths = widths(&headers, &rows);
    let mut text = String::new();
    let cells: Vec<_> = headers.iter().zip(&widths).map(|(h, w)| centered(h, *w)).collect();
    _ = writeln!(text, "| {} |", cells.join(" | "));
    let rules: Vec<_> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
    _ = writeln!(text, "|{}|", rules.join("|"));
    for line in rows.iter().flat_map(|row| lines(row, &widths)) {
        _ = writeln!(text, "| {} |", line.join(" | "));
    }
    text
}

fn csv(headers: &[&str], rows: &[Vec<String>]) -> String {
    let quoted = |cell: &str| {
        let special = cell.contains([',', '"', '\n', '\r']) || cell.starts_with(' ') || cell == "\\.";
        if special { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
    };
    let mut text = String::new();
    if !headers.is_empty() {
        text += &(headers.iter().map(|h| quoted(h)).collect::<Vec<_>>().join(",") + "\n");
    }
    for row in rows {
        text += &(row.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(format: &str, wanted: Expect) {
        let rows = [["c2", "STOPPED", ""], ["c10", "RUNNING", "10.1.2.3 (eth0)\n10.1.2.4 (eth1)"]];
        let rows = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        wanted.assert_eq(&render(format.parse().unwrap(), &["name", "STATE", "IPV4"], rows, &[1, 2]).unwrap());
    }

    #[test]
    fn a_table_looks_like_incus_s() {
        check(
            "table",
            expect![[r#"
                +------+---------+-----------------+
                | NAME |  STATE  |      IPV4       |
                +------+---------+-----------------+
                | c2   | STOPPED |                 |
                +------+---------+-----------------+
                | c10  | RUNNING | 10.1.2.3 (eth0) |
                |      |         | 10.1.2.4 (eth1) |
                +------+---------+-----------------+
            "#]],
        );
    }

    #[test]
    fn an_empty_table_is_its_header() {
        let text = render("table".parse().unwrap(), &["NAME"], Vec::new(), &[0; 0]).unwrap();
        assert_eq!(text, "+------+\n| NAME |\n+------+\n");
    }

    #[test]
    fn other_formats_carry_the_same_cells() {
        check(
            "csv",
            expect![[r#"
            c2,STOPPED,
            c10,RUNNING,"10.1.2.3 (eth0)
            10.1.2.4 (eth1)"
        "#]],
        );
        check(
            "csv,header",
            expect![[r#"
            name,STATE,IPV4
            c2,STOPPED,
            c10,RUNNING,"10.1.2.3 (eth0)
            10.1.2.4 (eth1)"
        "#]],
        );
        check("json", expect!["[1,2]\n"]);
        check("yaml", expect!["- 1\n- 2\n"]);
        check(
            "markdown",
            expect![[r#"
                | NAME |  STATE  |                IPV4                |
                |------|---------|------------------------------------|
                | c2   | STOPPED |                                    |
                | c10  | RUNNING | 10.1.2.3 (eth0)<br>10.1.2.4 (eth1) |
            "#]],
        );
    }

    #[test]
    fn unknown_formats_and_columns_are_named() {
        assert!("xml".parse::<Format>().is_err() && "csv,foo".parse::<Format>().is_err());
        let columns: &Columns<u8> = &[('n', "NAME", |n| n.to_string())];
        assert_eq!(pick(columns, "nq").unwrap_err().line, "there is no column 'q'");
        assert!(pick(columns, "n,").is_err());
    }
}
