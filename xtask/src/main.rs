//! Project tasks: `cargo xtask <task>`.
#![forbid(unsafe_code)]

mod bench;
mod install;
mod programs;
mod quickstart;
mod setup;
mod shell;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask <task>

  setup [--tests|--peer|--undo]
                              install the Debian packages that are missing (--tests: the official clients too;
                              --peer: Incus itself, for bench; --undo: remove the apt source that was added)
  quickstart [--no-vm|--stop] from nothing to a running Debian container and a virtual machine beside it (--no-vm: without);
                              --stop takes all of it away again
  test [--require-all] [FILTER…]
                              every check and every test; FILTER goes to nextest, and then the checks are left out
  bench [--quick] [--density N] [--count N] [--rounds N] [--no-debian] [--no-peer|--only-peer]
                              the figures of SPECIFICATION.md, beside the floor and Incus
  install [--prefix DIR]      build release programs and copy them beneath DIR (default /usr/local)
  dist                        a release archive in target/dist
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (task, rest) = words.split_first().map_or(("help", &[][..]), |(task, rest)| (*task, rest));
    let done = match task {
        "setup" => setup::main(rest),
        "quickstart" => quickstart::main(rest),
        "test" => test::main(rest),
        "bench" => bench::main(rest),
        "install" => install::install(rest),
        "dist" => install::dist(),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => Err(anyhow::anyhow!("there is no task {other:?}\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  cause: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}
