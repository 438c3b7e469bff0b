//! The user's own settings: `config.yml` in `STAPES_CONF`, else in `~/.config/stapes`.

use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::failure::{About, Result};
use crate::yaml;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    #[serde(rename = "default-remote", skip_serializing_if = "Option::is_none")]
    pub default_remote: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let dir = set("STAPES_CONF").or_else(|| Some(set("HOME")?.join(".config/stapes")))?;
    Some(dir.join("config.yml"))
}

impl Settings {
    pub fn load() -> Result<Self> {
        let Some(path) = path() else { return Ok(Settings::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => yaml::parse(&text).map_err(|failure| failure.within(format!("cannot read {}", path.display()))),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(Settings::default()),
            Err(cause) => Err(cause).about(|| format!("cannot read {}", path.display())),
        }
    }

    pub fn save(&self) -> Result<()> {
        let path = path().ok_or_else(|| crate::failure::Failure::new("neither STAPES_CONF nor HOME is set"))?;
        let dir = path.parent().map(std::fs::create_dir_all).transpose();
        dir.and_then(|_| std::fs::write(&path, yaml::of(self).unwrap_or_default()))
            .about(|| format!("cannot write {}", path.display()))
    }
}
