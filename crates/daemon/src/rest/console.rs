//! `/1.0/instances/{name}/console`.

use crate::router::Route;

pub fn routes() -> Vec<Route> {
    Vec::new()
}
