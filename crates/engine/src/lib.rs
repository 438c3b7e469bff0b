//! Workflows, operations and reconciliation, without HTTP.
#![forbid(unsafe_code)]
