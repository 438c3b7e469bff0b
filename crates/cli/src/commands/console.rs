//! `console`: the terminal that the instance's init writes to.

use std::io::IsTerminal;

use clap::Args;
use futures_util::{SinkExt, StreamExt};
use stapes_api::{InstanceConsolePost, InstanceState, StatusCode};
use stapes_client::{ExecStreams, Message, Target};

use super::exec::{Output, Signals, copy_out, stdin_chunks, steer};
use crate::context::Ctx;
use crate::failure::{Failure, Result, fail};
use crate::{out, terminal};

#[derive(Args, Debug)]
pub struct Console {
    /// Instance
    #[arg(value_name = "INSTANCE")]
    name: String,
    /// Take it over from whoever is attached
    #[arg(long, short)]
    force: bool,
    /// Print what the console has shown so far
    #[arg(long)]
    show_log: bool,
    /// console, or vga for a virtual machine's screen
    #[arg(long = "type", short = 't', default_value = "console", value_parser = ["console", "vga"])]
    kind: String,
}

impl Console {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        let name = ctx.instance(&self.name)?;
        if self.show_log {
            return show_log(ctx, name).await;
        }
        attach(ctx, name, &self.kind, self.force).await
    }
}

async fn show_log(ctx: &Ctx, name: &str) -> Result<()> {
    let target = Target::new("/1.0/instances").join(name).join("console");
    let mut log = ctx.client.download(target).await?;
    while let Some(chunk) = log.chunk().await? {
        out::put(chunk)?;
    }
    out::line("")
}

/// Attaches after a start; if the instance has stopped meanwhile, its log says why.
pub async fn attach_and_explain(ctx: &Ctx, name: &str, kind: &str) -> Result<()> {
    let Err(failure) = attach(ctx, name, kind, false).await else { return Ok(()) };
    let target = Target::new("/1.0/instances").join(name).join("state");
    match ctx.client.get::<InstanceState>(target).await {
        Ok(state) if state.status_code == StatusCode::STOPPED => show_log(ctx, name).await,
        _ => Err(failure),
    }
}

async fn attach(ctx: &Ctx, name: &str, kind: &str, force: bool) -> Result<()> {
    if kind == "vga" {
        fail!("the screen of a virtual machine (--type vga) is not available yet");
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("the console needs a terminal")
            .hint(format!("`stapes console {name} --show-log` prints what it has shown")));
    }
    let (width, height) = terminal::size().unwrap_or((80, 25));
    let post = InstanceConsolePost { width: width as i64, height: height as i64, kind: kind.to_owned(), force };
    let signals = Signals::new()?;
    let session = ctx.client.console(name, &post).await?;
    out::line("To detach from the console, press: <ctrl>+a q")?;
    let _raw = terminal::Raw::enter()?;
    let ExecStreams { stdin, control, .. } = session.streams;
    let (mut send, receive) = stdin.split();
    let typed = async {
        let mut input = stdin_chunks();
        let mut escape = Escape::default();
        while let Some(chunk) = input.recv().await {
            let (bytes, detach) = escape.filter(&chunk);
            if !bytes.is_empty() && send.send(Message::binary(bytes)).await.is_err() {
                return;
            }
            if detach {
                _ = send.close().await;
                return;
            }
        }
    };
    let mut steering = control.map(|control| tokio::spawn(steer(control, signals, true)));
    tokio::select! {
        () = typed => {}
        () = copy_out(receive, Output::Stdout) => {}
    }
    if let Some(steering) = steering.take() {
        steering.abort();
    }
    terminal::restore();
    out::put("\r\n")
}

/// Finds ctrl+a q in what is typed; ctrl+a twice sends one.
#[derive(Debug, Default)]
struct Escape {
    is_armed: bool,
}

impl Escape {
    /// What goes to the console, and whether to detach after it.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut bytes = Vec::with_capacity(typed.len());
        for &byte in typed {
            match (self.is_armed, byte) {
                (false, 1) => self.is_armed = true,
                (true, b'q') => return (bytes, true),
                _ => {
                    self.is_armed = false;
                    bytes.push(byte);
                }
            }
        }
        (bytes, false)
    }
}

#[cfg(test)]
mod tests {
    use super::Escape;

    #[test]
    fn ctrl_a_q_detaches_even_across_reads() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"ls\r"), (b"ls\r".to_vec(), false));
        assert_eq!(escape.filter(b"x\x01"), (b"x".to_vec(), false));
        assert_eq!(escape.filter(b"q rest"), (Vec::new(), true));
    }

    #[test]
    fn ctrl_a_twice_sends_one_and_another_key_passes() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"\x01\x01"), (vec![1], false));
        assert_eq!(escape.filter(b"\x01nq"), (b"nq".to_vec(), false));
    }
}
