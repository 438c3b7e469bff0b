//! Keys of the server.
//!
//! Names and texts are Incus's (Apache-2.0), so that its clients and documents fit; kinds and statuses are ours.

use crate::keys::{
    ANY_INT, Key,
    Kind::{Bool, Int, Str},
};

pub(in crate::keys) static SERVER_ACME: &[Key] = &[
    Key::new("acme.agree_tos", Bool, "Agree to ACME terms of service").default("false").scope("global")
        .refused("the network listener is not built yet"),
    Key::new("acme.ca_url", Str, "URL to the directory resource of the ACME service")
        .default("https://acme-v02.api.letsencrypt.org/directory").scope("global")
        .refused("the network listener is not built yet"),
    Key::new("acme.challenge", Str, "ACME challenge type to use").default("HTTP-01").scope("global")
        .refused("the network listener is not built yet").long("Possible values are `DNS-01` and `HTTP-01`."),
    Key::new("acme.domain", Str, "Domain for which the certificate is issued").scope("global")
        .refused("the network listener is not built yet"),
    Key::new("acme.eab.hmac", Str, "HMAC key for External Account Binding").scope("global")
        .refused("the network listener is not built yet"),
    Key::new("acme.eab.kid", Str, "Key identifier for External Account Binding").scope("global")
        .refused("the network listener is not built yet"),
    Key::new("acme.email", Str, "Email address used for the account registration").scope("global")
        .refused("the network listener is not built yet"),
    Key::new("acme.http.port", Str, "Port and interface for HTTP server (used by HTTP-01)").default(":80")
        .scope("global").refused("the network listener is not built yet")
        .long("Set the port and interface to use for HTTP-01 based challenges to listen on"),
    Key::new("acme.provider", Str, "Backend provider for the challenge (used by DNS-01)").default_text("``")
        .scope("global").refused("the network listener is not built yet"),
    Key::new("acme.provider.environment", Str, "Environment variables to set during the challenge (used by DNS-01)")
        .default_text("``").scope("global").refused("the network listener is not built yet"),
    Key::new("acme.provider.resolvers", Str, "Comma-separated list of DNS resolvers (used by DNS-01)")
        .default_text("``").scope("global").refused("the network listener is not built yet")
        .long("DNS resolvers to use for performing (recursive) `CNAME` resolving and apex domain determination during DNS-01 challenge."),
];

pub(in crate::keys) static SERVER_AUTHORIZATION: &[Key] = &[
    Key::new(
        "authorization.client.default",
        Str,
        "Authorization driver for clients without a more specific class route",
    )
    .scope("global")
    .refused("it is not built yet")
    .long(
        r#"Routes clients that do not match a more specific class to an authorization driver.
Possible values are `allow`, `deny`, `openfga` and `scriptlet`."#,
    ),
    Key::new("authorization.client.oidc", Str, "Authorization driver for OIDC-authenticated clients")
        .scope("global")
        .refused("it is not built yet")
        .long(
            r#"Routes OIDC-authenticated clients to an authorization driver.
Possible values are `allow`, `deny`, `openfga` and `scriptlet`."#,
        ),
    Key::new("authorization.client.tls", Str, "Authorization driver for unrestricted TLS clients")
        .scope("global")
        .refused("it is not built yet")
        .long(
            r#"Routes clients using an unrestricted client certificate to an authorization driver.
Possible values are `allow`, `deny`, `openfga` and `scriptlet`."#,
        ),
    Key::new("authorization.client.tls-restricted", Str, "Authorization driver for restricted TLS clients")
        .scope("global")
        .refused("it is not built yet")
        .long(
            r#"Routes clients using a restricted (project-scoped) client certificate to an authorization driver.
Possible values are `allow`, `deny`, `tls`, `openfga` and `scriptlet`."#,
        ),
    Key::new("authorization.client.unix", Str, "Authorization driver for local (`unix` socket) clients")
        .scope("global")
        .refused("it is not built yet")
        .long(
            r#"Routes local clients connecting over the `unix` socket to an authorization driver.
Possible values are `allow`, `deny`, `openfga` and `scriptlet`."#,
        ),
    Key::new("authorization.openfga.api.token", Str, "API token of the OpenFGA server")
        .scope("global")
        .refused("it is not built yet"),
    Key::new("authorization.openfga.api.url", Str, "URL of the OpenFGA server")
        .scope("global")
        .refused("it is not built yet"),
    Key::new("authorization.openfga.store.id", Str, "ID of the OpenFGA permission store")
        .scope("global")
        .refused("it is not built yet"),
    Key::new(
        "authorization.openfga.tls.identifier",
        Str,
        "Certificate attribute used as the OpenFGA user for TLS clients",
    )
    .default("name")
    .scope("global")
    .refused("it is not built yet")
    .long(
        r#"When a TLS client is authorized by OpenFGA, this selects the certificate
attribute used as the OpenFGA user: `fingerprint` or `name`."#,
    ),
    Key::new("authorization.scriptlet", Str, "Authorization scriptlet")
        .scope("global")
        .refused("it is not built yet")
        .long("When using scriptlet-based authorization, this option stores the scriptlet."),
];

pub(in crate::keys) static SERVER_CLUSTER: &[Key] = &[
    Key::new("cluster.healing_threshold", ANY_INT, "Threshold when to evacuate an offline cluster member")
        .default("0")
        .scope("global")
        .refused("clusters are not built yet")
        .long(
            r#"Specify the number of seconds after which an offline cluster member is to be evacuated.
To disable evacuating offline members, set this option to `0`."#,
        ),
    Key::new("cluster.https_address", Str, "Address to use for clustering traffic")
        .scope("local")
        .refused("clusters are not built yet")
        .long("See {ref}`cluster-https-address`."),
    Key::new("cluster.images_minimal_replica", ANY_INT, "Number of cluster members that replicate an image")
        .default("3")
        .scope("global")
        .refused("clusters are not built yet")
        .long(
            r#"Specify the minimal number of cluster members that keep a copy of a particular image.
Set this option to `1` for no replication, or to `-1` to replicate images on all members."#,
        ),
    Key::new("cluster.join_token_expiry", Str, "Time after which a cluster join token expires")
        .default("3H")
        .scope("global")
        .refused("clusters are not built yet"),
    Key::new("cluster.max_standby", ANY_INT, "Number of database stand-by members")
        .default("2")
        .scope("global")
        .refused("clusters are not built yet")
        .long(
            r#"Specify the maximum number of cluster members that are assigned the database stand-by role.
This must be a number between `0` and `5`."#,
        ),
    Key::new("cluster.max_voters", ANY_INT, "Number of database voter members")
        .default("3")
        .scope("global")
        .refused("clusters are not built yet")
        .long(
            r#"Specify the maximum number of cluster members that are assigned the database voter role.
This must be an odd number >= `3`."#,
        ),
    Key::new("cluster.offline_threshold", ANY_INT, "Threshold when an unresponsive member is considered offline")
        .default("20")
        .scope("global")
        .refused("clusters are not built yet")
        .long("Specify the number of seconds after which an unresponsive member is considered offline."),
    Key::new("cluster.rebalance.batch", ANY_INT, "Maximum number of instances to move during one re-balancing run")
        .default("1")
        .scope("global")
        .refused("clusters are not built yet"),
    Key::new("cluster.rebalance.cooldown", Str, "Amount of time during which an instance will not be moved again")
        .default("6H")
        .scope("global")
        .refused("clusters are not built yet"),
    Key::new(
        "cluster.rebalance.interval",
        ANY_INT,
        "How often (in minutes) to consider re-balancing things. 0 to disable (default)",
    )
    .default("0")
    .scope("global")
    .refused("clusters are not built yet"),
    Key::new(
        "cluster.rebalance.threshold",
        ANY_INT,
        "Percentage load difference between most and least busy server needed to trigger a migration",
    )
    .default("20")
    .scope("global")
    .refused("clusters are not built yet"),
];

pub(in crate::keys) static SERVER_CORE: &[Key] = &[
    Key::new("core.bgp_address", Str, "Address to bind the BGP server to").scope("local")
        .refused("it is not built yet").long("See {ref}`network-bgp`."),
    Key::new("core.bgp_asn", Str, "BGP Autonomous System Number for the local server").scope("global")
        .refused("it is not built yet"),
    Key::new("core.bgp_routerid", Str, "A unique identifier for the BGP server").scope("local")
        .refused("it is not built yet").long("The identifier must be formatted as an IPv4 address."),
    Key::new("core.debug_address", Str, "Address to bind the `pprof` debug server to (HTTP)").scope("local")
        .refused("it is not built yet"),
    Key::new("core.dns_address", Str, "Address to bind the authoritative DNS server to").scope("local")
        .refused("it is not built yet").long("See {ref}`network-dns-server`."),
    Key::new("core.https_address", Str, "Address to bind for the remote API (HTTPS)").scope("local")
        .refused("the network listener is not built yet").long("See {ref}`server-expose`."),
    Key::new("core.https_allowed_credentials", Bool, "Whether to set `Access-Control-Allow-Credentials`")
        .default("false").scope("global").refused("the network listener is not built yet")
        .long("If enabled, the `Access-Control-Allow-Credentials` HTTP header value is set to `true`."),
    Key::new("core.https_allowed_headers", Str, "`Access-Control-Allow-Headers` HTTP header value")
        .scope("global").refused("the network listener is not built yet"),
    Key::new("core.https_allowed_methods", Str, "`Access-Control-Allow-Methods` HTTP header value")
        .scope("global").refused("the network listener is not built yet"),
    Key::new("core.https_allowed_origin", Str, "`Access-Control-Allow-Origin` HTTP header value")
        .scope("global").refused("the network listener is not built yet"),
    Key::new("core.https_allowed_websocket_origin", Str, "Allowed `Origin` values for WebSocket connections")
        .scope("global").refused("the network listener is not built yet"),
    Key::new("core.https_trusted_proxy", Str, "Trusted servers to provide the client's address").scope("global")
        .refused("the network listener is not built yet")
        .long("Specify a comma-separated list of IP addresses of trusted servers that provide the client's address through the proxy connection header."),
    Key::new("core.metrics_address", Str, "Address to bind the metrics server to (HTTPS)").scope("local")
        .refused("it is not built yet").long("See {ref}`metrics`."),
    Key::new("core.metrics_authentication", Bool, "Whether to enforce authentication on the metrics endpoint")
        .default("true").scope("global").refused("it is not built yet"),
    Key::new("core.proxy_http", Str, "HTTP proxy to use").scope("global").refused("it is not built yet")
        .long("If this option is not specified, the daemon falls back to the `HTTP_PROXY` environment variable (if set)."),
    Key::new("core.proxy_https", Str, "HTTPS proxy to use").scope("global").refused("it is not built yet")
        .long("If this option is not specified, the daemon falls back to the `HTTPS_PROXY` environment variable (if set)."),
    Key::new("core.proxy_ignore_hosts", Str, "Hosts that don't need the proxy").scope("global")
        .refused("it is not built yet")
        .long(r#"Specify this option in a similar format to `NO_PROXY` (for example, `1.2.3.4,1.2.3.5`)

If this option is not specified, the daemon falls back to the `NO_PROXY` environment variable (if set)."#),
    Key::new("core.remote_token_expiry", Str, "Time after which a remote add token expires")
        .default_text("no expiry").scope("global").refused("it is not built yet"),
    Key::new("core.shutdown_action", Str, "Action to perform on server shutdown").default("shutdown")
        .scope("global").refused("it is not built yet")
        .long(r#"Specify the action to take when the daemon is being shut down.
Supported values are `shutdown` (stop all instances) and `evacuate` (attempt to evacuate the clustered server)."#),
    Key::new("core.shutdown_timeout", Int { min: 0, max: 86_400 }, "How long to wait before shutdown")
        .default("5").scope("global")
        .long("Specify the number of minutes to wait for running operations to complete before the daemon shuts down."),
    Key::new("core.storage_buckets_address", Str, "Address to bind the storage object server to (HTTPS)")
        .scope("local").refused("it is not built yet").long("See {ref}`howto-storage-buckets`."),
    Key::new("core.syslog_socket", Bool, "Whether to enable the syslog unixgram socket listener")
        .default("false").scope("local").refused("it is not built yet")
        .long("Set this option to `true` to enable the syslog unixgram socket to receive log messages from external processes."),
    Key::new("core.trust_ca_certificates", Bool, "Whether to automatically trust clients signed by the CA")
        .default("false").scope("global").refused("it is not built yet"),
];

pub(in crate::keys) static SERVER_IMAGES: &[Key] = &[
    Key::new("images.auto_update_cached", Bool, "Whether to automatically update cached images")
        .default("true")
        .scope("global")
        .stored("it is not built yet"),
    Key::new("images.auto_update_interval", ANY_INT, "Interval at which to look for updates to cached images")
        .default("6")
        .scope("global")
        .stored("it is not built yet")
        .long(
            r#"Specify the interval in hours.
To disable looking for updates to cached images, set this option to `0`."#,
        ),
    Key::new("images.compression_algorithm", Str, "Compression algorithm to use for new images")
        .default("gzip")
        .scope("global")
        .stored("it is not built yet")
        .long("Possible values are `bzip2`, `gzip`, `lz4`, `lzma`, `xz`, `zstd` or `none`."),
    Key::new("images.default_architecture", Str, "Default architecture to use in a mixed-architecture cluster")
        .stored("it is not built yet"),
    Key::new("images.remote_cache_expiry", ANY_INT, "When an unused cached remote image is flushed")
        .default("10")
        .scope("global")
        .stored("it is not built yet")
        .long("Specify the number of days after which the unused cached image expires."),
];

pub(in crate::keys) static SERVER_LOGGING: &[Key] = &[
    Key::new("logging.NAME.lifecycle.projects", Str, "Comma separate list of projects, empty means all")
        .scope("global").refused("it is not built yet"),
    Key::new("logging.NAME.lifecycle.types", Str, "E.g., `instance`, comma separate, empty means all")
        .scope("global").refused("it is not built yet"),
    Key::new("logging.NAME.logging.level", Str, "Minimum log level to send to the logger").default("info")
        .scope("global").refused("it is not built yet"),
    Key::new("logging.NAME.target.address", Str, "Address of the logger").scope("global")
        .refused("it is not built yet")
        .long("Specify the protocol, name or IP and port. For example `tcp://syslog01.int.example.net:514`."),
    Key::new("logging.NAME.target.ca_cert", Str, "CA certificate for the server").scope("global")
        .refused("it is not built yet"),
    Key::new("logging.NAME.target.facility", Str, "The syslog facility defines the category of the log message")
        .scope("global").refused("it is not built yet"),
    Key::new("logging.NAME.target.instance", Str, "Name to use as the instance field in Loki events.")
        .default_text("Local server host name or cluster member name").scope("global")
        .refused("it is not built yet")
        .long("This allows replacing the default instance value (server host name) by a more relevant value like a cluster identifier."),
    Key::new("logging.NAME.target.labels", Str, "Labels for a Loki log entry").scope("global")
        .refused("it is not built yet")
        .long("Specify a comma-separated list of values that should be used as labels for a Loki log entry."),
    Key::new("logging.NAME.target.password", Str, "Password used for authentication").scope("global")
        .refused("it is not built yet"),
    Key::new("logging.NAME.target.retry", ANY_INT, "number of delivery retries, default 3").scope("global")
        .refused("it is not built yet"),
    Key::new("logging.NAME.target.type", Str, "The type of the logger. One of `loki`, `syslog` or `webhook`.")
        .scope("global").refused("it is not built yet"),
    Key::new("logging.NAME.target.username", Str, "User name used for authentication").scope("global")
        .refused("it is not built yet"),
    Key::new("logging.NAME.types", Str, "Events to send to the logger").default("lifecycle,logging")
        .scope("global").refused("it is not built yet")
        .long(r#"Specify a comma-separated list of events to send to the logger.
The events can be any combination of `lifecycle`, `logging`, and `network-acl`."#),
];

pub(in crate::keys) static SERVER_LOKI: &[Key] = &[
    Key::new("loki.api.ca_cert", Str, "CA certificate for the Loki server").scope("global")
        .refused("it is not built yet"),
    Key::new("loki.api.url", Str, "URL to the Loki server").scope("global").refused("it is not built yet")
        .long("Specify the protocol, name or IP and port. For example `https://loki.example.com:3100`. Incus will automatically add the `/loki/api/v1/push` suffix so there's no need to add it here."),
    Key::new("loki.auth.password", Str, "Password used for Loki authentication").scope("global")
        .refused("it is not built yet"),
    Key::new("loki.auth.username", Str, "User name used for Loki authentication").scope("global")
        .refused("it is not built yet"),
    Key::new("loki.instance", Str, "Name to use as the instance field in Loki events.")
        .default_text("Local server host name or cluster member name").scope("global")
        .refused("it is not built yet")
        .long("This allows replacing the default instance value (server host name) by a more relevant value like a cluster identifier."),
    Key::new("loki.labels", Str, "Labels for a Loki log entry").scope("global").refused("it is not built yet")
        .long("Specify a comma-separated list of values that should be used as labels for a Loki log entry."),
    Key::new("loki.loglevel", Str, "Minimum log level to send to the Loki server").default("info")
        .scope("global").refused("it is not built yet"),
    Key::new("loki.types", Str, "Events to send to the Loki server").default("lifecycle,logging")
        .scope("global").refused("it is not built yet")
        .long(r#"Specify a comma-separated list of events to send to the Loki server.
The events can be any combination of `lifecycle`, `logging`, and `network-acl`."#),
];

pub(in crate::keys) static SERVER_MISCELLANEOUS: &[Key] = &[
    Key::new("backups.compression_algorithm", Str, "Compression algorithm to use for backups").default("gzip")
        .scope("global").stored("it is not built yet")
        .long("Possible values are `bzip2`, `gzip`, `lz4`, `lzma`, `xz`, `zstd` or `none`."),
    Key::new("instances.lxcfs.per_instance", Bool, "Whether to run LXCFS on a per-instance basis")
        .default("false").scope("global").refused("it is not built yet")
        .long(r#"LXCFS is used to provide overlays for common `/proc` and `/sys`
files which reflect the resource limits applied to the container.

It normally operates through a single file system mount on the host which is then shared by all containers.
This is very efficient but comes with the downside that a crash of LXCFS will break all containers.

With this option, it's now possible to run a LXCFS instance per
container instead, using more system resources but reducing the impact
of a crash."#),
    Key::new("instances.nic.host_name", Str, "How to set the host name for a NIC").default("random")
        .scope("global").refused("it is not built yet")
        .long(r#"Possible values are `random` and `mac`.

If set to `random`, use the random host interface name as the host name.
If set to `mac`, generate a host name in the form `inc<mac_address>` (MAC without leading two digits)."#),
    Key::new("instances.placement.scriptlet", Str, "Instance placement scriptlet for automatic instance placement")
        .scope("global").refused("it is not built yet")
        .long(r#"When using custom automatic instance placement logic, this option stores the scriptlet.
See {ref}`clustering-instance-placement-scriptlet` for more information."#),
    Key::new("instances.tpm.platform_cert", Str, "Platform CA certificate used to provision TPM Endorsement Keys")
        .scope("global").refused("it is not built yet")
        .long(r#"PEM encoded platform CA certificate used to sign the Endorsement
Key and platform certificate of newly created TPM devices.
Must be set together with `instances.tpm.platform_key`."#),
    Key::new("instances.tpm.platform_key", Str, "Private key for the TPM platform CA certificate")
        .scope("global").refused("it is not built yet")
        .long(r#"PEM encoded private key matching `instances.tpm.platform_cert`.
Used to sign the Endorsement Key and platform certificate of newly
created TPM devices."#),
    Key::new("network.ovn.ca_cert", Str, "OVN SSL certificate authority")
        .default_text("Content of `/etc/ovn/ovn-central.crt` if present").scope("global")
        .refused("OVN is not built yet"),
    Key::new("network.ovn.client_cert", Str, "OVN SSL client certificate")
        .default_text("Content of `/etc/ovn/cert_host` if present").scope("global")
        .refused("OVN is not built yet"),
    Key::new("network.ovn.client_key", Str, "OVN SSL client key")
        .default_text("Content of `/etc/ovn/key_host` if present").scope("global")
        .refused("OVN is not built yet"),
    Key::new("network.ovn.integration_bridge", Str, "OVS integration bridge to use for OVN networks")
        .default("br-int").scope("global").refused("OVN is not built yet"),
    Key::new("network.ovn.northbound_connection", Str, "OVN northbound database connection string")
        .default("unix:/run/ovn/ovnnb_db.sock").scope("global").refused("OVN is not built yet"),
    Key::new("network.ovs.connection", Str, "OVS socket path").default("unix:/run/openvswitch/db.sock")
        .scope("global").refused("OVN is not built yet"),
    Key::new("storage.backups_volume", Str, "Volume to use to store backup tarballs").scope("local")
        .refused("it is not built yet").long("Specify the volume using the syntax `POOL/VOLUME`."),
    Key::new("storage.images_volume", Str, "Volume to use to store the image tarballs").scope("local")
        .refused("it is not built yet").long("Specify the volume using the syntax `POOL/VOLUME`."),
    Key::new("storage.linstor.ca_cert", Str, "LINSTOR SSL certificate authority").scope("global")
        .refused("LINSTOR is not built yet"),
    Key::new("storage.linstor.client_cert", Str, "LINSTOR SSL client certificate").scope("global")
        .refused("LINSTOR is not built yet"),
    Key::new("storage.linstor.client_key", Str, "LINSTOR SSL client key").scope("global")
        .refused("LINSTOR is not built yet"),
    Key::new("storage.linstor.controller_connection", Str, "LINSTOR controller connection string")
        .scope("global").refused("LINSTOR is not built yet"),
    Key::new("storage.linstor.satellite.name", Str, "LINSTOR satellite node name override").scope("global")
        .refused("LINSTOR is not built yet")
        .long("Set this option to the name of the local LINSTOR satellite node, should it be different from the Incus server name."),
    Key::new("storage.logs_volume", Str, "Volume to use to store instance log directories").scope("local")
        .refused("it is not built yet").long("Specify the volume using the syntax `POOL/VOLUME`."),
    Key::new("user.*", Str, "Free-form user key/value storage").scope("global"),
];

pub(in crate::keys) static SERVER_NETWORK: &[Key] = &[
    Key::new("network.hwaddr_pattern", Str, "MAC address template").default("10:66:6a:xx:xx:xx").scope("global")
        .refused("it is not built yet")
        .long(r#"Specify a MAC address template, e.g. `10:66:6a:xx:xx:xx`, to use within the cluster.
Every `x` in the template will be replaced by a random character in `0`–`f`.
Beware of the birthday paradox! A single `xx` block leads to a 10% collision probability with only 8 addresses; for a double `xx:xx` block, 118 addresses; for a triple `xx:xx:xx` block, 1881; for a quadruple `xx:xx:xx:xx` block, 30084. We provide absolutely no guardrail against that."#),
];

pub(in crate::keys) static SERVER_OIDC: &[Key] = &[
    Key::new("oidc.audience", Str, "Expected audience value for the application")
        .scope("global")
        .refused("it is not built yet")
        .long("This value is required by some providers."),
    Key::new("oidc.claim", Str, "OpenID Connect claim to use as the username")
        .scope("global")
        .refused("it is not built yet")
        .long("Note that the claim must be contained in the access token."),
    Key::new("oidc.client.id", Str, "OpenID Connect client ID").scope("global").refused("it is not built yet"),
    Key::new("oidc.issuer", Str, "OpenID Connect Discovery URL for the provider")
        .scope("global")
        .refused("it is not built yet"),
    Key::new("oidc.scopes", Str, "Comma separated list of OpenID Connect scopes")
        .scope("global")
        .refused("it is not built yet"),
];
