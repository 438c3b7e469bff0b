//! `stapesd`: the daemon. Opens the engine, makes the host agree with the store, serves the API.
#![forbid(unsafe_code)]

mod authorization;
mod caller;
mod convert;
mod daemon;
mod multipart;
mod openapi;
mod percent;
#[cfg(test)]
mod remote_tests;
mod reply;
mod request;
mod rest;
mod router;
mod run;
mod server;
mod streams;
mod transfer;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The confined image worker is this program under another name: nothing else is set up in it.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == run::WORKER) {
        return stapes_image::worker::main();
    }
    match run::run() {
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
