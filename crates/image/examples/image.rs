//! Builds and unpacks by hand, with times: `image debian 12 DIR`, `image busybox DIR`, `image busybox-vm DIR`, `image unpack META [ROOT] TARGET`.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode, time::Instant};

use stapes_image::{ImageError, ImageFiles, UnpackLimits, WorkerCommand, build, inspect, unpack, worker};
use stapes_model::InstanceType;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let started = Instant::now();
    let done = match words[..] {
        ["worker"] => return worker::main(),
        ["debian", release, folder] => build_one(release, InstanceType::Container, folder),
        ["busybox", folder] => build_one("busybox", InstanceType::Container, folder),
        ["debian-vm", release, folder] => build_one(release, InstanceType::VirtualMachine, folder),
        ["busybox-vm", folder] => build_one("busybox", InstanceType::VirtualMachine, folder),
        ["unpack", meta, target] => unpack_one(meta, None, target),
        ["unpack", meta, rootfs, target] => unpack_one(meta, Some(rootfs.into()), target),
        _ => {
            eprintln!("usage: image debian[-vm] RELEASE DIR | busybox[-vm] DIR | unpack META [ROOT] TARGET");
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(()) => {
            println!("{:.3} s", started.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            while let Some(cause) = source {
                eprintln!("{cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn build_one(release: &str, kind: InstanceType, folder: &str) -> Result<(), ImageError> {
    let spec = build::BuildSpec {
        release: release.into(),
        arch: String::new(),
        kind,
        variant: String::new(),
        cache_dir: folder.into(),
        work_dir: PathBuf::from(folder).join("work"),
        refresh: kind == InstanceType::Container,
    };
    let mut show = |progress: build::Progress| eprintln!("{:>3} % {}", progress.percent.unwrap_or(0), progress.text);
    let files = match release {
        "busybox" => build::busybox(&spec, &mut show)?,
        _ => build::debian(&spec, &mut show)?,
    };
    println!("{files:?}");
    Ok(())
}

fn unpack_one(meta: &str, rootfs: Option<PathBuf>, target: &str) -> Result<(), ImageError> {
    let files = ImageFiles { meta: meta.into(), rootfs };
    println!("{:?}", inspect(&files)?);
    let program = std::env::current_exe().unwrap_or_else(|_| "image".into());
    let worker = WorkerCommand { program, args: vec!["worker".into()] };
    println!("{:?}", unpack(&files, target.as_ref(), &UnpackLimits::default(), &worker)?);
    Ok(())
}
