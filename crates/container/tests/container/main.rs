//! The driver on real containers. Needs root and busybox-static; `STAPES_TEST_DEBIAN` names a Debian root with systemd.

mod lifecycle;
mod program;
mod resources;
mod support;
