//! What a guest is told at its start, on the drive that brings its agent: who it is, and which files that calls for.

use serde::{Deserialize, Serialize};

/// File name of an [`Introduction`] in the configuration share and drive, as JSON.
pub const INTRODUCTION_FILE: &str = "instance.json";

/// Who a machine is. The agent follows it once a boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// Of the instance. A disk that was introduced with another one, or never, is a new machine's.
    pub uuid: String,
    pub name: String,
    /// For a new machine.
    #[serde(default)]
    pub create: Vec<IntroducedFile>,
    /// For a machine whose name is not the one that its disk was introduced with.
    #[serde(default)]
    pub rename: Vec<IntroducedFile>,
    /// For every boot.
    #[serde(default)]
    pub start: Vec<IntroducedFile>,
}

/// A file that the agent writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntroducedFile {
    /// Absolute.
    pub path: String,
    pub content: String,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Leave the file alone where it exists.
    #[serde(default)]
    pub create_only: bool,
}
