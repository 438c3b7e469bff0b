//! Images: formats, confined unpacking, fingerprints, building, templates.
#![forbid(unsafe_code)]
