//! `info`: an instance as a page of text, or the server as YAML.

use std::fmt::Write;

use clap::Args;
use serde_json::Value;
use stapes_api::{InstanceFull, InstanceState, Resources};

use crate::context::Ctx;
use crate::failure::{Result, fail};
use crate::{out, table, units, yaml};

#[derive(Args, Debug)]
pub struct Info {
    /// Instance; without one, the server
    #[arg(value_name = "INSTANCE")]
    name: Option<String>,
    /// The hardware of the server
    #[arg(long)]
    resources: bool,
    /// Who may access it
    #[arg(long)]
    show_access: bool,
    /// With the end of its log
    #[arg(long)]
    show_log: bool,
    #[command(flatten)]
    target: super::Target,
}

impl Info {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        self.target.refuse()?;
        let spec = self.name.as_deref().unwrap_or_default();
        if ctx.local(spec)?.is_empty() {
            if self.resources {
                let resources: Resources = ctx.client.get("/1.0/resources").await?;
                return out::put(super::resources::page(&resources));
            }
            return out::put(yaml::to_text(&ctx.client.get::<Value>("/1.0").await?));
        }
        let target = ctx.instance_target(spec)?;
        if self.show_access {
            return out::put(yaml::to_text(&ctx.client.get::<Value>(target.join("access")).await?));
        }
        if self.resources {
            fail!("--resources is about the server, not about an instance");
        }
        let instance: InstanceFull = ctx.client.get(target.clone().query("recursion", "1")).await?;
        out::put(page(&instance))?;
        if self.show_log {
            let file = if instance.kind == "virtual-machine" { "qemu.log" } else { "lxc.log" };
            out::put("\nLog:\n\n")?;
            let mut log = ctx.client.download(target.join("logs").join(file)).await?;
            while let Some(chunk) = log.chunk().await? {
                out::put(chunk)?;
            }
            out::line("")?;
        }
        Ok(())
    }
}

/// All about an instance.
fn page(instance: &InstanceFull) -> String {
    let mut text = String::new();
    let kind = if instance.kind.is_empty() { "container" } else { &instance.kind };
    let ephemeral = if instance.ephemeral { " (ephemeral)" } else { "" };
    _ = writeln!(text, "Name: {}\nDescription: {}", instance.name, instance.description);
    _ = writeln!(text, "Status: {}\nType: {kind}{ephemeral}", instance.status.to_uppercase());
    _ = writeln!(text, "Architecture: {}", instance.architecture);
    let state = instance.state.as_ref().filter(|state| state.pid != 0);
    if let Some(state) = state {
        _ = writeln!(text, "PID: {}", state.pid);
        for (name, fact) in &state.stapes_facts {
            let (first, rest) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
            _ = writeln!(text, "{}{rest}: {fact}", first.to_uppercase());
        }
    }
    for (label, time) in [("Created", &instance.created_at), ("Last Used", &instance.last_used_at)] {
        if !time.is_unset() {
            _ = writeln!(text, "{label}: {}", units::moment(time));
        }
    }
    if let Some(state) = state {
        live(&mut text, state);
    }
    snapshots(&mut text, instance);
    backups(&mut text, instance);
    text
}

fn live(text: &mut String, state: &InstanceState) {
    if !state.started_at.is_unset() {
        _ = writeln!(text, "Started: {}", units::moment(&state.started_at));
    }
    if let Some(os) = &state.os_info {
        _ = writeln!(text, "\nOperating System:\n  OS: {}\n  OS Version: {}", os.os, os.os_version);
        _ = writeln!(text, "  Kernel Version: {}\n  Hostname: {}\n  FQDN: {}", os.kernel_version, os.hostname, os.fqdn);
    }
    _ = writeln!(text, "\nResources:\n  Processes: {}", state.processes);
    let disks = state.disk.iter().flatten().filter(|(_, disk)| disk.usage != 0);
    section(text, "Disk usage", disks.map(|(name, disk)| (name.clone(), units::iec(disk.usage))));
    let cpu = (state.cpu.usage != 0).then(|| ("CPU usage (in seconds)", (state.cpu.usage / 1_000_000_000).to_string()));
    section(text, "CPU usage", cpu.into_iter());
    let memory = &state.memory;
    let figures = [
        ("Memory (current)", memory.usage),
        ("Memory (peak)", memory.usage_peak),
        ("Swap (current)", memory.swap_usage),
        ("Swap (peak)", memory.swap_usage_peak),
    ];
    let figures = figures.into_iter().filter(|(_, bytes)| *bytes != 0);
    section(text, "Memory usage", figures.map(|(name, bytes)| (name, units::iec(bytes))));
    networks(text, state);
}

fn section<N: std::fmt::Display>(text: &mut String, title: &str, lines: impl Iterator<Item = (N, String)>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        _ = writeln!(text, "  {title}:");
    }
    for (name, value) in lines {
        _ = writeln!(text, "    {name}: {value}");
    }
}

fn networks(text: &mut String, state: &InstanceState) {
    let Some(networks) = state.network.as_ref().filter(|networks| !networks.is_empty()) else { return };
    _ = writeln!(text, "  Network usage:");
    for (name, network) in networks {
        _ = writeln!(text, "    {name}:\n      Type: {}\n      State: {}", network.kind, network.state.to_uppercase());
        let shown = [("Host interface", network.host_name.clone()), ("MAC address", network.hwaddr.clone())];
        for (label, value) in shown.iter().filter(|(_, value)| !value.is_empty()) {
            _ = writeln!(text, "      {label}: {value}");
        }
        if network.mtu != 0 {
            _ = writeln!(text, "      MTU: {}", network.mtu);
        }
        let count = &network.counters;
        _ = writeln!(text, "      Bytes received: {}", units::decimal(count.bytes_received));
        _ = writeln!(text, "      Bytes sent: {}", units::decimal(count.bytes_sent));
        _ = writeln!(text, "      Packets received: {}", count.packets_received);
        _ = writeln!(text, "      Packets sent: {}\n      IP addresses:", count.packets_sent);
        for a in &network.addresses {
            let family = format!("{}:", a.family);
            _ = writeln!(text, "        {family:<6} {}/{} ({})", a.address, a.netmask, a.scope);
        }
    }
}

/// A blank cell where there is no time: Incus prints one space.
fn moment_or_blank(time: &stapes_api::Timestamp) -> String {
    if time.is_unset() { " ".to_owned() } else { units::moment(time) }
}

fn snapshots(text: &mut String, instance: &InstanceFull) {
    let Some(snapshots) = instance.snapshots.as_ref().filter(|list| !list.is_empty()) else { return };
    let rows: Vec<Vec<String>> = snapshots
        .iter()
        .map(|snapshot| {
            let name = snapshot.name.rsplit('/').next().unwrap_or_default().to_owned();
            let times = [moment_or_blank(&snapshot.created_at), moment_or_blank(&snapshot.expires_at)];
            [name].into_iter().chain(times).chain([super::yes_no(snapshot.stateful)]).collect()
        })
        .collect();
    _ = write!(text, "\nSnapshots:\n{}", table::plain(&["Name", "Taken at", "Expires at", "Stateful"], &rows));
}

fn backups(text: &mut String, instance: &InstanceFull) {
    let Some(backups) = instance.backups.as_ref().filter(|list| !list.is_empty()) else { return };
    let rows: Vec<Vec<String>> = backups
        .iter()
        .map(|backup| {
            let times = [moment_or_blank(&backup.created_at), moment_or_blank(&backup.expires_at)];
            let flags = [super::yes_no(backup.instance_only), super::yes_no(backup.optimized_storage)];
            [backup.name.clone()].into_iter().chain(times).chain(flags).collect()
        })
        .collect();
    let headers = ["Name", "Taken at", "Expires at", "Instance Only", "Optimized Storage"];
    _ = write!(text, "\nBackups:\n{}", table::plain(&headers, &rows));
}

#[cfg(test)]
mod tests {
    use super::page;
    use crate::commands::list_columns::tests::sample;
    use expect_test::expect;

    #[test]
    fn a_running_instance_has_a_page() {
        let mut instance = sample().remove(0);
        instance.created_at = stapes_api::Timestamp::default();
        instance.snapshots = None;
        expect![[r#"
            Name: c1
            Description: 
            Status: RUNNING
            Type: container (ephemeral)
            Architecture: x86_64
            PID: 4711

            Resources:
              Processes: 12
              Disk usage:
                root: 178.52MiB
              CPU usage:
                CPU usage (in seconds): 3
              Memory usage:
                Memory (current): 256.00MiB
              Network usage:
                eth0:
                  Type: broadcast
                  State: 
                  Bytes received: 0B
                  Bytes sent: 0B
                  Packets received: 0
                  Packets sent: 0
                  IP addresses:
                    inet:  10.0.3.7/ (global)
                    inet6: fe80::1/ (link)
                    inet6: fd42::7/ (global)
                lo:
                  Type: loopback
                  State: 
                  Bytes received: 0B
                  Bytes sent: 0B
                  Packets received: 0
                  Packets sent: 0
                  IP addresses:
                    inet:  127.0.0.1/ (local)
        "#]]
        .assert_eq(&page(&instance));
    }
}
