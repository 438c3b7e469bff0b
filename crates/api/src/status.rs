//! Numeric status codes, the stable half of every `status`/`status_code` pair.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// State of an operation or an instance. Below 200 it may still change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct StatusCode(pub u16);

impl StatusCode {
    pub const OPERATION_CREATED: Self = Self(100);
    pub const STARTED: Self = Self(101);
    pub const STOPPED: Self = Self(102);
    pub const RUNNING: Self = Self(103);
    pub const CANCELLING: Self = Self(104);
    pub const PENDING: Self = Self(105);
    pub const STARTING: Self = Self(106);
    pub const STOPPING: Self = Self(107);
    pub const ABORTING: Self = Self(108);
    pub const FREEZING: Self = Self(109);
    pub const FROZEN: Self = Self(110);
    pub const THAWED: Self = Self(111);
    pub const ERROR: Self = Self(112);
    pub const READY: Self = Self(113);
    pub const SUCCESS: Self = Self(200);
    pub const FAILURE: Self = Self(400);
    pub const CANCELLED: Self = Self(401);

    /// The word that goes with the number; empty for a number Incus does not know.
    pub fn name(self) -> &'static str {
        match self.0 {
            100 => "Operation created",
            101 => "Started",
            102 => "Stopped",
            103 => "Running",
            104 => "Cancelling",
            105 => "Pending",
            106 => "Starting",
            107 => "Stopping",
            108 => "Aborting",
            109 => "Freezing",
            110 => "Frozen",
            111 => "Thawed",
            112 => "Error",
            113 => "Ready",
            200 => "Success",
            400 => "Failure",
            401 => "Cancelled",
            _ => "",
        }
    }

    /// Whether an operation in this state is over.
    pub fn is_final(self) -> bool {
        self.0 >= 200
    }
}
