//! `info --resources`: the hardware of the server.

use std::fmt::Write;

use stapes_api::Resources;

use crate::units::iec;

/// The page.
pub fn page(resources: &Resources) -> String {
    let mut text = "System:\n".to_owned();
    let system = &resources.system;
    let lines = [
        ("UUID", &system.uuid),
        ("Vendor", &system.vendor),
        ("Product", &system.product),
        ("Family", &system.family),
        ("Version", &system.version),
        ("SKU", &system.sku),
        ("Serial", &system.serial),
        ("Type", &system.kind),
    ];
    for (label, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        _ = writeln!(text, "  {label}: {value}");
    }
    let load = &resources.load;
    if load.processes > 0 {
        _ = writeln!(text, "\nLoad:\n  Processes: {}", load.processes);
        _ = writeln!(text, "  Average: {:.2} {:.2} {:.2}", load.average1min, load.average5min, load.average10min);
    }
    cpus(&mut text, resources);
    let memory = &resources.memory;
    _ = writeln!(text, "\nMemory:\n  Free: {}", iec(memory.total.saturating_sub(memory.used) as i64));
    _ = writeln!(text, "  Used: {}\n  Total: {}", iec(memory.used as i64), iec(memory.total as i64));
    for card in &resources.network.cards {
        _ = writeln!(text, "\nNIC:\n  Vendor: {}\n  Product: {}", card.vendor, card.product);
        for port in &card.ports {
            _ = writeln!(text, "  Port {} ({})\n    Address: {}", port.port, port.id, port.address);
        }
    }
    for disk in &resources.storage.disks {
        _ = writeln!(text, "\nDisk:\n  ID: {}\n  Device: {}", disk.id, disk.device);
        _ = writeln!(text, "  Model: {}\n  Size: {}", disk.model, iec(disk.size as i64));
    }
    text
}

fn cpus(text: &mut String, resources: &Resources) {
    _ = writeln!(text, "\nCPU:\n  Architecture: {}", resources.cpu.architecture);
    for socket in &resources.cpu.sockets {
        _ = writeln!(text, "  Socket {}:\n    Vendor: {}\n    Name: {}", socket.socket, socket.vendor, socket.name);
        let threads: usize = socket.cores.iter().map(|core| core.threads.len()).sum();
        _ = writeln!(text, "    Cores: {}\n    Threads: {threads}", socket.cores.len());
    }
}
