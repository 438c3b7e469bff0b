//! radvd: who sends a network's router advertisements, and their configuration. The daemon runs it as a service.
//!
//! dnsmasq could send them too, but asks the kernel for *every* link of the host before each one, for the MAC of the
//! bridge alone: 8 ms of processor time a solicitation with 800 veths. radvd reads its interface when that changes.
//!
//! Seen with radvd 2.19, and what the rest of the module rests on:
//! - It stays silent on an interface whose MTU is less than `AdvLinkMTU`, and asks the kernel for nothing when another
//!   interface changes.
//! - Its parser takes words such as `on` and names with `_` for something else than a domain: so each configuration is
//!   tested by radvd itself before it is used.
//! - Its child, which stays root to write /proc/sys, holds the lock on the process id's file a moment longer than radvd
//!   lives: so each configuration has a file of its own.
//! - Ending, it tells the guests that their router is gone; starting, that it is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use stapes_sys::exec::Exec;

use crate::{Bridge, NetworkError, addresses, files};

/// Seconds at most between two advertisements that nobody asked for, and how long a guest trusts one: RFC 4861's
/// defaults. dnsmasq is told the same.
pub(crate) const INTERVAL: u32 = 600;
pub(crate) const ROUTER_LIFETIME: u32 = 3 * INTERVAL;

/// Who sends a network's router advertisements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advertiser {
    Radvd,
    /// In place of radvd: dearer, the more links the host has.
    Dnsmasq,
}

/// Where a network's radvd is and keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadvdPaths {
    pub program: PathBuf,
    pub directory: PathBuf,
    /// The account to run as; `None` stays root.
    pub user: Option<String>,
}

impl RadvdPaths {
    /// Beneath `directory`, as the account `radvd` or `nobody`, whichever this host has first.
    pub fn beneath(directory: impl Into<PathBuf>) -> Self {
        Self { program: "radvd".into(), directory: directory.into(), user: files::account(&["radvd", "nobody"]) }
    }

    /// The command line, the program first, for a configuration of this text. Another text is another command line, so
    /// that a changed configuration restarts the service, also when the daemon died in between.
    fn argv(&self, text: &str) -> Vec<String> {
        let stem = format!("{PREFIX}{:016x}", addresses::stable_hash(text.bytes()));
        let file = |suffix: &str| self.directory.join(format!("{stem}.{suffix}")).display().to_string();
        let mut argv =
            vec![self.program.display().to_string(), "--nodaemon".to_owned(), "--logmethod=stderr".to_owned()];
        argv.push(format!("--config={}", file("conf")));
        argv.push(format!("--pidfile={}", file("pid")));
        argv.extend(self.user.iter().map(|user| format!("--username={user}")));
        argv
    }
}

/// What the files of all configurations begin with.
const PREFIX: &str = "radvd-";

/// Makes the configuration and returns the command line; before radvd starts. Repeating it is harmless.
///
/// `None`: the network has no advertisements, or `raw.dnsmasq` has something to say about them, and dnsmasq sends them.
/// Fails with [`NetworkError::Advertisements`] when this radvd does not take the configuration.
pub fn prepare_radvd(bridge: &Bridge, paths: &RadvdPaths) -> Result<Option<Vec<String>>, NetworkError> {
    let Some(text) = radvd_config(bridge) else {
        remove_old(&paths.directory, None)?;
        return Ok(None);
    };
    let argv = paths.argv(&text);
    let stem = format!("{PREFIX}{:016x}.", addresses::stable_hash(text.bytes()));
    let config = paths.directory.join(format!("{stem}conf"));
    if fs::read(&config).map_or(true, |old| old != text.as_bytes()) {
        let draft = paths.directory.join(".radvd.draft");
        files::replace(&draft, &text)?;
        let test = Exec::new(&paths.program).args(["--configtest", "--logmethod=stderr"]);
        let tested = test.arg(format!("--config={}", draft.display())).run();
        files::remove(&draft)?;
        tested.map_err(|source| NetworkError::Advertisements { network: bridge.name.clone(), source })?;
        files::replace(&config, &text)?;
    }
    remove_old(&paths.directory, Some(&stem))?;
    Ok(Some(argv))
}

/// Removes the files of other configurations than `keep`. One that still runs has read its own.
fn remove_old(directory: &Path, keep: Option<&str>) -> Result<(), NetworkError> {
    for entry in fs::read_dir(directory).map_err(files::error(directory))? {
        let entry = entry.map_err(files::error(directory))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && keep.is_none_or(|keep| !name.starts_with(keep)) {
            files::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The text of radvd's configuration; `None` when radvd has nothing to send on this network.
pub fn radvd_config(bridge: &Bridge) -> Option<String> {
    let family = bridge.ipv6.as_ref().filter(|_| bridge.ipv6_ra)?;
    // The user has told dnsmasq about advertisements, or about options that it would put into them.
    if ["enable-ra", "ra-", "option6"].iter().any(|word| bridge.raw_dnsmasq.contains(word)) {
        return None;
    }
    let flag = |on: bool| if on { "on" } else { "off" };
    let stateful = family.dhcp && bridge.ipv6_stateful;
    // The life of an address is its lease's, but never less than its router's.
    let lifetime = match lease_seconds(&family.dhcp_expiry) {
        Some(seconds) if stateful => seconds.max(u64::from(ROUTER_LIFETIME)).to_string(),
        _ => "infinity".to_owned(),
    };
    let mut text = format!("interface {} {{\n", bridge.interface());
    let mut add = |line: &str| text.extend(["    ", line, "\n"]);
    add("AdvSendAdvert on;");
    // Else a solicitation is answered to every port of the bridge, and only one in three seconds.
    add("AdvRASolicitedUnicast on;");
    add(&format!("MaxRtrAdvInterval {INTERVAL};"));
    add(&format!("AdvDefaultLifetime {ROUTER_LIFETIME};"));
    add(&format!("AdvManagedFlag {};", flag(stateful)));
    add(&format!("AdvOtherConfigFlag {};", flag(family.dhcp)));
    if let Some(mtu) = bridge.announced_mtu() {
        add(&format!("AdvLinkMTU {mtu};"));
    }
    add(&format!("prefix {} {{", family.address.trunc()));
    add("    AdvOnLink on;");
    add(&format!("    AdvAutonomous {};", flag(!stateful)));
    add(&format!("    AdvValidLifetime {lifetime};"));
    add(&format!("    AdvPreferredLifetime {lifetime};"));
    add("};");
    let mut nameservers: Vec<String> =
        bridge.nameservers.iter().filter(|address| address.is_ipv6()).map(ToString::to_string).collect();
    if nameservers.is_empty() {
        nameservers.push(addresses::link_local(bridge.mac).to_string());
    }
    // An option of radvd's holds three.
    for nameservers in nameservers.chunks(3) {
        add(&format!("RDNSS {} {{ AdvRDNSSLifetime infinity; }};", nameservers.join(" ")));
    }
    if !bridge.search.is_empty() {
        add(&format!("DNSSL {} {{ AdvDNSSLLifetime infinity; }};", bridge.search.join(" ")));
    }
    text.push_str("};\n");
    Some(text)
}

/// Seconds of a lease as dnsmasq counts them; `None` is for ever, as is what exceeds 32 bits.
fn lease_seconds(text: &str) -> Option<u64> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, "s"),
    };
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    let seconds = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (seconds < u64::from(u32::MAX)).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::{BOTH, bridge};

    fn check(config: &[(&str, &str)], expected: Expect) {
        let mut bridge = bridge(config);
        bridge.mac = [0x10, 0x66, 0x6a, 1, 2, 3];
        expected.assert_eq(&radvd_config(&bridge).unwrap());
    }

    #[test]
    fn addresses_by_advertisement() {
        check(
            BOTH,
            expect![[r#"
                interface br0 {
                    AdvSendAdvert on;
                    AdvRASolicitedUnicast on;
                    MaxRtrAdvInterval 600;
                    AdvDefaultLifetime 1800;
                    AdvManagedFlag off;
                    AdvOtherConfigFlag on;
                    prefix fd42:1:2:3::/64 {
                        AdvOnLink on;
                        AdvAutonomous on;
                        AdvValidLifetime infinity;
                        AdvPreferredLifetime infinity;
                    };
                    RDNSS fe80::1266:6aff:fe01:203 { AdvRDNSSLifetime infinity; };
                };
            "#]],
        );
    }

    #[test]
    fn addresses_by_dhcp_and_everything_announced() {
        let config = [
            ("ipv6.address", "fd42:1:2:3::1/80"),
            ("ipv6.dhcp.stateful", "true"),
            ("ipv6.dhcp.expiry", "2h"),
            ("bridge.mtu", "1400"),
            ("dns.nameservers", "9.9.9.9, 2620:fe::fe, 2620:fe::9, 2620:fe::10, 2620:fe::11"),
            ("dns.search", "lab.example,example"),
        ];
        check(
            &config,
            expect![[r#"
                interface br0 {
                    AdvSendAdvert on;
                    AdvRASolicitedUnicast on;
                    MaxRtrAdvInterval 600;
                    AdvDefaultLifetime 1800;
                    AdvManagedFlag on;
                    AdvOtherConfigFlag on;
                    AdvLinkMTU 1400;
                    prefix fd42:1:2:3::/80 {
                        AdvOnLink on;
                        AdvAutonomous off;
                        AdvValidLifetime 7200;
                        AdvPreferredLifetime 7200;
                    };
                    RDNSS 2620:fe::fe 2620:fe::9 2620:fe::10 { AdvRDNSSLifetime infinity; };
                    RDNSS 2620:fe::11 { AdvRDNSSLifetime infinity; };
                    DNSSL lab.example example { AdvDNSSLLifetime infinity; };
                };
            "#]],
        );
    }

    #[test]
    fn networks_without_advertisements_and_raw_words_about_them_have_no_radvd() {
        let without: [&[(&str, &str)]; 4] = [
            &[("ipv6.address", "none")],
            &[("ipv6.address", "fd42::1/64"), ("ipv6.ra", "false")],
            &[("ipv6.address", "fd42::1/64"), ("raw.dnsmasq", "ra-param=br0,high,0")],
            &[("ipv6.address", "fd42::1/64"), ("raw.dnsmasq", "dhcp-option=option6:56,[fd42::7]")],
        ];
        for config in without {
            assert_eq!(radvd_config(&bridge(config)), None, "{config:?}");
        }
        assert!(radvd_config(&bridge(&[("ipv6.address", "fd42::1/64"), ("raw.dnsmasq", "cache-size=0")])).is_some());
    }

    #[test]
    fn an_address_lives_as_long_as_its_lease_and_its_router() {
        for (expiry, expected) in
            [("2m", "1800"), ("3600", "3600"), ("7d", "604800"), ("infinite", "infinity"), ("999999999w", "infinity")]
        {
            let config = [("ipv6.address", "fd42::1/64"), ("ipv6.dhcp.stateful", "true"), ("ipv6.dhcp.expiry", expiry)];
            let text = radvd_config(&bridge(&config)).unwrap();
            assert!(text.contains(&format!("AdvValidLifetime {expected};")), "{expiry}: {text}");
        }
    }

    #[test]
    fn another_configuration_is_another_command_line() {
        let paths = RadvdPaths { user: Some("radvd".to_owned()), ..RadvdPaths::beneath("/run/net") };
        expect![[r#"
            radvd
            --nodaemon
            --logmethod=stderr
            --config=/run/net/radvd-af63dc4c8601ec8c.conf
            --pidfile=/run/net/radvd-af63dc4c8601ec8c.pid
            --username=radvd
        "#]]
        .assert_eq(&(paths.argv("a").join("\n") + "\n"));
        assert_ne!(paths.argv("a"), paths.argv("b"));
    }

    proptest! {
        /// A value that the table of keys lets through cannot end its own statement and begin another.
        #[test]
        fn no_value_breaks_out(search in "[ -~]{1,40}", servers in "[ -~]{1,40}", expiry in "[ -~]{1,10}") {
            let config = [
                ("ipv6.address", "fd42::1/64"),
                ("ipv6.dhcp.stateful", "true"),
                ("dns.search", &*search),
                ("dns.nameservers", &*servers),
                ("ipv6.dhcp.expiry", &*expiry),
            ];
            if let Ok(bridge) = Bridge::parse(&crate::test_support::network(&config), "host") {
                let text = radvd_config(&bridge).unwrap();
                let (braces, statements) = (text.matches('{').count(), text.matches(';').count());
                let options = text.lines().filter(|line| line.contains("RDNSS ") || line.contains("DNSSL ")).count();
                prop_assert_eq!((braces, text.matches('}').count()), (2 + options, 2 + options));
                prop_assert_eq!(statements, 12 + 2 * options);
            }
        }
    }
}
