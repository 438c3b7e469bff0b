//! Client of the REST API over a Unix socket.
#![forbid(unsafe_code)]
