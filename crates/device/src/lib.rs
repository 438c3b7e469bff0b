//! Instance devices: configuration to plan.
#![forbid(unsafe_code)]
