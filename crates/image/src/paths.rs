//! Names inside archives, turned into relative paths that cannot leave, or refused.

/// Components of a path relative to the root; empty for the root itself.
///
/// Absolute paths and `..` are refused: whoever made such an archive meant harm or erred, and guessing hides both.
pub(crate) fn relative(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    if path.is_empty() {
        return Err("its name is empty".into());
    }
    if path.starts_with(b"/") {
        return Err("its path is absolute".into());
    }
    if path.contains(&0) {
        return Err("its path has a NUL".into());
    }
    let mut components = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its path goes up (`..`)".into()),
            part if part.len() > 255 => return Err("a component of its path is longer than 255 bytes".into()),
            part => components.push(part),
        }
    }
    Ok(components)
}

/// A template's target: an absolute path in the instance without `..`.
pub(crate) fn instance_path(path: &str) -> Result<(), String> {
    let Some(inside) = path.strip_prefix('/') else { return Err("the path is not absolute".into()) };
    if relative(inside.as_bytes())?.is_empty() {
        return Err("the path names no file".into());
    }
    Ok(())
}

/// A template's file name: one file directly in `templates/`, as Incus demands since its path escapes.
pub(crate) fn template_name(name: &str) -> Result<(), String> {
    let parts = relative(name.as_bytes())?;
    if parts.len() != 1 || name.contains('/') {
        return Err(format!("{name:?} is not a file directly in templates/"));
    }
    Ok(())
}
