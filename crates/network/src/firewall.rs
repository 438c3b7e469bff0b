//! nftables: one table `inet stapes_<network>` each, replaced as a whole in one transaction.

use std::{
    fmt::{Display, Write},
    io,
};

use stapes_model::NetworkName;
use stapes_sys::{
    exec::{Exec, ExecError},
    netlink::{self, Nftables, TableInfo},
};

use crate::{Bridge, Family, NatOrder, NetworkError, Tools, addresses::stable_hash};

const PREFIX: &str = "stapes_";

fn table(network: &str) -> String {
    format!("{PREFIX}{network}")
}

/// The text for `nft -f -`. Naming the table, deleting it and writing it anew is nft's idiom for "replace, whether or
/// not it is there": one transaction, so no packet ever meets half a ruleset.
pub fn ruleset(bridge: &Bridge) -> String {
    let table = table(bridge.name.as_str());
    let chains = chains(bridge);
    let comment = comment(&chains);
    format!(
        "table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n\tcomment \"{comment}\"\n{chains}}}\n"
    )
}

/// What the table says of itself: which rules it was loaded with, so that a restarted daemon need not load them again.
fn comment(chains: &str) -> String {
    format!("stapes {:016x}", stable_hash(chains.bytes()))
}

fn chains(bridge: &Bridge) -> String {
    let mut text = String::new();
    // An accept here does not overrule a drop in somebody else's table: nftables asks every base chain.
    filter_chains(&mut text, bridge, bridge.interface());
    let nat4 = bridge.ipv4.as_ref().and_then(|family| nat_rule("ip", family.address.trunc(), family));
    let nat6 = bridge.ipv6.as_ref().and_then(|family| nat_rule("ip6", family.address.trunc(), family));
    for (chain, nat) in [("postrouting4", nat4), ("postrouting6", nat6)] {
        let Some((priority, rule)) = nat else { continue };
        chain_of(&mut text, chain, &format!("type nat hook postrouting priority {priority}; policy accept;"), &[rule]);
    }
    text
}

fn filter_chains(text: &mut String, bridge: &Bridge, interface: &str) {
    let (ipv4, ipv6) = (bridge.ipv4.as_ref(), bridge.ipv6.as_ref());
    let filter4 = ipv4.is_some_and(|family| family.firewall);
    let filter6 = ipv6.is_some_and(|family| family.firewall);
    if !filter4 && !filter6 {
        return;
    }
    let (mut input, mut output, mut forward) = (Vec::new(), Vec::new(), Vec::new());
    let (into, out) = (format!("iifname \"{interface}\""), format!("oifname \"{interface}\""));
    input.push(format!("{into} meta l4proto {{ tcp, udp }} th dport 53 accept"));
    output.push(format!("{out} meta l4proto {{ tcp, udp }} th sport 53 accept"));
    if filter4 {
        input.push(format!("{into} icmp type {{ echo-request, destination-unreachable, time-exceeded }} accept"));
        input.push(format!("{into} udp dport 67 accept"));
        output.push(format!("{out} udp sport 67 accept"));
        forward.extend(forward_rules(interface, "ipv4", ipv4.is_some_and(|family| family.routing)));
    }
    if filter6 {
        input.push(format!(
            "{into} icmpv6 type {{ echo-request, destination-unreachable, packet-too-big, time-exceeded, \
             parameter-problem, nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }} accept"
        ));
        // Guests are not routers: their advertisements must not reach the host.
        input.push(format!("{into} icmpv6 type nd-router-advert drop"));
        input.push(format!("{into} udp dport 547 accept"));
        output.push(format!("{out} udp sport 547 accept"));
        output.push(format!(
            "{out} icmpv6 type {{ echo-reply, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert }} accept"
        ));
        forward.extend(forward_rules(interface, "ipv6", ipv6.is_some_and(|family| family.routing)));
    }
    chain_of(text, "input", "type filter hook input priority filter; policy accept;", &input);
    chain_of(text, "output", "type filter hook output priority filter; policy accept;", &output);
    chain_of(text, "forward", "type filter hook forward priority filter; policy accept;", &forward);
}

/// A refusal spares what stays on the bridge: with br_netfilter (as Docker switches it on) such frames pass here too.
fn forward_rules(interface: &str, family: &str, routing: bool) -> [String; 2] {
    if routing {
        return ["iifname", "oifname"].map(|side| format!("{side} \"{interface}\" meta nfproto {family} accept"));
    }
    [("iifname", "oifname"), ("oifname", "iifname")]
        .map(|(side, other)| format!("{side} \"{interface}\" {other} != \"{interface}\" meta nfproto {family} reject"))
}

fn nat_rule<Net, Address: Display>(
    protocol: &str,
    subnet: impl Display,
    family: &Family<Net, Address>,
) -> Option<(&'static str, String)> {
    if !family.nat {
        return None;
    }
    let priority = match family.nat_order {
        NatOrder::Before => "srcnat - 1",
        NatOrder::After => "srcnat + 1",
    };
    let verdict = match &family.nat_address {
        Some(address) => format!("snat {protocol} to {address}"),
        None => "masquerade".to_owned(),
    };
    Some((priority, format!("{protocol} saddr {subnet} {protocol} daddr != {subnet} {verdict}")))
}

fn chain_of(text: &mut String, name: &str, hook: &str, rules: &[String]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\tchain {name} {{\n\t\t{hook}");
    for rule in rules {
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str("\t}\n");
}

fn nft(tools: &Tools) -> Exec {
    Exec::new(&tools.nft)
}

fn explain(tools: &Tools, network: &NetworkName, source: ExecError) -> NetworkError {
    match source.is_missing() {
        true => NetworkError::Missing { program: tools.nft.display().to_string(), package: "nftables" },
        false => NetworkError::Firewall { network: network.clone(), source },
    }
}

pub(crate) fn load(bridge: &Bridge, tools: &Tools) -> Result<(), NetworkError> {
    let run = nft(tools).args(["-f", "-"]).input(ruleset(bridge)).run();
    run.map(|_| ()).map_err(|source| explain(tools, &bridge.name, source))
}

/// Deletes the network's table; none is success.
pub(crate) fn unload(network: &NetworkName, tools: &Tools) -> Result<(), NetworkError> {
    if tables().is_ok_and(|tables| tables.iter().all(|found| found.name != table(network.as_str()))) {
        return Ok(());
    }
    delete(&table(network.as_str()), tools).map_err(|source| explain(tools, network, source))
}

pub(crate) fn delete(table: &str, tools: &Tools) -> Result<(), ExecError> {
    let text = format!("table inet {table}\ndelete table inet {table}\n");
    nft(tools).args(["-f", "-"]).input(text).run().map(|_| ())
}

/// Whether the table is there and was loaded with these very rules.
pub(crate) fn is_loaded(bridge: &Bridge) -> io::Result<bool> {
    let (name, comment) = (table(bridge.name.as_str()), comment(&chains(bridge)));
    Ok(tables()?.iter().any(|table| table.name == name && table.comment.as_deref() == Some(&comment)))
}

/// All our tables; none on a kernel without nftables.
fn tables() -> io::Result<Vec<TableInfo>> {
    let mut tables = match Nftables::open().and_then(|mut nftables| nftables.inet_tables()) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported || is_without_nftables(&error) => Vec::new(),
        tables => tables?,
    };
    tables.retain(|table| table.name.starts_with(PREFIX));
    Ok(tables)
}

/// EPROTONOSUPPORT for the socket, or EINVAL for the subsystem, which the kernel does not know.
fn is_without_nftables(error: &io::Error) -> bool {
    const EINVAL: i32 = 22;
    const EPROTONOSUPPORT: i32 = 93;
    matches!(netlink::errno(error), Some(EINVAL | EPROTONOSUPPORT))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::test_support::{BOTH, bridge};

    fn check(config: &[(&str, &str)], expected: Expect) {
        expected.assert_eq(&ruleset(&bridge(config)));
    }

    #[test]
    fn both_families_with_nat() {
        check(
            BOTH,
            expect![[r#"
                table inet stapes_br0
                delete table inet stapes_br0
                table inet stapes_br0 {
                	comment "stapes 3fc818da3802b475"
                	chain input {
                		type filter hook input priority filter; policy accept;
                		iifname "br0" meta l4proto { tcp, udp } th dport 53 accept
                		iifname "br0" icmp type { echo-request, destination-unreachable, time-exceeded } accept
                		iifname "br0" udp dport 67 accept
                		iifname "br0" icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem, nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept
                		iifname "br0" icmpv6 type nd-router-advert drop
                		iifname "br0" udp dport 547 accept
                	}
                	chain output {
                		type filter hook output priority filter; policy accept;
                		oifname "br0" meta l4proto { tcp, udp } th sport 53 accept
                		oifname "br0" udp sport 67 accept
                		oifname "br0" udp sport 547 accept
                		oifname "br0" icmpv6 type { echo-reply, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
                	}
                	chain forward {
                		type filter hook forward priority filter; policy accept;
                		iifname "br0" meta nfproto ipv4 accept
                		oifname "br0" meta nfproto ipv4 accept
                		iifname "br0" meta nfproto ipv6 accept
                		oifname "br0" meta nfproto ipv6 accept
                	}
                	chain postrouting4 {
                		type nat hook postrouting priority srcnat - 1; policy accept;
                		ip saddr 10.1.2.0/24 ip daddr != 10.1.2.0/24 masquerade
                	}
                	chain postrouting6 {
                		type nat hook postrouting priority srcnat - 1; policy accept;
                		ip6 saddr fd42:1:2:3::/64 ip6 daddr != fd42:1:2:3::/64 masquerade
                	}
                }
            "#]],
        );
    }

    #[test]
    fn ipv4_only_routed_elsewhere_with_a_source_address() {
        let config = [
            ("ipv4.address", "10.1.2.1/24"),
            ("ipv4.nat", "true"),
            ("ipv4.nat.address", "192.0.2.7"),
            ("ipv4.nat.order", "after"),
            ("ipv4.routing", "false"),
        ];
        check(
            &config,
            expect![[r#"
                table inet stapes_br0
                delete table inet stapes_br0
                table inet stapes_br0 {
                	comment "stapes 3919e79f3d05bfee"
                	chain input {
                		type filter hook input priority filter; policy accept;
                		iifname "br0" meta l4proto { tcp, udp } th dport 53 accept
                		iifname "br0" icmp type { echo-request, destination-unreachable, time-exceeded } accept
                		iifname "br0" udp dport 67 accept
                	}
                	chain output {
                		type filter hook output priority filter; policy accept;
                		oifname "br0" meta l4proto { tcp, udp } th sport 53 accept
                		oifname "br0" udp sport 67 accept
                	}
                	chain forward {
                		type filter hook forward priority filter; policy accept;
                		iifname "br0" oifname != "br0" meta nfproto ipv4 reject
                		oifname "br0" iifname != "br0" meta nfproto ipv4 reject
                	}
                	chain postrouting4 {
                		type nat hook postrouting priority srcnat + 1; policy accept;
                		ip saddr 10.1.2.0/24 ip daddr != 10.1.2.0/24 snat ip to 192.0.2.7
                	}
                }
            "#]],
        );
    }

    #[test]
    fn no_firewall_and_no_nat_leaves_an_empty_table() {
        check(
            &[("ipv4.address", "10.1.2.1/24"), ("ipv4.firewall", "false")],
            expect![[r#"
                table inet stapes_br0
                delete table inet stapes_br0
                table inet stapes_br0 {
                	comment "stapes cbf29ce484222325"
                }
            "#]],
        );
    }
}
