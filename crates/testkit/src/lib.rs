//! Test support: pools, cgroups, namespaces, whole daemons.
#![forbid(unsafe_code)]
