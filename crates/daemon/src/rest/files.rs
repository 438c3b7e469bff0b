//! `/1.0/instances/{name}/files`.

use crate::router::Route;

pub fn routes() -> Vec<Route> {
    Vec::new()
}
