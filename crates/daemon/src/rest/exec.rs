//! `/1.0/instances/{name}/exec`.

use crate::router::Route;

pub fn routes() -> Vec<Route> {
    Vec::new()
}
