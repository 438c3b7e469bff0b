//! What happens to a virtual machine, out of three places, behind one descriptor.

use std::{
    collections::{HashSet, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::event::{EventfdFlags, epoll, eventfd};
use stapes_agent_api as wire;
use stapes_instance::{Event, ExitStatus};

use crate::agent::Told;

/// Most ends of commands that nobody asked for.
const MOST: usize = 1024;

/// What the guest's agent told, until somebody looks; and which commands have not ended yet.
#[derive(Debug)]
pub struct Inbox {
    bell: OwnedFd,
    news: Mutex<News>,
}

#[derive(Debug, Default)]
struct News {
    events: VecDeque<Event>,
    running: HashSet<u32>,
}

pub fn exit_status(status: wire::ExitStatus) -> ExitStatus {
    match status {
        wire::ExitStatus::Code(code) => ExitStatus::Code(code),
        wire::ExitStatus::Signal(signal) => ExitStatus::Signal(signal),
        wire::ExitStatus::Unknown => ExitStatus::Unknown,
    }
}

impl Inbox {
    pub fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { bell, news: Mutex::default() })
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// A command is asked for; its end may be told before its beginning is.
    pub fn begin(&self, exec: u32) {
        self.news().running.insert(exec);
    }

    /// It came to nothing.
    pub fn forget(&self, exec: u32) {
        self.news().running.remove(&exec);
    }

    /// Called on the thread of all conversations. An agent that is gone knows nothing of its commands any more.
    pub fn tell(&self, told: Told) {
        let mut news = self.news();
        match told {
            Told::Opened(_) => return,
            Told::Closed => {
                let lost: Vec<_> = news.running.drain().collect();
                let ends = lost.into_iter().map(|exec| ended(exec, ExitStatus::Unknown));
                news.events.extend(ends);
            }
            Told::Event(wire::Event::ExecExited { exec, status }) => {
                // Those that an earlier daemon began are not known here; a guest cannot fill this with them.
                if !news.running.remove(&exec) && news.events.len() >= MOST {
                    return;
                }
                news.events.push_back(ended(exec, exit_status(status)));
            }
        }
        drop(news);
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    pub fn take(&self) -> Option<Event> {
        let mut news = self.news();
        let event = news.events.pop_front();
        if news.events.is_empty() {
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        }
        event
    }
}

fn ended(exec: u32, status: ExitStatus) -> Event {
    Event::ExecExited { exec: u64::from(exec), status }
}

/// A descriptor that is readable while one of `sources` is.
pub fn any_of(sources: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let any = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for source in sources {
        epoll::add(&any, source, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stapes_sys::socket::wait_readable;

    use super::*;

    #[test]
    fn ends_are_told_once_and_those_of_a_lost_agent_are_unknown() {
        let inbox = Inbox::new().unwrap();
        let any = any_of(&[inbox.bell()]).unwrap();
        let ready = || wait_readable(&any, Duration::ZERO).unwrap();
        let exited = |exec| Told::Event(wire::Event::ExecExited { exec, status: wire::ExitStatus::Code(3) });
        [1, 2, 3].into_iter().for_each(|exec| inbox.begin(exec));
        inbox.forget(3);
        assert!(!ready() && inbox.take().is_none());
        inbox.tell(exited(1));
        assert!(ready());
        assert_eq!(inbox.take(), Some(ended(1, ExitStatus::Code(3))));
        assert!(!ready() && inbox.take().is_none());
        inbox.tell(Told::Closed);
        assert!(ready());
        assert_eq!((inbox.take(), inbox.take()), (Some(ended(2, ExitStatus::Unknown)), None));
    }

    #[test]
    fn ends_that_nobody_asked_for_are_told_up_to_a_measure() {
        let inbox = Inbox::new().unwrap();
        for exec in 0..5000 {
            inbox.tell(Told::Event(wire::Event::ExecExited { exec, status: wire::ExitStatus::Unknown }));
        }
        assert_eq!(std::iter::from_fn(|| inbox.take()).count(), MOST);
    }
}
