//! Durable state: objects with a revision, compare-and-set, prefix scan, watch.
#![forbid(unsafe_code)]
