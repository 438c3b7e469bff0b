//! Storage pools and volumes.
#![forbid(unsafe_code)]
