//! Who executes guests' instructions here: asked of the hardware once.

use std::sync::{Arc, OnceLock};

use stapes_instance::Accelerator;
use stapes_sys::kvm;

/// What the probe of KVM said; `Err` is why it is of no use.
#[derive(Debug, Clone, Default)]
pub struct Accelerators(Arc<OnceLock<Result<(), String>>>);

impl Accelerators {
    /// Probes in the background, so that the first start need not wait.
    pub fn probe() -> Self {
        let found = Self::default();
        let early = found.clone();
        let _ =
            std::thread::Builder::new().name("accelerator probe".to_owned()).spawn(move || drop(early.kvm().clone()));
        found
    }

    /// Waits for the probe, which takes half a second at most.
    pub fn kvm(&self) -> &Result<(), String> {
        self.0.get_or_init(|| {
            let found = kvm::probe().map_err(|error| match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            });
            if let Err(reason) = &found {
                tracing::warn!(
                    reason,
                    "KVM cannot run guests here: virtual machines run in software, some ten times slower"
                );
            }
            found
        })
    }

    /// The one for a machine of `architecture`; an error says why the one that is `wanted` cannot be had.
    pub fn choose(&self, wanted: Option<Accelerator>, architecture: &str) -> Result<Accelerator, String> {
        let native = architecture == std::env::consts::ARCH;
        match (wanted, native) {
            (Some(Accelerator::Tcg), _) | (None, false) => Ok(Accelerator::Tcg),
            (Some(Accelerator::Kvm), false) => {
                Err(format!("KVM runs {} guests and no {architecture} ones", std::env::consts::ARCH))
            }
            (Some(Accelerator::Kvm), true) => self.kvm().clone().map(|()| Accelerator::Kvm),
            (None, true) => Ok(if self.kvm().is_ok() { Accelerator::Kvm } else { Accelerator::Tcg }),
        }
    }

    pub fn describe(&self) -> String {
        match self.kvm() {
            Ok(()) => "kvm".to_owned(),
            Err(reason) => format!("tcg, in software, since {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_had_or_refused_and_foreign_guests_run_in_software() {
        let broken = Accelerators::default();
        broken.0.set(Err("no node".to_owned())).unwrap();
        let here = std::env::consts::ARCH;
        assert_eq!(broken.choose(None, here), Ok(Accelerator::Tcg));
        assert_eq!(broken.choose(Some(Accelerator::Kvm), here), Err("no node".to_owned()));
        let fine = Accelerators::default();
        fine.0.set(Ok(())).unwrap();
        assert_eq!(fine.choose(None, here), Ok(Accelerator::Kvm));
        assert_eq!(fine.choose(Some(Accelerator::Tcg), here), Ok(Accelerator::Tcg));
        assert_eq!(fine.choose(None, "m68k"), Ok(Accelerator::Tcg));
        assert!(fine.choose(Some(Accelerator::Kvm), "m68k").is_err());
    }
}
