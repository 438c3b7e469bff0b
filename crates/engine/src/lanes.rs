//! Where blocking work runs: three bounded lanes, so that neither a slow copy nor a machine's start ever stands in the way
//! of a container's, or of a list.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{Error, Result};

/// At most this many fast jobs (≤ 50 ms each) at a time.
const FAST: usize = 16;
/// At most this many slow ones: copies, unpacking, other people's tools.
const SLOW: usize = 4;
/// At most this many starts of what takes longer to start: a machine's takes some 300 ms of a processor.
const HEAVY: usize = 4;

#[derive(Debug, Clone)]
pub struct Lanes {
    fast: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    heavy: Arc<Semaphore>,
}

impl Default for Lanes {
    fn default() -> Self {
        let [fast, slow, heavy] = [FAST, SLOW, HEAVY].map(|places| Arc::new(Semaphore::new(places)));
        Self { fast, slow, heavy }
    }
}

impl Lanes {
    /// Runs work that takes at most some 50 ms.
    pub async fn fast<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        run(&self.fast, work).await
    }

    /// Runs the start of something that takes up to seconds.
    pub async fn heavy<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        run(&self.heavy, work).await
    }

    /// Runs a copy, an unpacking or an external tool.
    pub async fn slow<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        run(&self.slow, work).await
    }
}

async fn run<T: Send + 'static>(lane: &Arc<Semaphore>, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let place = Arc::clone(lane).acquire_owned().await.map_err(|_| Error::Canceled)?;
    let job = tokio::task::spawn_blocking(move || {
        // The place is given back when the work ends, not when its caller stops waiting.
        let _place = place;
        work()
    });
    job.await.unwrap_or_else(|panic| Err(Error::failed("a worker died", panic)))
}
