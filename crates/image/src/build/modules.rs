//! Which kernel modules a small root needs, by `modules.dep`.

use std::collections::BTreeMap;

/// Modules by their name: the file, and the files that must be loaded before it.
#[derive(Debug, Default)]
pub(super) struct Modules(BTreeMap<String, (String, Vec<String>)>);

/// The name that modprobe knows a file by: `kernel/drivers/net/virtio-net.ko.xz` is `virtio_net`.
fn name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

impl Modules {
    pub(super) fn parse(dep: &str) -> Self {
        let line = |line: &str| {
            let (file, needed) = line.split_once(':')?;
            Some((name(file), (file.to_owned(), needed.split_whitespace().map(str::to_owned).collect())))
        };
        Self(dep.lines().filter_map(line).collect())
    }

    /// These modules and all that they need, as lines of a `modules.dep`; a name that is unknown is built into the kernel.
    pub(super) fn closure(&self, wanted: &[&str]) -> BTreeMap<String, Vec<String>> {
        let mut found = BTreeMap::new();
        let mut open: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        while let Some(next) = open.pop() {
            let Some((file, _)) = self.0.get(&next) else { continue };
            if found.contains_key(file) {
                continue;
            }
            let mut needed = Vec::new();
            self.collect(&next, &mut needed);
            needed.pop();
            // The last one is loaded first.
            needed.reverse();
            open.extend(needed.iter().map(|file| name(file)));
            found.insert(file.clone(), needed);
        }
        found
    }

    /// What `wanted` needs and then itself, in the order of loading.
    fn collect(&self, wanted: &str, order: &mut Vec<String>) {
        let Some((file, needed)) = self.0.get(wanted) else { return };
        if order.contains(file) {
            return;
        }
        for needed in needed {
            self.collect(&name(needed), order);
        }
        order.push(file.clone());
    }
}

pub(super) fn to_dep(modules: &BTreeMap<String, Vec<String>>) -> String {
    modules.iter().map(|(file, needed)| format!("{file}: {}\n", needed.join(" "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_with_what_its_needs_need_first() {
        let dep = "k/virtio-net.ko: k/virtio.ko k/net_failover.ko\nk/virtio.ko:\nk/net_failover.ko: k/failover.ko\n\
                   k/failover.ko:\nk/other.ko: k/virtio.ko\n";
        let found = Modules::parse(dep).closure(&["virtio_net", "ext4"]);
        assert_eq!(
            to_dep(&found),
            "k/failover.ko: \nk/net_failover.ko: k/failover.ko\n\
             k/virtio-net.ko: k/net_failover.ko k/failover.ko k/virtio.ko\nk/virtio.ko: \n"
        );
    }
}
