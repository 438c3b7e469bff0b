//! The log files of an instance, as the API lists them.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
};

use stapes_model::{InstanceId, InstanceName, ProjectName};

use crate::{Engine, Error, Result, shape};

/// What became of its starts and how it ended.
const NOTES: &str = "lxc.log";
const CONSOLE: [&str; 2] = ["console.log", "console.log.old"];
/// It begins anew when it has grown to this.
const MOST_BYTES: u64 = 64 * 1024;

impl Engine {
    /// Names of the instance's log files. Its own is always there, empty until there is something to say.
    pub fn instance_logs(&self, project: &ProjectName, name: &InstanceName) -> Result<Vec<&'static str>> {
        let instance = self.instance(project, name)?;
        let directory = self.paths.instance_log(&instance.id);
        let console = CONSOLE.into_iter().filter(|name| directory.join(name).exists());
        Ok(std::iter::once(shape::of(instance.kind).log().name).chain(console).collect())
    }

    /// The content of one log file; each is bounded.
    pub fn instance_log(&self, project: &ProjectName, name: &InstanceName, file: &str) -> Result<Vec<u8>> {
        let instance = self.instance(project, name)?;
        let (directory, own) = (self.paths.instance_log(&instance.id), shape::of(instance.kind).log());
        if file != own.name {
            known(file)?;
            return fs::read(directory.join(file)).map_err(|error| log_error(file, error));
        }
        let mut text = Vec::new();
        for part in own.programs.iter().chain([&NOTES]) {
            match fs::read(directory.join(part)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => text.append(&mut read.map_err(|error| log_error(file, error))?),
            }
        }
        Ok(text)
    }

    /// Removes what the console printed. The instance's own log stays, as in Incus.
    pub fn delete_instance_log(&self, project: &ProjectName, name: &InstanceName, file: &str) -> Result<()> {
        let instance = self.instance(project, name)?;
        let id = instance.id;
        if file == shape::of(instance.kind).log().name {
            return Err(Error::invalid("file", format!("{file} cannot be deleted, only the logs of the console can")));
        }
        known(file)?;
        if file == CONSOLE[0] && self.live.get(&id).is_some() {
            // The shim has it open.
            return self.clear_console_log(project, name);
        }
        fs::remove_file(self.paths.instance_log(&id).join(file)).map_err(|error| log_error(file, error))
    }

    /// Adds a line to the instance's own log. Blocking; one that cannot be written is not worth failing for.
    pub(crate) fn note_log(&self, id: &InstanceId, text: &str) {
        let path = self.paths.instance_log(id).join(NOTES);
        let full = fs::metadata(&path).is_ok_and(|meta| meta.len() >= MOST_BYTES);
        let mut options = OpenOptions::new();
        let options = if full { options.write(true).truncate(true) } else { options.append(true).create(true) };
        let time = self.world.now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        if let Err(error) = options.open(&path).and_then(|mut file| writeln!(file, "{time} {text}")) {
            tracing::debug!(path = %path.display(), %error, "a line for an instance's log is lost");
        }
    }
}

fn known(file: &str) -> Result<()> {
    if CONSOLE.contains(&file) { Ok(()) } else { Err(Error::missing("log file", file)) }
}

fn log_error(file: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::missing("log file", file),
        _ => Error::failed(format!("failed to reach the log file {file:?}"), error),
    }
}
