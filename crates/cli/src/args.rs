//! The top of the command line. Each group of commands has its own table in `commands/`.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

use crate::commands::*;
use crate::context::Ctx;
use crate::failure::{Failure, Result};

#[derive(Debug, Parser)]
#[command(
    name = "stapes",
    version,
    about = "System containers and virtual machines at the kernel's own speed",
    arg_required_else_help = true,
    disable_help_subcommand = false,
    propagate_version = false,
    subcommand_required = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Debug)]
pub struct Global {
    /// Work in this project
    #[arg(long, global = true, value_name = "PROJECT")]
    pub project: Option<String>,
    /// Say less: no progress, no confirmations
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Use the local daemon (there is no other yet)
    #[arg(long, global = true, hide = true)]
    pub force_local: bool,
    /// Accepted for incus's sake
    #[arg(long, global = true, hide = true)]
    pub debug: bool,
    /// Accepted for incus's sake
    #[arg(long, short, global = true, hide = true)]
    pub verbose: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an instance from an image and start it
    Launch(launch::Launch),
    /// Create an instance from an image, stopped
    #[command(visible_alias = "init")]
    Create(launch::Create),
    /// Start instances
    Start(action::Start),
    /// Stop instances
    Stop(action::Stop),
    /// Restart instances
    Restart(action::Restart),
    /// Freeze instances
    #[command(visible_alias = "freeze")]
    Pause(action::Pause),
    /// Let frozen instances go on
    #[command(visible_alias = "unfreeze")]
    Resume(action::Resume),
    /// Delete instances
    #[command(visible_aliases = ["rm", "remove"])]
    Delete(delete::Delete),
    /// Rename an instance
    Rename(rename::Rename),
    /// Move (so far: rename) an instance
    #[command(visible_alias = "mv")]
    Move(rename::Move),
    /// List instances
    #[command(visible_alias = "ls")]
    List(list::List),
    /// Show an instance, or the server
    Info(info::Info),
    /// Run a command in an instance
    Exec(exec::Exec),
    /// Open a login shell in an instance
    Shell(exec::Shell),
    /// Attach to the console of an instance
    Console(console::Console),
    /// Work with files in instances
    #[command(subcommand)]
    File(file::File),
    /// Configuration of instances and of the server
    #[command(subcommand)]
    Config(config::Config),
    /// Profiles
    #[command(subcommand)]
    Profile(profile::Profile),
    /// Images
    #[command(subcommand)]
    Image(image::Image),
    /// Networks
    #[command(subcommand)]
    Network(network::Network),
    /// Storage pools and volumes
    #[command(subcommand)]
    Storage(storage::Storage),
    /// Projects
    #[command(subcommand)]
    Project(project::Project),
    /// Remotes
    #[command(subcommand)]
    Remote(remote::Remote),
    /// Operations under way
    #[command(subcommand)]
    Operation(operation::Operation),
    /// Warnings of the server
    #[command(subcommand)]
    Warning(warning::Warning),
    /// Watch events
    Monitor(monitor::Monitor),
    /// Send a request to the API
    Query(query::Query),
    /// Manage the daemon
    #[command(subcommand)]
    Admin(admin::Admin),
    /// Print the versions of client and server
    Version(version::Version),
    /// Print a completion script
    Completion(completion::Completion),
    /// Write the manual pages
    Manpage(completion::Manpage),
    /// What completion scripts call
    #[command(name = "__complete", hide = true)]
    Complete(completion::Complete),
}

impl Command {
    pub async fn run(self, ctx: &Ctx) -> Result<i32> {
        match self {
            Command::Exec(command) => return command.run(ctx).await,
            Command::Shell(command) => return command.run(ctx).await,
            Command::Launch(command) => command.run(ctx).await,
            Command::Create(command) => command.run(ctx).await,
            Command::Start(command) => command.run(ctx).await,
            Command::Stop(command) => command.run(ctx).await,
            Command::Restart(command) => command.run(ctx).await,
            Command::Pause(command) => command.run(ctx).await,
            Command::Resume(command) => command.run(ctx).await,
            Command::Delete(command) => command.run(ctx).await,
            Command::Rename(command) => command.run(ctx).await,
            Command::Move(command) => command.run(ctx).await,
            Command::List(command) => command.run(ctx).await,
            Command::Info(command) => command.run(ctx).await,
            Command::Console(command) => command.run(ctx).await,
            Command::File(command) => command.run(ctx).await,
            Command::Config(command) => command.run(ctx).await,
            Command::Profile(command) => command.run(ctx).await,
            Command::Image(command) => command.run(ctx).await,
            Command::Network(command) => command.run(ctx).await,
            Command::Storage(command) => command.run(ctx).await,
            Command::Project(command) => command.run(ctx).await,
            Command::Remote(command) => command.run(ctx).await,
            Command::Operation(command) => command.run(ctx).await,
            Command::Warning(command) => command.run(ctx).await,
            Command::Monitor(command) => command.run(ctx).await,
            Command::Query(command) => command.run(ctx).await,
            Command::Admin(command) => command.run(ctx).await,
            Command::Version(command) => command.run(ctx).await,
            Command::Completion(command) => command.run(),
            Command::Manpage(command) => command.run(),
            Command::Complete(command) => command.run(ctx).await,
        }
        .map(|()| 0)
    }
}

/// One command without its siblings.
#[derive(Debug, Parser)]
#[command(name = "stapes")]
struct Alone<T: Args> {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    command: T,
}

/// One group of commands without the others.
#[derive(Debug, Parser)]
#[command(name = "stapes")]
struct Group<T: Subcommand> {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: T,
}

fn alone<T: Args>(words: &[OsString], wrap: fn(T) -> Command) -> Option<Cli> {
    let Alone { global, command } = Alone::try_parse_from(words).ok()?;
    Some(Cli { global, command: wrap(command) })
}

fn group<T: Subcommand>(words: &[OsString], wrap: fn(T) -> Command) -> Option<Cli> {
    let Group { global, command } = Group::try_parse_from(words).ok()?;
    Some(Cli { global, command: wrap(command) })
}

/// Reads the command line. Building the tables of all commands costs more than a request, so the one that is named is tried
/// by itself first; help, mistakes and global flags in front go to the whole parser.
pub fn parse(words: &[OsString]) -> std::result::Result<Cli, clap::Error> {
    quick(words).map_or_else(|| Cli::try_parse_from(words), Ok)
}

fn quick(words: &[OsString]) -> Option<Cli> {
    let [program, first, rest @ ..] = words else { return None };
    let words: Vec<_> = [program].into_iter().chain(rest).cloned().collect();
    match first.to_str()? {
        "launch" => alone(&words, Command::Launch),
        "create" | "init" => alone(&words, Command::Create),
        "start" => alone(&words, Command::Start),
        "stop" => alone(&words, Command::Stop),
        "restart" => alone(&words, Command::Restart),
        "pause" | "freeze" => alone(&words, Command::Pause),
        "resume" | "unfreeze" => alone(&words, Command::Resume),
        "delete" | "rm" | "remove" => alone(&words, Command::Delete),
        "rename" => alone(&words, Command::Rename),
        "move" | "mv" => alone(&words, Command::Move),
        "list" | "ls" => alone(&words, Command::List),
        "info" => alone(&words, Command::Info),
        "exec" => alone(&words, Command::Exec),
        "shell" => alone(&words, Command::Shell),
        "console" => alone(&words, Command::Console),
        "monitor" => alone(&words, Command::Monitor),
        "query" => alone(&words, Command::Query),
        "version" => alone(&words, Command::Version),
        "file" => group(&words, Command::File),
        "config" => group(&words, Command::Config),
        "profile" => group(&words, Command::Profile),
        "image" => group(&words, Command::Image),
        "network" => group(&words, Command::Network),
        "storage" => group(&words, Command::Storage),
        "project" => group(&words, Command::Project),
        "remote" => group(&words, Command::Remote),
        "operation" => group(&words, Command::Operation),
        "warning" => group(&words, Command::Warning),
        "admin" => group(&words, Command::Admin),
        _ => None,
    }
}

/// Commands of `incus` that Stapes does not have yet: said plainly instead of as a typing error.
const NOT_YET: &[&str] = &[
    "alias",
    "cluster",
    "copy",
    "cp",
    "default",
    "export",
    "import",
    "low-level",
    "port-forward",
    "publish",
    "rebuild",
    "snapshot",
    "top",
    "wait",
    "webui",
];

pub fn not_yet(words: &[OsString]) -> Option<Failure> {
    let first = words.iter().skip(1).filter_map(|w| w.to_str()).find(|w| !w.starts_with('-'))?;
    NOT_YET
        .contains(&first)
        .then(|| Failure::new(format!("`stapes {first}` is not available yet")).hint("see `stapes --help` for what is"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_table_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    /// Command lines that `incus` 6.0.4 accepts.
    const ACCEPTED: &str = "\
        launch debian:12 c1
        launch debian:12
        launch images:debian/12 c1 --vm -c limits.cpu=2 -c limits.memory=4GiB -d root,size=20GiB
        launch debian:12 c1 --config user.user-data=x --device eth0,name=net0 --ephemeral --console
        launch local:img local:c1 --console=vga -p default -p web -n br0 -s fast -t c2-m4
        launch img c1 --profile default --no-profiles --target node1 --description something
        init debian:12 c1 --storage fast
        create --empty c1 --vm
        create img c1 --environment-file env.list
        start c1 c2 local:c3
        start --all
        start c1 --stateless --console
        stop c1 --force --timeout 30
        stop c1 -f --timeout=-1
        stop --all -f
        restart c1 --timeout 5 -f
        pause c1
        freeze c1
        resume c1
        unfreeze --all
        delete c1 c2 --force
        rm -f c1
        delete -i c1
        rename c1 c2
        move c1 c2
        mv c1 c2 --storage fast
        list
        ls
        list c1 status=running -c ns4,user.x:NAME:10 -f csv,noheader
        list --format=json --all-projects
        list --fast --format compact
        list local: type=container
        info
        info c1 --show-log
        info --resources
        exec c1 -- ls -la /
        exec c1 bash
        exec c1 --user 1000 --group 1000 --cwd /tmp --env A=B --env C=D -- env
        exec c1 -T -n -- cat
        exec c1 -t -- sh -c 'exit_3'
        exec c1 --mode non-interactive -- true
        exec --user 1000 c1 -- id
        shell c1
        console c1
        console c1 --show-log
        console c1 --type vga -f
        file push a b c1/tmp/ -p --uid 0 --gid 0 --mode 0644
        file push -r dir c1/root/
        file push - c1/tmp/x
        file pull c1/etc/hosts .
        file pull -r c1/etc c2/etc /tmp/x -p
        file edit c1/etc/hosts
        file delete c1/tmp/x -f
        file create c1/tmp/d/ --type directory -p
        file create c1/tmp/l /etc/hosts --type symlink --uid -1
        config show
        config show c1 --expanded
        config get c1 limits.cpu
        config get c1 description -p
        config get core.https_address
        config set c1 limits.cpu=2 limits.memory=1GiB
        config set c1 limits.cpu 2
        config set c1 description=foo --property
        config set core.https_address :8443
        config unset c1 limits.cpu
        config edit c1
        config device add c1 data disk source=/srv path=/srv readonly=true
        config device remove c1 data other
        config device set c1 root size 20GiB
        config device set c1 root size=20GiB
        config device get c1 root size
        config device unset c1 root size
        config device override c1 root size=30GiB
        config device list c1
        config device show c1
        config metadata show c1
        config template list c1 -f json
        config template show c1 hostname.tpl
        profile list -f yaml
        profile show default
        profile create web --description x
        profile assign c1 default,web
        profile apply c1 web
        profile add c1 web
        profile remove c1 web
        profile copy web web2 --refresh
        profile device add default eth0 nic network=br0 name=eth0
        profile set web limits.cpu=2
        profile get web limits.cpu
        profile unset web limits.cpu
        profile edit web
        profile rename web www
        profile delete www
        image list
        image list local: arch=x86_64 -c lfp --format csv
        image info debian/12
        image show debian/12
        image import meta.tar.xz rootfs.squashfs --alias foo --public os=debian
        image import unified.tar.gz local: --alias foo --reuse
        image export foo /tmp/foo
        image copy debian:12 local: --alias deb12 --auto-update
        image delete foo bar
        image edit foo
        image alias list
        image alias create foo 0123456789ab --description x
        image alias rename foo bar
        image alias delete bar
        image set-property foo os debian
        image get-property foo os
        network list
        network show br0
        network info br0
        network get br0 ipv4.address
        network list-leases br0 -f csv
        network create br1 ipv4.address=10.1.1.1/24 ipv6.address=none --type bridge
        network set br1 ipv4.nat=true
        network attach br0 c1 eth1
        network attach br0 c1 eth1 eth1
        network detach br0 c1
        network attach-profile br0 default eth0
        network edit br1
        network rename br1 br2
        network delete br2
        storage list
        storage info default --bytes
        storage show default --resources
        storage create fast btrfs size=20GiB
        storage create plain dir source=/srv/pool --description x
        storage delete fast
        storage volume list default
        storage volume create default vol1 size=1GiB --type block
        storage volume show default custom/vol1
        storage volume attach default vol1 c1 data /data
        storage volume detach default vol1 c1
        storage volume delete default vol1
        operation list --all-projects
        operation show 0123
        operation delete 0123
        monitor --pretty --type lifecycle --type operation
        monitor --loglevel info --pretty --all-projects
        query /1.0
        query -X POST -d {} --wait --raw /1.0/instances
        query local:/1.0/instances?recursion=1
        admin init --auto
        admin init --auto --storage-backend btrfs --storage-create-loop 20 --network-address 0.0.0.0 --network-port 8443
        admin init --preseed
        admin init --minimal
        admin init --dump
        admin waitready --timeout 10
        admin shutdown --force -t 30
        remote list -f json
        remote get-default
        remote switch local
        project list
        project show default
        project switch default
        project get-current
        project create p1 -c features.images=false
        warning list --all
        warning ack 0123
        version
        completion bash
        manpage /tmp/man
        --project blue list
        list --project blue -q
        --debug --verbose -q start c1 --force-local";

    #[test]
    fn command_lines_of_incus_are_accepted() {
        for line in ACCEPTED.lines().map(str::trim) {
            let words = ["stapes"].into_iter().chain(line.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}\n{error}");
            }
        }
    }

    #[test]
    fn one_command_alone_reads_as_the_whole_parser_does() {
        for line in ACCEPTED.lines().map(str::trim) {
            let words: Vec<_> = ["stapes"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
            let whole = Cli::try_parse_from(&words).unwrap();
            let skipped = line.starts_with('-') || line.starts_with("completion") || line.starts_with("manpage");
            match quick(&words) {
                Some(alone) => assert_eq!(format!("{alone:?}"), format!("{whole:?}"), "{line}"),
                None => assert!(skipped, "{line} is not read by itself"),
            }
        }
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        let refused = [
            "",
            "lunch x",
            "list -f xml",
            "exec c1",
            "start --bogus",
            "rename c1",
            "query -X FROB /",
            "file pull c1/x",
        ];
        for line in refused {
            let words = ["stapes"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
            let words: Vec<_> = words.map(OsString::from).collect();
            assert!(parse(&words).is_err(), "{line}");
        }
    }

    #[test]
    fn the_command_of_exec_keeps_its_own_flags() {
        let cli = Cli::try_parse_from("stapes exec c1 --user 7 -- ls -l --color -n".split(' ')).unwrap();
        let text = format!("{:?}", cli.command);
        assert!(text.contains(r#"command: ["ls", "-l", "--color", "-n"]"#) && text.contains("user: Some(7)"), "{text}");
        let cli = Cli::try_parse_from("stapes exec c1 ls -l".split(' ')).unwrap();
        assert!(format!("{:?}", cli.command).contains(r#"command: ["ls", "-l"]"#));
    }

    #[test]
    fn what_is_not_there_yet_says_so() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(not_yet(&words("stapes cluster list")).is_some());
        assert!(not_yet(&words("stapes list cluster")).is_none());
    }
}
