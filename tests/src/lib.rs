//! System tests live beside this file in `tests/`: each starts the real daemon through `stapes_testkit::Daemon`.
#![forbid(unsafe_code)]
