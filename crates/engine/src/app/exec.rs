//! Running commands inside: what may be refused, the birth, the exit code, and output that is kept in files.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use stapes_instance::{DriverError, ExecHandle, ExecIo, ExecSpec, ExitStatus, require};
use stapes_model::{InstanceId, InstanceName, ProjectName, state::Status};

use crate::{
    Engine, Error, Lanes, Result,
    events::Requestor,
    live::LiveInstance,
    operations::{Class, Operation, Snapshot, Spec},
};

use super::{instance_url, task};

/// How long an exit code waits for the news that the whole instance ended.
const NEWS: Duration = Duration::from_secs(2);

/// A command as its caller wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecCommand {
    pub command: Vec<String>,
    /// Goes over the instance's `environment.*`.
    pub environment: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
    pub cwd: Option<String>,
}

/// A command that was found acceptable, and the running instance to run it in.
#[derive(Clone)]
pub struct ExecTarget {
    pub id: InstanceId,
    pub project: ProjectName,
    pub name: InstanceName,
    pub live: Arc<LiveInstance>,
    pub spec: Arc<ExecSpec>,
}

/// Where the output of a command without streams goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecOutput {
    Discard,
    /// Into files that the API can be asked for.
    Record,
}

/// Step of the journal that a running command leaves.
pub(crate) const NOTE: &str = "exec";

/// What the next daemon needs to know of a running command.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct ExecNote {
    pub id: InstanceId,
    exec: u64,
    output: Option<serde_json::Value>,
}

impl ExecTarget {
    /// Executes the command; fails with [`DriverError::Command`] when the program is none.
    pub async fn begin(&self, lanes: &Lanes, io: ExecIo) -> Result<ExecHandle> {
        let (running, spec) = (Arc::clone(&self.live.running), Arc::clone(&self.spec));
        lanes.fast(move || Ok(running.exec(&spec, io)?)).await
    }

    /// Waits for the end; the number that a shell would give. An instance that ends takes its commands along by SIGKILL.
    pub async fn exit_code(&self, lanes: &Lanes, exec: u64) -> i32 {
        let status = self.live.exec_exited(exec).await;
        if status != ExitStatus::Unknown {
            return status.shell_code();
        }
        let running = Arc::clone(&self.live.running);
        match lanes.fast(move || Ok(running.exec_status(exec)?)).await {
            Ok(Some(known)) if known != ExitStatus::Unknown => known.shell_code(),
            _ if tokio::time::timeout(NEWS, self.live.exited()).await.is_ok() => ExitStatus::Signal(9).shell_code(),
            _ => status.shell_code(),
        }
    }

    /// What an operation on this command is about.
    pub fn operation_spec(&self, class: Class, requestor: Option<Requestor>) -> Spec {
        Spec { class, ..task("Executing command", &self.project, &self.name, requestor) }
    }
}

impl Engine {
    /// Everything that can be refused about a command, before anything happens.
    pub fn exec_target(&self, project: &ProjectName, name: &InstanceName, command: ExecCommand) -> Result<ExecTarget> {
        if command.command.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("command", "no program was named"));
        }
        if command.command.iter().any(|word| word.contains('\0')) {
            return Err(Error::invalid("command", "a zero byte cannot be part of an argument"));
        }
        if let Some((key, _)) = command.environment.iter().find(|(key, value)| !is_variable(key, value)) {
            return Err(Error::invalid(format!("environment.{key}"), "not the name and value of a variable"));
        }
        let instance = self.instance(project, name)?;
        require(instance.kind, "exec")?;
        let live = self.live.get(&instance.id).ok_or_else(|| Error::Refused("Instance is not running".to_owned()))?;
        if live.status() == Status::Frozen {
            return Err(Error::Refused("Instance is frozen".to_owned()));
        }
        let expanded = self.expanded(&instance);
        let of_config = expanded.config.iter();
        let mut environment: BTreeMap<_, _> = of_config
            .filter_map(|(key, value)| Some((key.strip_prefix("environment.")?.to_owned(), value.clone())))
            .collect();
        environment.extend(command.environment);
        let ExecCommand { command, uid, gid, cwd, .. } = command;
        let spec = Arc::new(ExecSpec { command, environment, uid, gid, cwd });
        Ok(ExecTarget { id: instance.id, project: project.clone(), name: name.clone(), live, spec })
    }

    /// Runs a command that nobody is connected to; returns once it runs, or once it is known that it cannot. From then
    /// on it outlives the daemon, and the next one can still be asked for its end.
    pub async fn exec_detached(
        self: &Arc<Self>,
        target: ExecTarget,
        output: ExecOutput,
        requestor: Option<Requestor>,
    ) -> Operation {
        let engine = Arc::clone(self);
        let spec = target.operation_spec(Class::Task, requestor.clone());
        let (started, begun) = tokio::sync::oneshot::channel::<()>();
        let operation = self.operations.run(spec, move |operation| async move {
            let io = engine.files_for(&target, output, &operation)?;
            let handle = match target.begin(&engine.lanes, io).await {
                Ok(handle) => handle,
                Err(error) => return Err(exec_failed(&operation, error)),
            };
            let output = operation.snapshot().metadata.and_then(|metadata| metadata.get("output").cloned());
            let plan = ExecNote { id: target.id, exec: handle.exec, output };
            operation.intent(NOTE, &plan, false)?;
            let _ = started.send(());
            engine.told_exec(&target, requestor.as_ref());
            let code = target.exit_code(&engine.lanes, handle.exec).await;
            operation.set_metadata("return", code);
            Ok(())
        });
        // A body that ends early drops its end.
        let _ = begun.await;
        operation
    }

    /// Goes on with the operation of a command that an earlier daemon started.
    pub(crate) fn resume_exec(self: &Arc<Self>, accepted: Snapshot, note: ExecNote, live: Arc<LiveInstance>) {
        let engine = Arc::clone(self);
        self.operations.resume(accepted, "Executing command", move |operation| async move {
            if let Some(output) = note.output {
                operation.set_metadata("output", output);
            }
            let running = Arc::clone(&live.running);
            let known = engine.lanes.fast(move || Ok(running.exec_status(note.exec)?)).await?;
            let status = match known {
                Some(status) => status,
                None => live.exec_exited(note.exec).await,
            };
            operation.set_metadata("return", status.shell_code());
            Ok(())
        });
    }

    fn files_for(&self, target: &ExecTarget, output: ExecOutput, operation: &Operation) -> Result<ExecIo> {
        let null = || -> Result<OwnedFd> {
            let file = File::options().read(true).write(true).open("/dev/null");
            Ok(file.map_err(|error| Error::failed("failed to open /dev/null", error))?.into())
        };
        if output == ExecOutput::Discard {
            return Ok(ExecIo::Streams { stdin: null()?, stdout: null()?, stderr: null()? });
        }
        let directory = self.exec_output(&target.id);
        let failed = |error| Error::failed("failed to make the files for the command's output", error);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        let file = |stream: &str| -> Result<(OwnedFd, String)> {
            let name = format!("exec_{}.{stream}", operation.id());
            let path = directory.join(&name);
            let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
            let url = format!("/1.0/instances/{}/logs/exec-output/{name}", target.name);
            Ok((file.into(), super::with_project(url, &target.project)))
        };
        let ((stdout, out), (stderr, err)) = (file("stdout")?, file("stderr")?);
        operation.set_metadata("output", json!({ "1": out, "2": err }));
        Ok(ExecIo::Streams { stdin: null()?, stdout, stderr })
    }

    fn exec_output(&self, id: &InstanceId) -> PathBuf {
        self.paths.instance_log(id).join("exec-output")
    }

    /// Tells the listeners that a command was started.
    pub fn told_exec(&self, target: &ExecTarget, requestor: Option<&Requestor>) {
        let url = instance_url(&target.project, &target.name);
        let context = json!({ "command": target.spec.command });
        self.events.lifecycle(target.project.as_str(), "instance-exec", &url, requestor, context);
    }

    /// Names of the files with recorded output, in order.
    pub fn exec_outputs(&self, project: &ProjectName, name: &InstanceName) -> Result<Vec<String>> {
        let directory = self.exec_output(&self.instance(project, name)?.id);
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::failed("failed to list the recorded output", error)),
        };
        let mut names: Vec<_> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| is_output_name(name));
        names.sort();
        Ok(names)
    }

    /// One file of recorded output, open for reading.
    pub fn exec_output_file(&self, project: &ProjectName, name: &InstanceName, file: &str) -> Result<File> {
        File::open(self.exec_output_path(project, name, file)?).map_err(|error| output_error(file, error))
    }

    pub fn delete_exec_output(&self, project: &ProjectName, name: &InstanceName, file: &str) -> Result<()> {
        fs::remove_file(self.exec_output_path(project, name, file)?).map_err(|error| output_error(file, error))
    }

    fn exec_output_path(&self, project: &ProjectName, name: &InstanceName, file: &str) -> Result<PathBuf> {
        let instance = self.instance(project, name)?;
        if !is_output_name(file) {
            return Err(Error::missing("recorded output", file));
        }
        Ok(self.exec_output(&instance.id).join(file))
    }
}

fn output_error(file: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::missing("recorded output", file),
        _ => Error::failed(format!("failed to reach the recorded output {file:?}"), error),
    }
}

/// The names that [`Engine::files_for`] gives, and nothing that could lead elsewhere.
fn is_output_name(name: &str) -> bool {
    let id = |stem: &str| stem.len() == 36 && stem.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let stem = name.strip_suffix(".stdout").or_else(|| name.strip_suffix(".stderr"));
    stem.and_then(|stem| stem.strip_prefix("exec_")).is_some_and(id)
}

fn is_variable(key: &str, value: &str) -> bool {
    !key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0')
}

/// A failed birth as the operation tells it. Clients that know Incus read `return` even then, and print the error.
pub fn exec_failed(operation: &Operation, error: Error) -> Error {
    let Error::Driver(DriverError::Command { code, .. }) = &error else { return error };
    operation.set_metadata("return", *code);
    let word = if *code == 127 { "Command not found" } else { "Command not executable" };
    Error::Refused(format!("{word}: {}", crate::chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recorded_output_can_be_asked_for() {
        assert!(is_output_name("exec_01234567-89ab-4def-8123-456789abcdef.stdout"));
        assert!(is_output_name("exec_01234567-89ab-4def-8123-456789abcdef.stderr"));
        for bad in ["", "console.log", "exec_.stdout", "exec_../../../../etc/passwd/aaaaaaaaaaaaaaaa.stdout"] {
            assert!(!is_output_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_variable_needs_a_name_without_an_equals_sign() {
        assert!(is_variable("TERM", "xterm=256"));
        for (key, value) in [("", "x"), ("A=B", "x"), ("A", "x\0y")] {
            assert!(!is_variable(key, value), "{key:?}={value:?}");
        }
    }
}
