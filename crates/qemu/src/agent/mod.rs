//! The host's end of the channel to the agent in a guest.

mod link;
mod session;
mod streams;

pub use link::{AgentError, Agents, Link, Told};
pub use session::{Greeting, Heard, Session};
