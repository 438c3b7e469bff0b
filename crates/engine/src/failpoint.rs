//! Dying on purpose, at a chosen step, to prove that the next start finds a consistent host.
//!
//! Only with the feature `failpoints`: `STAPES_KILL_AT_STEP=n` kills the daemon by SIGKILL when the n-th journaled step
//! since its start is reached. Without the feature nothing of this is compiled in.

/// Marks a journaled step.
#[cfg(not(feature = "failpoints"))]
pub fn reached(_step: &str) {}

#[cfg(feature = "failpoints")]
pub fn reached(step: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };
    static LEFT: LazyLock<Option<AtomicU64>> = LazyLock::new(|| {
        std::env::var("STAPES_KILL_AT_STEP").ok().and_then(|text| text.parse().ok()).map(AtomicU64::new)
    });
    let Some(left) = &*LEFT else { return };
    if left.fetch_sub(1, Ordering::SeqCst) == 1 {
        eprintln!("failpoint: dying at step {step}");
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}
