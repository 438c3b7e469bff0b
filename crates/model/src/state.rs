//! The states of an instance, and what may be asked in each: a pure decision without a catch-all arm.
//!
//! ```text
//!            start                freeze
//!  Stopped ─────────▶ Running ◀──────────▶ Frozen
//!     ▲                  │        thaw        │
//!     └──────────────────┴────────────────────┘
//!                 stop, exit of init
//! ```

/// Where an instance is now. `Error` means its true state cannot be known (its shim died and left no trace).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Status {
    Stopped,
    Running,
    Frozen,
    Error,
}

impl Status {
    /// Incus's `status` word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "Stopped",
            Self::Running => "Running",
            Self::Frozen => "Frozen",
            Self::Error => "Error",
        }
    }

    /// Incus's `status_code`.
    pub fn code(self) -> u16 {
        match self {
            Self::Stopped => 102,
            Self::Running => 103,
            Self::Frozen => 110,
            Self::Error => 112,
        }
    }
}

/// A change of state that a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    Start,
    Stop,
    Restart,
    Freeze,
    Thaw,
    Delete,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Do,
    Refuse(&'static str),
}

/// Says whether `request` may be tried in `status`; the refusal is Incus's own sentence where it has one, because
/// clients match on it.
pub fn decide(status: Status, request: Request) -> Verdict {
    use {Request as R, Status as S};
    match (status, request) {
        (S::Stopped | S::Error, R::Start) => Verdict::Do,
        (S::Running, R::Start) => Verdict::Refuse("The instance is already running"),
        (S::Frozen, R::Start) => Verdict::Refuse("The instance is frozen; resume it first"),
        (S::Running | S::Frozen | S::Error, R::Stop) => Verdict::Do,
        (S::Running | S::Frozen, R::Restart) => Verdict::Do,
        (S::Stopped | S::Error, R::Restart) => Verdict::Refuse("The instance is not running"),
        (S::Stopped, R::Stop) => Verdict::Refuse("The instance is already stopped"),
        (S::Running, R::Freeze) => Verdict::Do,
        (S::Frozen, R::Freeze) => Verdict::Refuse("The instance is already frozen"),
        (S::Frozen, R::Thaw) => Verdict::Do,
        (S::Running, R::Thaw) => Verdict::Refuse("The instance is already running"),
        (S::Stopped | S::Error, R::Freeze | R::Thaw) => Verdict::Refuse("The instance isn't running"),
        (S::Stopped | S::Error, R::Delete) => Verdict::Do,
        (S::Running | S::Frozen, R::Delete) => Verdict::Refuse("Instance is running"),
    }
}
