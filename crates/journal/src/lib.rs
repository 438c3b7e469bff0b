//! What is under way on this host, and the event ring.
#![forbid(unsafe_code)]
