//! `/1.0/images`.

use crate::router::Route;

pub fn routes() -> Vec<Route> {
    Vec::new()
}
