//! HTTP agents for the routes to a server: direct, through a tunnel of a proxy (https), or through a
//! forwarding proxy (http).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::url::Origin;
use ureq::Agent;
use ureq::config::{Config, ConfigBuilder};
use ureq::tls::{TlsConfig, TlsProvider};
use ureq::typestate::AgentScope;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector};

use super::addresses::Addresses;
use super::certificates;
use super::deadline::Deadline;
use super::error::NetworkConfigError;
use super::forward_proxy::{AbsoluteForm, ProxyResolver};
use super::proxy::{Proxies, Proxy};
use super::race::Race;
use super::resolver::BothFamilies;
use super::timeouts::Timeouts;
use crate::config::Network;

/// The maximum size of a response's header, which bounds the memory that it takes.
const HEADER_MAX: usize = 32 * 1024;
/// The size of a connection's buffer, for each direction.
const BUFFER_SIZE: usize = 64 * 1024;

/// The agents of a client.
pub(super) struct Routes {
    pub(super) deadline: Deadline,
    pub(super) addresses: Addresses,
    proxies: Proxies,
    direct: Agent,
    tunnel: Option<Agent>,
    forward: Option<Agent>,
}

/// The route of one request.
pub(super) struct Route<'a> {
    pub(super) agent: &'a Agent,
    /// The proxy, if one is used.
    pub(super) via: Option<&'a Proxy>,
    /// `Proxy-Authorization` for a forwarding proxy. Secret.
    pub(super) authorization: Option<String>,
}

impl Routes {
    /// Makes the agents. Fails if a proxy or a certificate file is not usable.
    pub(super) fn new(
        network: &Network,
        timeouts: &Timeouts,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, NetworkConfigError> {
        let proxies = Proxies::new(network, variable)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(certificates::load(&network.authorities)?)
            .build();
        let config = || config(timeouts).tls_config(tls.clone());
        let (deadline, addresses) = (Deadline::default(), Addresses::default());
        let direct = agent(config().build(), &deadline, &addresses);
        let tunnel = proxies.https.as_ref().map(|proxy| {
            agent(config().proxy(Some(proxy.inner().clone())).build(), &deadline, &addresses)
        });
        let forward = proxies.http.as_ref().map(|proxy| {
            let connector = connector(&addresses).chain(AbsoluteForm).chain(deadline.clone());
            let resolver = ProxyResolver::new(proxy.inner(), BothFamilies(addresses.clone()));
            Agent::with_parts(config().build(), connector, resolver)
        });
        Ok(Self { deadline, addresses, proxies, direct, tunnel, forward })
    }

    /// Returns the route to a URL.
    pub(super) fn to(&self, url: &str) -> Route<'_> {
        let direct = Route { agent: &self.direct, via: None, authorization: None };
        let Some(proxy) = self.proxies.for_url(url) else { return direct };
        let is_tunnel = Origin::of(url).is_some_and(|origin| origin.is_https());
        let agent = if is_tunnel { &self.tunnel } else { &self.forward };
        let authorization = if is_tunnel { None } else { basic(proxy) };
        match agent {
            Some(agent) => Route { agent, via: Some(proxy), authorization },
            None => direct,
        }
    }
}

/// Makes an agent that connects directly or, if `config` has a proxy, through a tunnel.
fn agent(config: Config, deadline: &Deadline, addresses: &Addresses) -> Agent {
    let connector = connector(addresses).chain(deadline.clone());
    Agent::with_parts(config, connector, BothFamilies(addresses.clone()))
}

/// Returns the connectors of ureq, with [`Race`] in the place of its TCP connector.
fn connector(addresses: &Addresses) -> impl Connector<()> + use<> {
    ().chain(ConnectProxyConnector::default())
        .chain(Race(addresses.clone()))
        .chain(RustlsConnector::default())
}

fn config(timeouts: &Timeouts) -> ConfigBuilder<AgentScope> {
    Config::builder()
        // Without this, ureq reads the environment and uses one proxy for all schemes.
        .proxy(None)
        .user_agent(concat!("etchaos-updater/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .http_status_as_error(false)
        // Every request has its own connection. On a reused one, bytes after a response, or a body that
        // a server wrongly sends for HEAD, would be parsed as the next response.
        .max_idle_connections(0)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(HEADER_MAX)
        .input_buffer_size(BUFFER_SIZE)
        .output_buffer_size(BUFFER_SIZE)
        .timeout_resolve(Some(timeouts.connect))
        .timeout_connect(Some(timeouts.connect))
        .timeout_recv_response(Some(timeouts.stall))
        .timeout_per_read(Some(timeouts.stall))
}

/// Returns the proxy's credentials for the Basic scheme (RFC 7617).
fn basic(proxy: &Proxy) -> Option<String> {
    let proxy = proxy.inner();
    let user = proxy.username()?;
    let password = proxy.password().unwrap_or_default();
    Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}
