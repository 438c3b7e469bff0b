//! The protocol without I/O: bytes of the host in, what they ask for out.
//!
//! Whoever holds the other end of the channel may send anything. Nothing is answered but a Hello until the host has
//! proved that it knows the key, and what is no frame or no message is dropped.

use serde::Deserialize;
use stapes_agent_api::{
    Decoder, Failure, FailureKind, Frame, GuestMessage, HostMessage, KEY_BYTES, Nonce, Reply, Request, Role, StreamId,
    VERSION, decode, encode, prove,
};

/// Length of a [`Nonce`].
const NONCE_DIGITS: usize = 32;

/// What the agent says of itself.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    pub build: String,
    pub boot: String,
}

/// What was heard, in order.
#[derive(Debug)]
pub enum Heard {
    /// A host is there, and what belonged to a session before it is over: its streams, its files, what was not sent yet.
    /// This is the answer.
    Hello(Vec<u8>),
    /// Goes to the host.
    Answer(Vec<u8>),
    Request {
        id: u64,
        request: Box<Request>,
        bytes: Vec<u8>,
    },
    Data {
        stream: StreamId,
        bytes: Vec<u8>,
    },
    End {
        stream: StreamId,
    },
    Credit {
        stream: StreamId,
        bytes: u32,
    },
}

#[derive(Debug)]
enum Phase {
    Silent,
    /// The nonces of both sides are known, the host's proof is not.
    Greeted {
        host: Nonce,
        guest: Nonce,
    },
    Open,
}

#[derive(Debug)]
pub struct Session {
    key: [u8; KEY_BYTES],
    identity: Identity,
    /// Draws a nonce that nobody can guess.
    draw: fn() -> Nonce,
    decoder: Decoder,
    phase: Phase,
}

/// The part of a request that every version has.
#[derive(Deserialize)]
struct Numbered {
    request: Number,
}

#[derive(Deserialize)]
struct Number {
    id: u64,
}

impl Session {
    pub fn new(key: [u8; KEY_BYTES], identity: Identity, draw: fn() -> Nonce) -> Self {
        Self { key, identity, draw, decoder: Decoder::default(), phase: Phase::Silent }
    }

    /// The host may be told things.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// The channel was cut: the next host begins anew.
    pub fn close(&mut self) {
        self.decoder = Decoder::default();
        self.phase = Phase::Silent;
    }

    /// Takes what was read.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Heard> {
        // What is no frame was somebody else's, or half of one: the reader is in step again.
        self.decoder.feed(bytes).into_iter().flatten().filter_map(|frame| self.frame(frame)).collect()
    }

    fn frame(&mut self, frame: Frame) -> Option<Heard> {
        match frame {
            Frame::Message { json, bytes } => self.message(&json, bytes),
            _ if !self.is_open() => None,
            Frame::Data { stream, bytes } => Some(Heard::Data { stream, bytes }),
            Frame::End { stream } => Some(Heard::End { stream }),
            Frame::Credit { stream, bytes } => Some(Heard::Credit { stream, bytes }),
        }
    }

    fn message(&mut self, json: &[u8], bytes: Vec<u8>) -> Option<Heard> {
        match decode::<HostMessage>(json) {
            Ok(HostMessage::Hello { nonce, .. }) => self.greet(nonce),
            Ok(HostMessage::Prove { proof }) => {
                let Phase::Greeted { host, guest } = std::mem::replace(&mut self.phase, Phase::Silent) else {
                    return None;
                };
                if !proof.is(&prove(&self.key, Role::Host, &host, &guest)) {
                    return None;
                }
                self.phase = Phase::Open;
                Some(Heard::Answer(encode(&GuestMessage::Ready, Vec::new()).to_bytes()))
            }
            _ if !self.is_open() => None,
            Ok(HostMessage::Request { id, request }) => Some(Heard::Request { id, request: Box::new(request), bytes }),
            Err(error) => {
                let id = decode::<Numbered>(json).ok()?.request.id;
                // The words may be as long as the request was.
                let error: String = error.to_string().chars().take(200).collect();
                let failure = Failure::new(FailureKind::Unsupported, format!("unknown request: {error}"));
                let reply = GuestMessage::Reply { id, reply: Reply::Failed(failure) };
                Some(Heard::Answer(encode(&reply, Vec::new()).to_bytes()))
            }
        }
    }

    fn greet(&mut self, host: Nonce) -> Option<Heard> {
        if host.len() != NONCE_DIGITS || !host.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let guest = (self.draw)();
        let hello = GuestMessage::Hello {
            version: VERSION,
            proof: prove(&self.key, Role::Guest, &host, &guest),
            host: host.clone(),
            nonce: guest.clone(),
            build: self.identity.build.clone(),
            boot: self.identity.boot.clone(),
        };
        self.phase = Phase::Greeted { host, guest };
        // The zero ends whatever half of a frame went out before.
        Some(Heard::Hello([&[0], encode(&hello, Vec::new()).to_bytes().as_slice()].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; KEY_BYTES] = [7; KEY_BYTES];

    fn session() -> Session {
        Session::new(KEY, Identity::default(), || "b".repeat(NONCE_DIGITS))
    }

    fn wire(message: &HostMessage) -> Vec<u8> {
        encode(message, Vec::new()).to_bytes()
    }

    fn hello() -> Vec<u8> {
        wire(&HostMessage::Hello { version: VERSION, nonce: "a".repeat(NONCE_DIGITS) })
    }

    fn proof(key: &[u8; KEY_BYTES]) -> Vec<u8> {
        let proof = prove(key, Role::Host, &"a".repeat(NONCE_DIGITS), &"b".repeat(NONCE_DIGITS));
        wire(&HostMessage::Prove { proof })
    }

    fn ping() -> Vec<u8> {
        wire(&HostMessage::Request { id: 1, request: Request::Ping })
    }

    #[test]
    fn a_host_that_proves_the_key_is_served() {
        let mut session = session();
        let heard = session.feed(&[hello(), proof(&KEY), ping()].concat());
        assert!(matches!(&heard[..], [Heard::Hello(_), Heard::Answer(_), Heard::Request { id: 1, .. }]), "{heard:?}");
    }

    #[test]
    fn nothing_is_done_for_a_host_without_the_key() {
        let mut session = session();
        let data = Frame::Data { stream: StreamId(4), bytes: vec![1] }.to_bytes();
        let heard = session.feed(&[hello(), proof(&[8; KEY_BYTES]), ping(), data].concat());
        assert!(matches!(&heard[..], [Heard::Hello(_)]), "{heard:?}");
        // A second guess needs a new hello.
        assert!(session.feed(&[proof(&KEY), ping()].concat()).is_empty());
        assert!(!session.is_open());
    }

    #[test]
    fn a_proof_of_one_session_is_no_good_for_the_next() {
        let mut session = session();
        session.feed(&[hello(), proof(&KEY)].concat());
        session.draw = || "c".repeat(NONCE_DIGITS);
        assert_eq!(session.feed(&[hello(), proof(&KEY), ping()].concat()).len(), 1);
        assert!(!session.is_open());
    }

    #[test]
    fn a_hello_in_the_middle_of_a_frame_is_heard_after_a_zero() {
        let mut session = session();
        session.feed(&[hello(), proof(&KEY)].concat());
        let half = &ping()[..10];
        let heard = session.feed(&[half, &[0], hello().as_slice()].concat());
        assert!(matches!(&heard[..], [Heard::Hello(_)]), "{heard:?}");
        assert!(!session.is_open());
    }

    #[test]
    fn a_request_of_a_newer_host_is_answered_unsupported() {
        let mut session = session();
        session.feed(&[hello(), proof(&KEY)].concat());
        let frame =
            Frame::Message { json: br#"{"request":{"id":9,"request":{"dance":{}}}}"#.to_vec(), bytes: Vec::new() };
        let heard = session.feed(&frame.to_bytes());
        let [Heard::Answer(answer)] = &heard[..] else { panic!("{heard:?}") };
        let [Ok(Frame::Message { json, .. })] = &Decoder::default().feed(answer)[..] else { panic!() };
        let GuestMessage::Reply { id: 9, reply: Reply::Failed(failure) } = decode(json).unwrap() else { panic!() };
        assert_eq!(failure.kind, FailureKind::Unsupported);
    }

    #[test]
    fn a_nonce_is_32_digits_or_nothing() {
        for nonce in [String::new(), "a".repeat(31), "a".repeat(100_000), "g".repeat(NONCE_DIGITS)] {
            assert!(session().feed(&wire(&HostMessage::Hello { version: VERSION, nonce })).is_empty());
        }
    }
}
