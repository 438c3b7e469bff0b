use std::{io, path::Path, time::Duration};

use rustix::io::Errno;
use stapes_model::ErrorKind;

/// A control group operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The failed call with its arguments, as strace would print it.
    #[error("{call}")]
    Call {
        call: String,
        #[source]
        source: io::Error,
    },
    /// A limit was asked for and no hierarchy of this host can enforce it.
    #[error("{key} needs the cgroup controller {controller}, and this host has no {knob}")]
    ControllerMissing { controller: &'static str, key: &'static str, knob: &'static str },
    /// The kernel refused a limit's value.
    #[error("{key}: the kernel refuses {value:?} in {knob}")]
    Refused {
        key: &'static str,
        knob: &'static str,
        value: String,
        #[source]
        source: io::Error,
    },
    #[error("no cgroup hierarchy is mounted on this host")]
    NotMounted,
    #[error("{0:?} is not a name for a cgroup")]
    BadName(String),
    #[error("cgroup {group} did not become {wanted} within {} ms", patience.as_millis())]
    TimedOut { group: String, wanted: &'static str, patience: Duration },
    /// A group of an ended instance cannot be made as good as new.
    #[error("cgroup {group} still has {left}")]
    Used { group: String, left: String },
    /// The device filter could not be loaded or attached.
    #[error("failed to limit the devices of cgroup {group}")]
    Devices {
        group: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CgroupError {
    pub(crate) fn call(name: &str, path: &Path, errno: Errno) -> Self {
        Self::Call { call: format!("{name}({})", path.display()), source: errno.into() }
    }

    /// What a caller may act on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Call { source, .. } => match source.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT) => ErrorKind::NotFound,
                Some(Errno::EXIST) => ErrorKind::Conflict,
                Some(Errno::NOSPC | Errno::NOMEM | Errno::AGAIN) => ErrorKind::Exhausted,
                _ => ErrorKind::Internal,
            },
            Self::ControllerMissing { .. } | Self::NotMounted => ErrorKind::Unsupported,
            Self::Refused { .. } | Self::BadName(_) => ErrorKind::BadRequest,
            Self::TimedOut { .. } | Self::Used { .. } => ErrorKind::Unavailable,
            Self::Devices { .. } => ErrorKind::Internal,
        }
    }

    /// The kernel's error number, where there is one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { source, .. } | Self::Refused { source, .. } => {
                source.raw_os_error().map(Errno::from_raw_os_error)
            }
            _ => None,
        }
    }
}
