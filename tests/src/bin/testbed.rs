//! Process 1 of a test's namespaces; see `stapes_testkit::testbed`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    stapes_testkit::testbed::serve()
}
