//! Control groups v2, v1 and hybrid behind one type.
#![forbid(unsafe_code)]
