//! Editing text in the user's editor, until the daemon accepts it.

use std::io::{BufRead, IsTerminal, Write};
use std::process::Command;

use crate::failure::{About, Failure, Result, fail};
use crate::terminal;

/// The editor: `VISUAL`, `EDITOR`, else the first usual one that is installed.
fn editor() -> Result<String> {
    let set = |name| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
    if let Some(editor) = set("VISUAL").or_else(|| set("EDITOR")) {
        return Ok(editor);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |name: &&&str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let found = ["editor", "vi", "emacs", "nano"].iter().find(installed);
    found
        .map(|name| (*name).to_owned())
        .ok_or_else(|| Failure::new("no text editor was found").hint("install one, or name it: `EDITOR=nano stapes …`"))
}

/// Opens a file in the editor and waits.
pub fn open(path: &std::path::Path) -> Result<()> {
    let editor = editor()?;
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program).args(words).arg(path).status();
    match status.about(|| format!("cannot run the editor {program:?}"))? {
        status if status.success() => Ok(()),
        status => fail!("the editor {program:?} ended with {status}; nothing was changed"),
    }
}

/// Edits `text` and returns it as it was saved.
pub fn edit(text: &str) -> Result<String> {
    let mut file = tempfile::Builder::new()
        .prefix("stapes-")
        .suffix(".yaml")
        .tempfile()
        .about(|| "cannot create a temporary file".to_owned())?;
    file.write_all(text.as_bytes()).about(|| "cannot write the temporary file".to_owned())?;
    open(file.path())?;
    // By name: many editors replace the file.
    std::fs::read_to_string(file.path()).about(|| "cannot read back what was edited".to_owned())
}

/// Edits until `accept` takes it. After a refusal the user may open the editor again, or stop with Ctrl-C.
pub async fn until<F>(text: String, mut accept: F) -> Result<()>
where
    F: AsyncFnMut(&str) -> Result<()>,
{
    let mut text = edit(&text)?;
    loop {
        let Err(failure) = accept(&text).await else { return Ok(()) };
        if !std::io::stdin().is_terminal() {
            return Err(failure);
        }
        eprint!("{}press enter to open the editor again, or ctrl+c to give up ", failure.render());
        terminal::restore();
        let mut answer = String::new();
        match std::io::stdin().lock().read_line(&mut answer) {
            Ok(0) | Err(_) => return Err(failure),
            Ok(_) => text = edit(&text)?,
        }
    }
}
