//! The `stapes` command line: what `incus` accepts, word for word.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod context;
mod editor;
mod failure;
mod natural;
mod object;
mod out;
mod progress;
mod settings;
mod suggest;
mod table;
mod terminal;
mod units;
mod yaml;

use std::process::ExitCode;

use crate::args::Cli;
use crate::context::Ctx;
use crate::failure::Result;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(failure) = args::not_yet(&words) {
        eprint!("{}", failure.render());
        return ExitCode::FAILURE;
    }
    // Incus's client, like ours, ends with 1 on a wrong command line, not with clap's 2.
    let cli = match args::parse(&words) {
        Ok(cli) => cli,
        Err(usage) => {
            // Nothing can be done about a closed stderr.
            let _ = usage.print();
            return ExitCode::from(u8::from(usage.use_stderr()));
        }
    };
    let code = run(cli);
    terminal::restore();
    // Not a return: a thread may still wait for standard input, and nobody waits for it.
    std::process::exit(code)
}

fn run(cli: Cli) -> i32 {
    let ctx = match Ctx::new(cli.global.quiet, cli.global.project.clone()) {
        Ok(ctx) => ctx,
        Err(failure) => {
            eprint!("{}", failure.render());
            return 1;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            eprintln!("error: cannot start\n  cause: {cause}");
            return 1;
        }
    };
    runtime.block_on(async {
        match dispatch(cli, &ctx).await {
            Ok(code) => code,
            Err(failure) => {
                let failure = ctx.explain(failure).await;
                terminal::restore();
                eprint!("{}", failure.render());
                1
            }
        }
    })
}

async fn dispatch(cli: Cli, ctx: &Ctx) -> Result<i32> {
    Box::pin(cli.command.run(ctx)).await
}
