//! Frames of released versions, as they were sent. A shim lives for months: what is recorded here must be understood for
//! ever, and files under `frames` never change; a new version adds its own.

use stapes_shim_api::{
    Event, ExitReason, ExitStatus, FailureKind, FileAnswer, FileKind, FileOp, NurseryReply, NurseryRequest, Reply,
    Request, WriteMode, decode, encode,
};

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty()).collect()
}

#[test]
fn requests_of_version_1_are_understood() {
    let frames: Vec<Request> =
        lines(include_str!("frames/v1-requests.txt")).iter().map(|line| decode(line.as_bytes()).unwrap()).collect();
    let Request::Start(start) = &frames[1] else { panic!() };
    assert_eq!((start.id.as_str(), start.ids.unwrap().base, start.links[0].mac[5]), ("abcdefgh", 1_000_000, 3));
    assert_eq!(start.cgroup.v1[0].1, ["cpu"]);
    let Request::Exec(exec) = &frames[4] else { panic!() };
    assert_eq!((exec.command.len(), exec.pty), (2, Some((80, 25))));
    let Request::File { op: FileOp::Write { how, uid, .. } } = &frames[7] else { panic!() };
    assert_eq!((*how, *uid), (WriteMode::Append, Some(5)));
    assert_eq!(frames[0], Request::Hello { version: 1 });
    assert!(matches!(frames[3], Request::Takeover(_)));
    assert_eq!(frames[frames.len() - 2..], [Request::Reuse, Request::AcknowledgeExit]);
}

#[test]
fn programs_of_version_1_are_understood() {
    let frames: Vec<Request> =
        lines(include_str!("frames/v1-launch.txt")).iter().map(|line| decode(line.as_bytes()).unwrap()).collect();
    let Request::Launch(launch) = &frames[0] else { panic!() };
    assert_eq!((launch.id.as_str(), launch.program.uid, launch.program.nodes[0].minor), ("abcdefgh", 1_000_000, 232));
    assert_eq!((launch.program.argv.len(), launch.program.view[1].read_only), (2, true));
    assert_eq!(launch.program.links[0], ("/lib".to_owned(), "usr/lib".to_owned()));
    assert_eq!((launch.rlimits[0].hard, launch.oom_score_adj), (Some(0), Some(-5)));
    let Request::Takeover(takeover) = &frames[1] else { panic!() };
    assert!(takeover.status.remembered.program);
    for frame in frames {
        assert_eq!(decode::<Request>(&encode(&frame)).unwrap(), frame);
    }
}

#[test]
fn replies_and_events_of_version_1_are_understood() {
    let frames: Vec<Reply> =
        lines(include_str!("frames/v1-replies.txt")).iter().map(|line| decode(line.as_bytes()).unwrap()).collect();
    let Reply::Status(status) = &frames[1] else { panic!() };
    assert_eq!((status.pid, status.shutdown_signal), (4242, 37));
    assert_eq!(status.exited, Some((ExitReason::Reboot, ExitStatus::Signal(1))));
    assert_eq!(frames[3], Reply::Exec(Some(ExitStatus::Unknown)));
    let Reply::File(FileAnswer::Opened(meta)) = &frames[4] else { panic!() };
    assert_eq!((meta.kind, meta.mode), (FileKind::File, 0o644));
    let Reply::Failed(failure) = &frames[5] else { panic!() };
    assert_eq!((failure.kind, failure.code), (FailureKind::Command, 127));
    let events: Vec<Event> =
        lines(include_str!("frames/v1-events.txt")).iter().map(|line| decode(line.as_bytes()).unwrap()).collect();
    assert_eq!(events[0], Event::ExecExited { exec: 3, status: ExitStatus::Code(7) });
    assert_eq!(events[1], Event::Exited { reason: ExitReason::Killed, status: ExitStatus::Signal(9) });
}

#[test]
fn the_nurserys_frames_of_version_1_are_understood() {
    let frames: Vec<NurseryRequest> =
        lines(include_str!("frames/v1-nursery.txt")).iter().map(|line| decode(line.as_bytes()).unwrap()).collect();
    assert_eq!(frames[0], NurseryRequest::Hello { version: 1 });
    assert!(matches!(&frames[1], NurseryRequest::Fork { join } if join.len() == 1));
    assert!(matches!(&frames[2], NurseryRequest::EnsureService { argv, .. } if argv.len() == 2));
    let reply: NurseryReply = decode(br#"{"hello":{"version":1,"build":"0.1.0-1-2.3","pid":7}}"#).unwrap();
    assert!(matches!(reply, NurseryReply::Hello { pid: 7, .. }));
}

#[test]
fn what_a_later_version_adds_is_ignored_or_refused() {
    let hello: Request = decode(br#"{"hello":{"version":9,"greeting":"later"}}"#).unwrap();
    assert_eq!(hello, Request::Hello { version: 9 });
    assert!(decode::<Request>(br#"{"checkpoint":{"dir":"/x"}}"#).is_err());
    let failed: Reply = decode(br#"{"failed":{"kind":"a-later-kind","message":"m"}}"#).unwrap();
    assert!(matches!(failed, Reply::Failed(failure) if failure.kind == FailureKind::Other));
}

#[test]
fn what_is_sent_reads_back() {
    for line in lines(include_str!("frames/v1-requests.txt")) {
        let request: Request = decode(line.as_bytes()).unwrap();
        assert_eq!(decode::<Request>(&encode(&request)).unwrap(), request);
    }
}
