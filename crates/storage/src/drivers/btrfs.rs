use crate::{Pool, PoolConfig, PoolError, PoolPaths};
use std::sync::Arc;
pub(crate) fn version() -> Option<String> {
    None
}
pub(crate) fn create(pool: &PoolConfig, _paths: &PoolPaths) -> Result<Vec<(&'static str, String)>, PoolError> {
    Err(unsupported(pool))
}
pub(crate) fn open(pool: &PoolConfig, _paths: &PoolPaths) -> Result<Arc<dyn Pool>, PoolError> {
    Err(unsupported(pool))
}
pub(crate) fn destroy(pool: &PoolConfig, _paths: &PoolPaths) -> Result<(), PoolError> {
    Err(unsupported(pool))
}
fn unsupported(pool: &PoolConfig) -> PoolError {
    PoolError::Unsupported {
        pool: pool.name.clone(),
        what: "btrfs",
        reason: "the driver is not in this build yet".to_owned(),
    }
}
