//! Both sides show that they know the instance's key without saying it.

use std::fmt;

use sha2::{Digest, Sha256};

/// Length of the instance's key.
pub const KEY_BYTES: usize = 32;

const BLOCK: usize = 64;

/// 32 hexadecimal digits that are used once.
pub type Nonce = String;

/// 64 hexadecimal digits.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Proof(String);

/// Whose proof it is: one side's is no use to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Host,
    Guest,
}

/// HMAC-SHA-256 (RFC 2104) over the role and both nonces.
pub fn prove(key: &[u8; KEY_BYTES], role: Role, host: &Nonce, guest: &Nonce) -> Proof {
    let role = match role {
        Role::Host => "stapes host",
        Role::Guest => "stapes guest",
    };
    let pad = |with: u8| -> [u8; BLOCK] { std::array::from_fn(|at| key.get(at).copied().unwrap_or(0) ^ with) };
    let mut inner = Sha256::new_with_prefix(pad(0x36));
    for part in [role, host.as_str(), guest.as_str()] {
        inner.update((part.len() as u64).to_le_bytes());
        inner.update(part);
    }
    let outer = Sha256::new_with_prefix(pad(0x5c)).chain_update(inner.finalize()).finalize();
    Proof(outer.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Proof {
    /// Compares in a time that does not depend on where the two differ.
    pub fn is(&self, expected: &Self) -> bool {
        let (ours, theirs) = (expected.0.as_bytes(), self.0.as_bytes());
        ours.len() == theirs.len() && ours.iter().zip(theirs).fold(0, |all, (one, other)| all | (one ^ other)) == 0
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Proof")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_one_role_key_and_pair_of_nonces() {
        let (key, host, guest) = ([7; KEY_BYTES], "aa".to_owned(), "bb".to_owned());
        let proof = prove(&key, Role::Guest, &host, &guest);
        assert!(proof.is(&prove(&key, Role::Guest, &host, &guest)));
        for other in [
            prove(&key, Role::Host, &host, &guest),
            prove(&[8; KEY_BYTES], Role::Guest, &host, &guest),
            prove(&key, Role::Guest, &guest, &host),
            prove(&key, Role::Guest, &"aab".to_owned(), &"b".to_owned()),
        ] {
            assert!(!other.is(&proof));
        }
    }

    #[test]
    fn it_is_the_hmac_that_others_compute() {
        // Computed with Python's hmac module over the same bytes.
        let proof = prove(&[0; KEY_BYTES], Role::Host, &String::new(), &String::new());
        assert_eq!(proof.0, EXPECTED);
    }

    const EXPECTED: &str = "4c39f1e032211e040b42e7b1f33c4af11032e6422a19e5188dd3616b1d8036dd";
}
