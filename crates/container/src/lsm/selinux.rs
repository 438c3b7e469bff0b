//! SELinux labels of a container.

use std::{fs, path::Path};

use rustix::io::Errno;
use stapes_model::InstanceId;

const KERNEL: &str = "/sys/fs/selinux";
/// What container-selinux calls the files of containers.
const FILE_TYPE: &str = "container_file_t";

/// The two labels of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Of its processes.
    pub process: String,
    /// Of the file systems that are made for it.
    pub files: String,
}

/// Whether the module is on, and its policy loaded.
pub fn is_on() -> bool {
    Path::new(KERNEL).join("enforce").exists()
}

/// The label for a container whose files lie at `root`; `None` where policy does not know containers, or the files are not
/// labelled as theirs: under the label init could not read its own program.
pub fn label_for(id: &InstanceId, root: &Path) -> Option<Label> {
    let label = label(id);
    let of_files = file_label(root).ok()?;
    let known = || fs::write(Path::new(KERNEL).join("context"), &label.process).is_ok();
    (has_type(&of_files, FILE_TYPE) && known()).then_some(label)
}

fn file_label(path: &Path) -> Result<String, Errno> {
    let mut bytes = [0; 512];
    let (label, _) = rustix::fs::lgetxattr(path, "security.selinux", &mut bytes[..]).map(|count| (count, ()))?;
    Ok(String::from_utf8_lossy(&bytes[..label]).trim_end_matches('\0').to_owned())
}

fn has_type(label: &str, wanted: &str) -> bool {
    label.split(':').nth(2) == Some(wanted)
}

/// As container-selinux knows a container that runs an init, in a pair of categories of its own: containers cannot touch
/// each other's files and processes. Two ids may share a pair (one in 523,776).
fn label(id: &InstanceId) -> Label {
    let hash = super::fnv(super::FNV, id.as_str().as_bytes());
    let first = hash % 1024;
    // Never the same twice: a pair of equal categories is not a pair.
    let second = (first + 1 + (hash >> 32) % 1023) % 1024;
    let categories = format!("s0:c{},c{}", first.min(second), first.max(second));
    Label {
        process: format!("system_u:system_r:container_init_t:{categories}"),
        files: format!("system_u:object_r:{FILE_TYPE}:{categories}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_are_two_in_order_and_the_same_for_files_and_processes() {
        let Label { process, files } = label(&"abcdefg7".parse().unwrap());
        let (context, categories) = process.rsplit_once(':').unwrap();
        assert_eq!(context, "system_u:system_r:container_init_t:s0");
        assert_eq!(files, format!("system_u:object_r:container_file_t:s0:{categories}"));
        let (low, high) = categories.split_once(',').unwrap();
        let number = |category: &str| category.strip_prefix('c').unwrap().parse::<u32>().unwrap();
        assert!(number(low) < number(high) && number(high) < 1024);
    }

    #[test]
    fn only_files_labelled_as_a_containers_are_its_own() {
        assert!(has_type("system_u:object_r:container_file_t:s0", FILE_TYPE));
        assert!(!has_type("system_u:object_r:var_lib_t:s0", FILE_TYPE) && !has_type("container_file_t", FILE_TYPE));
    }
}
