//! Time, ids and randomness, injected so that tests and simulation can decide them.

use chrono::{DateTime, Utc};
use stapes_model::InstanceId;

/// Where the engine gets time and randomness from.
pub trait World: Send + Sync {
    fn now(&self) -> DateTime<Utc>;
    fn random(&self) -> u64;
}

/// The real clock and the kernel's random numbers.
#[derive(Debug, Default)]
pub struct RealWorld;

impl World for RealWorld {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn random(&self) -> u64 {
        // getrandom(2) fails only before the kernel's pool is ready, long before a daemon runs.
        getrandom::u64().unwrap_or_else(|_| Utc::now().timestamp_subsec_nanos().into())
    }
}

impl dyn World {
    pub fn instance_id(&self) -> InstanceId {
        InstanceId::from_bits(self.random())
    }

    /// A random UUID, version 4 (RFC 9562 §5.4).
    pub fn uuid(&self) -> String {
        let (high, low) = (self.random(), self.random());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }

    /// 64 hexadecimal digits that nobody can guess, for websocket secrets.
    pub fn secret(&self) -> String {
        (0..4).map(|_| format!("{:016x}", self.random())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_version_and_variant() {
        let world: &dyn World = &RealWorld;
        let uuid = world.uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
        assert_ne!(uuid, world.uuid());
    }
}
