//! Who asks. Socket peers are known by their credentials; every operation and audit line carries them.

use stapes_engine::events::Requestor;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: i32,
    pub listener: Listener,
}

/// Which door the caller came through. The door is the identity: a confined user's socket never gives full rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// `unix.socket`: whoever may open it has full rights.
    Admin,
}

impl Caller {
    pub fn requestor(&self) -> Requestor {
        let username = user_name(self.uid).unwrap_or_else(|| self.uid.to_string());
        Requestor { username, protocol: "unix".to_owned(), address: "@".to_owned() }
    }
}

/// The user's name in `/etc/passwd`. Read without NSS: a directory service that hangs must not hang a request.
fn user_name(uid: u32) -> Option<String> {
    if uid == 0 {
        return Some("root".to_owned());
    }
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}
