//! What a guest says of itself, without anybody waiting for it: a late answer serves the next question.

use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use stapes_agent_api::{GuestState, Interface, Reply, Request};
use stapes_instance::{GuestLink, GuestReport, Traffic};
use stapes_model::keys::parse_mac;

use crate::agent::{AgentError, Link};

/// How long a question waits for its own answer where there is an earlier one to fall back on, and where there is none: a
/// guest that runs in software takes some 300 ms.
const PATIENCE: Duration = Duration::from_millis(200);
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// An older answer is none.
const AGE: Duration = Duration::from_secs(30);

type Answered = Receiver<Result<(Reply, Vec<u8>), AgentError>>;

#[derive(Debug, Default)]
pub struct Reports(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    asked: Option<Answered>,
    last: Option<(Instant, GuestReport)>,
}

impl Reports {
    /// The guest's answer, or what it said last; `None` when nobody has answered for a while. One question is open at a
    /// time, and only its own asker waits for the answer.
    pub fn of(&self, link: &Link) -> Option<GuestReport> {
        if !link.is_open() {
            return None;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = state.asked.take() {
            state.take(asked, Duration::ZERO);
        }
        if state.last.as_ref().is_some_and(|(at, _)| at.elapsed() >= AGE) {
            state.last = None;
        }
        if state.asked.is_none() {
            let patience = if state.last.is_some() { PATIENCE } else { FIRST_PATIENCE };
            state.take(link.begin(Request::State), patience);
        }
        state.last.as_ref().map(|(_, report)| report.clone())
    }
}

impl State {
    fn take(&mut self, asked: Answered, patience: Duration) {
        match asked.recv_timeout(patience) {
            Ok(Ok((Reply::State(said), _))) => self.last = Some((Instant::now(), report(*said))),
            Ok(_) | Err(RecvTimeoutError::Disconnected) => self.last = None,
            Err(RecvTimeoutError::Timeout) => self.asked = Some(asked),
        }
    }
}

fn report(said: GuestState) -> GuestReport {
    GuestReport {
        hostname: said.hostname,
        os: said.os.name,
        os_version: said.os.version,
        kernel: said.os.kernel,
        processes: said.processes,
        memory_used: said.memory.used,
        memory_total: said.memory.total,
        swap_used: said.memory.swap_used,
        links: said.interfaces.into_iter().map(link).collect(),
    }
}

fn link(said: Interface) -> GuestLink {
    GuestLink {
        mac: parse_mac(&said.mac),
        name: said.name,
        mtu: said.mtu,
        is_up: said.is_up,
        is_loopback: said.is_loopback,
        addresses: said.addresses.iter().map(|one| (one.address, one.prefix)).collect(),
        received: Traffic {
            bytes: said.bytes_received,
            packets: said.packets_received,
            errors: said.errors_received,
            drops: said.dropped_received,
        },
        sent: Traffic {
            bytes: said.bytes_sent,
            packets: said.packets_sent,
            errors: said.errors_sent,
            drops: said.dropped_sent,
        },
    }
}
