//! REST wire types of the Incus API 1.0 as Stapes speaks it.
#![forbid(unsafe_code)]
