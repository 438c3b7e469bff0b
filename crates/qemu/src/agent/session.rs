//! The host's side of a conversation with a guest's agent, without I/O. Whatever arrives is hostile.

use stapes_agent_api::{
    Decoder, Event, Frame, GuestMessage, HostMessage, KEY_BYTES, Nonce, Reply, Request, Role, StreamId, VERSION,
    decode, encode, prove,
};

/// What a guest said that matters to somebody.
#[derive(Debug)]
pub enum Heard {
    /// The agent knows the instance's key: requests are answered from here on.
    Opened(Greeting),
    /// It does not, or speaks no version that we do; nothing more is listened to.
    Refused(String),
    Reply {
        id: u64,
        reply: Reply,
        bytes: Vec<u8>,
    },
    Event(Event),
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

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The lower of both sides' versions.
    pub version: u32,
    pub build: String,
    pub boot: String,
}

#[derive(Debug)]
enum State {
    /// Nobody was greeted.
    Idle,
    Greeted {
        nonce: Nonce,
    },
    Proved(Greeting),
    Open,
    Refused,
}

#[derive(Debug)]
pub struct Session {
    key: [u8; KEY_BYTES],
    state: State,
    decoder: Decoder,
    last_id: u64,
}

impl Session {
    pub fn new(key: [u8; KEY_BYTES]) -> Self {
        Self { key, state: State::Idle, decoder: Decoder::default(), last_id: 0 }
    }

    /// Begins anew with whoever listens now; what to send. `nonce` was never used before.
    pub fn greet(&mut self, nonce: Nonce) -> Vec<u8> {
        self.state = State::Greeted { nonce: nonce.clone() };
        self.decoder = Decoder::default();
        // The zero byte ends what an earlier host may have left half sent.
        let mut bytes = vec![0];
        bytes.extend(encode(&HostMessage::Hello { version: VERSION, nonce }, Vec::new()).to_bytes());
        bytes
    }

    /// Nobody is there any more.
    pub fn close(&mut self) {
        self.state = State::Idle;
        self.decoder = Decoder::default();
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// A request as bytes, with the id of its reply. Only while open.
    pub fn request(&mut self, request: Request, bytes: Vec<u8>) -> (u64, Vec<u8>) {
        self.last_id += 1;
        let message = HostMessage::Request { id: self.last_id, request };
        (self.last_id, encode(&message, bytes).to_bytes())
    }

    /// Takes what was read: what it means, and what to send in answer.
    pub fn receive(&mut self, bytes: &[u8]) -> (Vec<Heard>, Vec<u8>) {
        let (mut heard, mut answer) = (Vec::new(), Vec::new());
        for frame in self.decoder.feed(bytes) {
            // Half a frame of an earlier session, or a guest that plays with us: the next frame counts.
            let Ok(frame) = frame else { continue };
            match frame {
                Frame::Message { json, bytes } => {
                    if let Ok(message) = decode(&json) {
                        self.message(message, bytes, &mut heard, &mut answer);
                    }
                }
                _ if !self.is_open() => {}
                Frame::Data { stream, bytes } => heard.push(Heard::Data { stream, bytes }),
                Frame::End { stream } => heard.push(Heard::End { stream }),
                Frame::Credit { stream, bytes } => heard.push(Heard::Credit { stream, bytes }),
            }
        }
        (heard, answer)
    }

    fn message(&mut self, message: GuestMessage, bytes: Vec<u8>, heard: &mut Vec<Heard>, answer: &mut Vec<u8>) {
        match (message, &self.state) {
            (GuestMessage::Hello { version, host, nonce, proof, build, boot }, State::Greeted { nonce: ours }) => {
                // An answer to an earlier greeting, out of the channel's buffers.
                if host != *ours {
                    return;
                }
                let refused = if !proof.is(&prove(&self.key, Role::Guest, ours, &nonce)) {
                    Some("it does not know the instance's key")
                } else if version == 0 {
                    Some("it speaks no version that this host does")
                } else {
                    None
                };
                if let Some(why) = refused {
                    self.state = State::Refused;
                    heard.push(Heard::Refused(why.to_owned()));
                    return;
                }
                let proof = prove(&self.key, Role::Host, ours, &nonce);
                answer.extend(encode(&HostMessage::Prove { proof }, Vec::new()).to_bytes());
                let short = |text: String| text.chars().take(64).collect();
                let greeting = Greeting { version: version.min(VERSION), build: short(build), boot: short(boot) };
                self.state = State::Proved(greeting);
            }
            (GuestMessage::Ready, State::Proved(greeting)) => {
                heard.push(Heard::Opened(greeting.clone()));
                self.state = State::Open;
            }
            (GuestMessage::Reply { id, reply }, State::Open) => heard.push(Heard::Reply { id, reply, bytes }),
            (GuestMessage::Event(event), State::Open) => heard.push(Heard::Event(event)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; KEY_BYTES] = [5; KEY_BYTES];

    fn hello(key: &[u8; KEY_BYTES], host: &str) -> Vec<u8> {
        let (host, nonce) = (host.to_owned(), "guest".to_owned());
        let proof = prove(key, Role::Guest, &host, &nonce);
        let hello = GuestMessage::Hello {
            version: VERSION + 3,
            host,
            nonce,
            proof,
            build: "1".repeat(1000),
            boot: "b".to_owned(),
        };
        encode(&hello, Vec::new()).to_bytes()
    }

    fn ready() -> Vec<u8> {
        encode(&GuestMessage::Ready, Vec::new()).to_bytes()
    }

    #[test]
    fn a_guest_with_the_key_is_let_in_and_one_without_is_not() {
        let mut session = Session::new(KEY);
        session.greet("n1".to_owned());
        let (heard, answer) = session.receive(&hello(&KEY, "n1"));
        assert!(heard.is_empty() && !answer.is_empty() && !session.is_open());
        let (heard, _) = session.receive(&ready());
        let [Heard::Opened(greeting)] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!((greeting.version, greeting.build.len()), (VERSION, 64));
        session.greet("n2".to_owned());
        let (heard, answer) = session.receive(&hello(&[6; KEY_BYTES], "n2"));
        assert!(matches!(&heard[..], [Heard::Refused(_)]) && answer.is_empty());
        let (heard, _) = session.receive(&ready());
        assert!(heard.is_empty() && !session.is_open());
    }

    #[test]
    fn an_answer_to_an_earlier_greeting_is_passed_over() {
        let mut session = Session::new(KEY);
        session.greet("n1".to_owned());
        let late = hello(&KEY, "n1");
        session.greet("n2".to_owned());
        assert!(session.receive(&late).0.is_empty());
        session.receive(&hello(&KEY, "n2"));
        assert!(matches!(&session.receive(&ready()).0[..], [Heard::Opened(_)]));
    }

    #[test]
    fn nothing_counts_before_the_proof() {
        let mut session = Session::new(KEY);
        session.greet("n".to_owned());
        let reply = GuestMessage::Reply { id: 1, reply: Reply::Done };
        let data = Frame::Data { stream: StreamId(1), bytes: vec![1] };
        let bytes = [ready(), encode(&reply, Vec::new()).to_bytes(), data.to_bytes()].concat();
        assert!(session.receive(&bytes).0.is_empty() && !session.is_open());
    }
}
