//! The unpacking worker as a program of its own, for tests; the daemon starts itself instead.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    stapes_image::worker::main()
}
