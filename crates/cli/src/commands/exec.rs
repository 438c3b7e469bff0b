//! `exec` and `shell`: a command in an instance, as if it ran here.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use clap::Args;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use stapes_api::{InstanceExecControl, InstanceExecPost};
use stapes_client::{ExecStreams, Message, Socket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::context::Ctx;
use crate::failure::{About, Failure, Result, fail};
use crate::terminal;

#[derive(Args, Debug)]
pub struct Exec {
    /// Instance
    #[arg(value_name = "INSTANCE")]
    name: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
pub struct Shell {
    /// Instance
    #[arg(value_name = "INSTANCE")]
    name: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct How {
    /// Directory to run in
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Take nothing from standard input
    #[arg(long, short = 'n')]
    disable_stdin: bool,
    /// Set an environment variable
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// With a terminal, even if this is none
    #[arg(long, short = 't', conflicts_with = "force_noninteractive")]
    force_interactive: bool,
    /// Without a terminal, even if this is one
    #[arg(long, short = 'T')]
    force_noninteractive: bool,
    /// Numeric group to run as
    #[arg(long, value_name = "GID")]
    group: Option<u32>,
    /// auto, interactive or non-interactive
    #[arg(long, default_value = "auto", value_parser = ["auto", "interactive", "non-interactive"])]
    mode: String,
    /// Numeric user to run as
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
}

impl Exec {
    pub async fn run(self, ctx: &Ctx) -> Result<i32> {
        run(ctx, &self.name, self.command, &self.how).await
    }
}

impl Shell {
    pub async fn run(self, ctx: &Ctx) -> Result<i32> {
        let command = ["su", "-l"].map(str::to_owned).to_vec();
        run(ctx, &self.name, command, &self.how).await
    }
}

impl How {
    fn is_interactive(&self) -> Result<bool> {
        if self.mode != "auto" && (self.force_interactive || self.force_noninteractive) {
            fail!("--mode and -t or -T exclude each other");
        }
        let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        Ok(match self.mode.as_str() {
            _ if self.disable_stdin || self.force_noninteractive => false,
            "interactive" => true,
            "non-interactive" => false,
            _ => self.force_interactive || on_terminal,
        })
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let term = std::env::var("TERM").ok().map(|term| ("TERM".to_owned(), term));
        let given = self.env.iter().map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        });
        term.into_iter().chain(given).collect()
    }
}

async fn run(ctx: &Ctx, spec: &str, command: Vec<String>, how: &How) -> Result<i32> {
    let name = ctx.instance(spec)?;
    let interactive = how.is_interactive()?;
    let (width, height) = if std::io::stdout().is_terminal() { terminal::size().unwrap_or((0, 0)) } else { (0, 0) };
    let post = InstanceExecPost {
        command,
        environment: how.environment(),
        interactive,
        width: width as i64,
        height: height as i64,
        user: how.user.unwrap_or(0),
        group: how.group.unwrap_or(0),
        cwd: how.cwd.clone().unwrap_or_default(),
        ..InstanceExecPost::default()
    };
    // Before the command starts, so that no signal of the first moment is lost.
    let signals = Signals::new()?;
    let session = ctx.client.exec(name, &post).await?;
    let _raw = if interactive { Some(terminal::Raw::enter()?) } else { None };
    let ExecStreams { stdin, stdout, stderr, control } = session.streams;
    let (to_stdin, from_stdin) = stdin.split();
    if let Some(control) = control {
        tokio::spawn(steer(control, signals, interactive));
    }
    let input = if how.disable_stdin || stdin_is_null() { None } else { Some(stdin_chunks()) };
    tokio::spawn(feed(to_stdin, input));
    let outputs = async {
        if interactive {
            copy_out(from_stdin, Output::Stdout).await;
        } else {
            tokio::spawn(drain(from_stdin));
            let one = async |socket: Option<Socket>, output| {
                if let Some(socket) = socket {
                    copy_out(socket.split().1, output).await;
                }
            };
            tokio::join!(one(stdout, Output::Stdout), one(stderr, Output::Stderr));
        }
    };
    let (code, ()) = tokio::join!(ctx.client.exit_code(&session.operation), outputs);
    let (code, why) = code?;
    if let Some(error) = why {
        eprintln!("error: {}", error.message);
    }
    Ok(code)
}

#[derive(Clone, Copy)]
pub enum Output {
    Stdout,
    Stderr,
}

/// Whether standard input is `/dev/null`, as it is under most programs that run commands: a thread that reads its end
/// costs as much as asking for it.
fn stdin_is_null() -> bool {
    let null = rustix::fs::stat("/dev/null").map(|file| file.st_rdev);
    rustix::fs::fstat(rustix::stdio::stdin()).is_ok_and(|file| file.st_rdev != 0 && Ok(file.st_rdev) == null)
}

/// What is typed or piped in, read by a thread of its own: a terminal must not be made non-blocking, since others share
/// it. The channel closes at the end of input.
pub fn stdin_chunks() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            if sender.blocking_send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Sends input on; an empty text frame tells its end.
async fn feed(mut socket: SplitSink<Socket, Message>, input: Option<mpsc::Receiver<Vec<u8>>>) {
    if let Some(mut input) = input {
        while let Some(chunk) = input.recv().await {
            if socket.send(Message::binary(chunk)).await.is_err() {
                return;
            }
        }
    }
    // A command that has ended reads no more.
    _ = socket.send(Message::text("")).await;
    // Kept open: closing it would end the session.
    std::future::pending::<()>().await;
}

/// Reads what comes, so that pings are answered.
async fn drain(mut socket: SplitStream<Socket>) {
    while let Some(Ok(_)) = socket.next().await {}
}

/// Writes a stream out until its end. The writing happens on a thread, so that a reader that pauses does not hold up
/// signals and input.
pub async fn copy_out(mut socket: SplitStream<Socket>, output: Output) {
    let mut writer: Option<(mpsc::Sender<Message>, std::thread::JoinHandle<()>)> = None;
    while let Some(Ok(message)) = socket.next().await {
        match &message {
            Message::Binary(bytes) if bytes.is_empty() => continue,
            Message::Text(text) if text.is_empty() => break,
            Message::Binary(_) | Message::Text(_) => {}
            Message::Close(_) => break,
            _ => continue,
        }
        let (sender, _) = writer.get_or_insert_with(|| write_thread(output));
        if sender.send(message).await.is_err() {
            break;
        }
    }
    if let Some((sender, thread)) = writer {
        drop(sender);
        // Joined without blocking the runtime; it ends when all is written.
        _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

fn write_thread(output: Output) -> (mpsc::Sender<Message>, std::thread::JoinHandle<()>) {
    let (sender, mut receiver) = mpsc::channel::<Message>(16);
    let thread = std::thread::spawn(move || {
        while let Some(message) = receiver.blocking_recv() {
            let data = message.into_data();
            if write_all(output, &data).is_err() {
                return;
            }
        }
    });
    (sender, thread)
}

/// Past the buffers of std: what a program prints must appear at once.
fn write_all(output: Output, mut data: &[u8]) -> rustix::io::Result<()> {
    while !data.is_empty() {
        let written = match output {
            Output::Stdout => rustix::io::write(rustix::stdio::stdout(), data),
            Output::Stderr => rustix::io::write(rustix::stdio::stderr(), data),
        };
        match written {
            Ok(count) => data = &data[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The signals that go to the command instead of to us.
const FORWARDED: &[SignalKind] = &[
    SignalKind::terminate(),
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

pub struct Signals {
    forwarded: Vec<(i32, Signal)>,
    resize: Signal,
}

impl Signals {
    pub fn new() -> Result<Self> {
        let listen = |kind| signal(kind).about(|| "cannot listen to signals".to_owned());
        let pair = |kind: &SignalKind| Ok::<_, Failure>((kind.as_raw_value(), listen(*kind)?));
        let forwarded = FORWARDED.iter().map(pair).collect::<Result<_>>()?;
        Ok(Signals { forwarded, resize: listen(SignalKind::window_change())? })
    }

    /// The number of the next signal; `None` for a new window size.
    async fn next(&mut self) -> Option<i32> {
        let waits = self.forwarded.iter_mut().map(|(number, signal)| {
            Box::pin(async move {
                signal.recv().await;
                *number
            })
        });
        tokio::select! {
            (number, _, _) = futures_util::future::select_all(waits) => Some(number),
            _ = self.resize.recv() => None,
        }
    }
}

/// Forwards signals and window sizes.
pub async fn steer(control: Socket, mut signals: Signals, has_terminal: bool) {
    let (mut send, receive) = control.split();
    tokio::spawn(drain(receive));
    loop {
        let message = match signals.next().await {
            Some(number) => {
                InstanceExecControl { command: "signal".to_owned(), signal: i64::from(number), ..Default::default() }
            }
            None if !has_terminal => continue,
            None => resize_message(),
        };
        let Ok(text) = serde_json::to_string(&message) else { continue };
        if send.send(Message::text(text)).await.is_err() {
            return;
        }
    }
}

fn resize_message() -> InstanceExecControl {
    let (width, height) = terminal::size().unwrap_or((80, 25));
    let args = [("width".to_owned(), width.to_string()), ("height".to_owned(), height.to_string())];
    InstanceExecControl { command: "window-resize".to_owned(), args: args.into(), ..InstanceExecControl::default() }
}
