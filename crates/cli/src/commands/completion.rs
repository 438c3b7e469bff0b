//! Completion scripts, what they call, and manual pages.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory, ValueEnum};

use crate::args::Cli;
use crate::context::{Ctx, IMAGE_SERVERS, last_segment};
use crate::failure::{About, Result};
use crate::out;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Debug)]
pub struct Completion {
    /// For which shell
    shell: Shell,
}

#[derive(Args, Debug)]
pub struct Manpage {
    /// Where to write
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Accepted for incus's sake; man pages are all there is
    #[arg(long, short, default_value = "man", value_parser = ["man"], hide = true)]
    format: String,
    #[arg(long, hide = true)]
    all: bool,
}

#[derive(Args, Debug)]
pub struct Complete {
    /// The words of the command line after `stapes`, the last one unfinished
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

const BASH: &str = r#"# bash completion of stapes: it asks the program itself.
_stapes() {
    local IFS=$'\n'
    _get_comp_words_by_ref -n : cur words cword 2>/dev/null || { cur=${COMP_WORDS[COMP_CWORD]}; words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; }
    COMPREPLY=($(compgen -W "$(stapes __complete "${words[@]:1:cword}" 2>/dev/null)" -- "$cur"))
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:/=] ]] && compopt -o nospace
    declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$cur"
}
complete -o default -F _stapes stapes
"#;

const ZSH: &str = r#"#compdef stapes
# zsh completion of stapes: it asks the program itself.
_stapes() {
    local -a found
    found=("${(@f)$(stapes __complete "${(@)words[2,$CURRENT]}" 2>/dev/null)}")
    found=(${found:#})
    if (( ${#found} )); then compadd -- "${found[@]}"; else _files; fi
}
if [ "$funcstack[1]" = "_stapes" ]; then _stapes "$@"; else compdef _stapes stapes; fi
"#;

const FISH: &str = r#"# fish completion of stapes: it asks the program itself.
function __stapes_complete
    set -l words (commandline -opc) (commandline -ct)
    stapes __complete $words[2..-1] 2>/dev/null
end
complete -c stapes -a '(__stapes_complete)'
"#;

impl Completion {
    pub fn run(self) -> Result<()> {
        out::put(match self.shell {
            Shell::Bash => BASH,
            Shell::Zsh => ZSH,
            Shell::Fish => FISH,
        })
    }
}

impl Manpage {
    pub fn run(self) -> Result<()> {
        std::fs::create_dir_all(&self.dir).about(|| format!("cannot create {}", self.dir.display()))?;
        let mut command = Cli::command();
        command.build();
        write_pages(&command, "stapes", &self.dir)
    }
}

fn write_pages(command: &clap::Command, name: &str, dir: &std::path::Path) -> Result<()> {
    let path = dir.join(format!("{name}.1"));
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone().name(name.to_owned()));
    man.render(&mut page).about(|| format!("cannot write the page of {name}"))?;
    let write = std::fs::File::create(&path).and_then(|mut file| file.write_all(&page));
    write.about(|| format!("cannot write {}", path.display()))?;
    for inner in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        write_pages(inner, &format!("{name}-{}", inner.get_name()), dir)?;
    }
    Ok(())
}

/// What an unfinished word may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Instances,
    Images,
    Profiles,
    Networks,
    Pools,
    Projects,
    Operations,
    Nothing,
}

impl Kind {
    fn collection(self) -> Option<&'static str> {
        Some(match self {
            Kind::Instances => "/1.0/instances",
            Kind::Images => "/1.0/images/aliases",
            Kind::Profiles => "/1.0/profiles",
            Kind::Networks => "/1.0/networks",
            Kind::Pools => "/1.0/storage-pools",
            Kind::Projects => "/1.0/projects",
            Kind::Operations => "/1.0/operations",
            Kind::Nothing => return None,
        })
    }
}

impl Complete {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        let (done, current) = match self.words.split_last() {
            Some((current, done)) => (done, current.as_str()),
            None => (&[][..], ""),
        };
        let mut command = Cli::command();
        command.build();
        let (found, kind) = candidates(&command, done, current);
        let mut found = found;
        if let Some(collection) = kind.collection() {
            // Without a daemon there is nothing to offer, and a completion says nothing about it.
            let paths: Vec<String> = ctx.client.get(collection).await.unwrap_or_default();
            found.extend(paths.iter().filter_map(|path| last_segment(path)).map(str::to_owned));
        }
        if kind == Kind::Images {
            found.push("debian:12".to_owned());
            found.extend(IMAGE_SERVERS.iter().map(|(name, _)| format!("{name}:")));
        }
        found.retain(|word| word.starts_with(current));
        found.sort();
        found.dedup();
        if found.is_empty() { Ok(()) } else { out::line(found.join("\n")) }
    }
}

/// Subcommands or flags that fit, and what kind of object the word may name.
fn candidates(top: &clap::Command, done: &[String], current: &str) -> (Vec<String>, Kind) {
    let (mut command, mut path, mut position) = (top, Vec::new(), 0);
    let mut words = done.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            return (Vec::new(), Kind::Nothing);
        }
        if let Some(flag) = word.strip_prefix('-') {
            // A flag's value is not a position.
            if takes_value(command, flag) && !word.contains('=') && words.next().is_none() {
                return (Vec::new(), flag_kind(flag));
            }
        } else if let Some(inner) = command.find_subcommand(word) {
            (command, position) = (inner, 0);
            path.push(inner.get_name());
        } else {
            position += 1;
        }
    }
    if current.starts_with('-') {
        let flags = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(clap::Arg::get_long);
        return (flags.map(|flag| format!("--{flag}")).collect(), Kind::Nothing);
    }
    if position == 0 && command.has_subcommands() {
        let inner = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
        return (inner.map(|c| c.get_name().to_owned()).collect(), Kind::Nothing);
    }
    (Vec::new(), kind_at(&path, position))
}

fn takes_value(command: &clap::Command, flag: &str) -> bool {
    let name = flag.trim_start_matches('-');
    let fits = |arg: &&clap::Arg| match name.chars().count() {
        1 => arg.get_short() == name.chars().next(),
        _ => arg.get_long() == Some(name),
    };
    command.get_arguments().find(fits).is_some_and(|arg| arg.get_action().takes_values())
}

fn flag_kind(flag: &str) -> Kind {
    match flag.trim_start_matches('-') {
        "p" | "profile" => Kind::Profiles,
        "n" | "network" => Kind::Networks,
        "s" | "storage" => Kind::Pools,
        "project" | "target-project" => Kind::Projects,
        _ => Kind::Nothing,
    }
}

/// The kind of the positional argument with this index.
fn kind_at(path: &[&str], position: usize) -> Kind {
    match (path, position) {
        (["launch" | "create"], 0) => Kind::Images,
        (["start" | "stop" | "restart" | "pause" | "resume" | "delete"], _) => Kind::Instances,
        (["exec" | "shell" | "console" | "info" | "list" | "rename" | "move"], 0) => Kind::Instances,
        (["file", _], _) => Kind::Instances,
        (["config", ..], 0) => Kind::Instances,
        (["profile", "add" | "assign" | "remove"], 0) => Kind::Instances,
        (["profile", "add" | "assign" | "remove"], 1) => Kind::Profiles,
        (["profile", ..], 0) => Kind::Profiles,
        (["network", "attach" | "detach"], 1) => Kind::Instances,
        (["network", "attach-profile" | "detach-profile"], 1) => Kind::Profiles,
        (["network", ..], 0) => Kind::Networks,
        (["storage", "volume", "attach" | "detach"], 2) => Kind::Instances,
        (["storage", ..], 0) => Kind::Pools,
        (["image", ..], 0) => Kind::Images,
        (["project", ..], 0) => Kind::Projects,
        (["operation", ..], 0) => Kind::Operations,
        _ => Kind::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> (Vec<String>, Kind) {
        let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let current = words.pop().unwrap();
        let mut command = Cli::command();
        command.build();
        candidates(&command, &words, &current)
    }

    #[test]
    fn words_complete_to_commands_flags_and_objects() {
        assert!(at("").0.contains(&"launch".to_owned()));
        assert!(at("config dev").0.contains(&"device".to_owned()));
        assert!(at("launch --eph").0.contains(&"--ephemeral".to_owned()));
        assert_eq!(at("start c1 ").1, Kind::Instances);
        assert_eq!(at("launch --profile ").1, Kind::Profiles);
        assert_eq!(at("launch -e ").1, Kind::Images);
        assert_eq!(at("config device add ").1, Kind::Instances);
        assert_eq!(at("profile show ").1, Kind::Profiles);
        assert_eq!(at("exec c1 -- ").1, Kind::Nothing);
    }
}
