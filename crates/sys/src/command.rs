//! What a command that somebody else chose is executed with: its environment, its working directory, its program in
//! `PATH`. For a process that is about to become it.

use std::{collections::BTreeMap, ffi::CString, io};

use crate::process;

/// Where programs are looked for when nobody said.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a command could not be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    /// 0 where the kernel was not asked.
    pub errno: i32,
    /// What a shell would answer: 127 for a program that is not there, else 126.
    pub code: i32,
}

/// Adds what is missing of PATH, HOME, USER, LANG and TERM (on a terminal). `passwd` is the text of `/etc/passwd`, which
/// is read by hand: name services load code.
pub fn environment(
    given: &BTreeMap<String, String>,
    uid: u32,
    on_terminal: bool,
    passwd: &str,
) -> BTreeMap<String, String> {
    let mut environment = given.clone();
    let id = uid.to_string();
    let entry: Option<Vec<&str>> = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 6 && fields[2] == id);
    let (user, home) = match &entry {
        Some(fields) => (Some(fields[0]), fields[5]),
        None if uid == 0 => (Some("root"), "/root"),
        None => (None, "/"),
    };
    let mut fill = |name: &str, value: &str| {
        environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    fill("PATH", DEFAULT_PATH);
    fill("HOME", home);
    fill("LANG", "C.UTF-8");
    if let Some(user) = user {
        fill("USER", user);
    }
    if on_terminal {
        fill("TERM", "xterm-256color");
    }
    environment
}

/// Enters `cwd`, which must be there; without one the home that `environment` names, or else `/`.
pub fn enter_directory(cwd: Option<&str>, environment: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let home = environment.get("HOME").map_or("/", String::as_str);
    let entered = match cwd {
        Some(cwd) => rustix::process::chdir(cwd).map_err(|error| (cwd, error)),
        None => rustix::process::chdir(home).or_else(|_| rustix::process::chdir("/")).map_err(|error| (home, error)),
    };
    entered.map_err(|(cwd, error)| Refusal {
        message: format!("failed to enter working directory {cwd}: {}", io::Error::from(error)),
        errno: error.raw_os_error(),
        code: 126,
    })
}

/// Becomes `command`, whose program is looked for in the environment's `PATH`. Returns only the reason why it could not.
pub fn execute(command: &[String], environment: &BTreeMap<String, String>) -> Refusal {
    let program = command.first().map(String::as_str).unwrap_or_default();
    let path = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let pairs: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let error = match (c_strings(command), c_strings(&pairs)) {
        (Ok(argv), Ok(environment)) if !argv.is_empty() => search(program, path, &argv, &environment),
        _ => io::ErrorKind::InvalidInput.into(),
    };
    let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR));
    let code = if missing { 127 } else { 126 };
    let message = if missing && !program.contains('/') { "not found in PATH".to_owned() } else { error.to_string() };
    Refusal { message, errno: error.raw_os_error().unwrap_or(0), code }
}

/// Tries each directory as execvp(3) does: a refusal is remembered, a missing file is not.
fn search(program: &str, path: &str, argv: &[CString], environment: &[CString]) -> io::Error {
    let attempt = |path: String| match CString::new(path) {
        Ok(path) => process::execve(&path, argv, environment),
        Err(_) => io::ErrorKind::InvalidInput.into(),
    };
    if program.contains('/') {
        return attempt(program.to_owned());
    }
    let mut verdict = io::Error::from_raw_os_error(libc::ENOENT);
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let error = attempt(format!("{directory}/{program}"));
        if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) {
            verdict = error;
        }
    }
    verdict
}

/// As C strings; text with a zero byte is refused.
pub fn c_strings(list: &[String]) -> io::Result<Vec<CString>> {
    list.iter().map(|text| CString::new(text.as_str()).map_err(|_| io::ErrorKind::InvalidInput.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_and_user_come_from_the_passwd() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n";
        let filled = environment(&BTreeMap::new(), 1000, false, passwd);
        assert_eq!((filled["HOME"].as_str(), filled["USER"].as_str()), ("/home/ann", "ann"));
        assert!(!filled.contains_key("TERM"));
    }

    #[test]
    fn what_the_caller_set_stays() {
        let given = BTreeMap::from([("TERM".to_owned(), "dumb".to_owned())]);
        let filled = environment(&given, 0, true, "");
        assert_eq!((filled["TERM"].as_str(), filled["HOME"].as_str()), ("dumb", "/root"));
    }

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_may_not_run() {
        let environment = environment(&BTreeMap::new(), 0, false, "");
        let code = |program: &str| execute(&[program.to_owned()], &environment).code;
        assert_eq!(code("no-such-program"), 127);
        assert_eq!(code("/nonexistent/program"), 127);
        assert_eq!(code("/etc/passwd"), 126);
        assert_eq!(execute(&[], &environment).code, 126);
    }
}
