//! The ways to a server, as HTTP agents: straight, by tunnel through a proxy (https), or by asking a
//! proxy (http).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::Agent;
use ureq::config::{Config, ConfigBuilder};
use ureq::tls::{TlsConfig, TlsProvider};
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};

use super::deadline::Deadline;
use super::proxy::{Proxies, Proxy};
use super::{SetupError, Times, authorities, forward};
use crate::config::Network;

/// The longest header of an answer, and so the most memory that one takes.
const HEADER_MAX: usize = 32 * 1024;
/// For each connection and direction.
const BUFFER: usize = 64 * 1024;

pub(super) struct Routes {
    pub(super) deadline: Deadline,
    proxies: Proxies,
    direct: Agent,
    tunnel: Option<Agent>,
    forward: Option<Agent>,
}

/// One way.
pub(super) struct Route<'a> {
    pub(super) agent: &'a Agent,
    /// The proxy, if one is on the way.
    pub(super) via: Option<&'a Proxy>,
    /// What a proxy wants to see in `Proxy-Authorization` of a plain request. A secret.
    pub(super) authorization: Option<String>,
}

impl Routes {
    pub(super) fn new(
        network: &Network,
        times: &Times,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SetupError> {
        let proxies = Proxies::new(network, variable)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(authorities::roots(&network.authorities)?)
            .build();
        let config = || config(times).tls_config(tls.clone());
        let deadline = Deadline::default();
        let agent = |config: Config| {
            let connector = DefaultConnector::default().chain(deadline.clone());
            Agent::with_parts(config, connector, DefaultResolver::default())
        };
        let direct = agent(config().build());
        let tunnel = proxies.https.as_ref();
        let tunnel = tunnel.map(|proxy| agent(config().proxy(Some(proxy.inner().clone())).build()));
        let forward = proxies.http.as_ref();
        let forward =
            forward.map(|proxy| forward::agent(config().build(), proxy.inner(), deadline.clone()));
        Ok(Self { deadline, proxies, direct, tunnel, forward })
    }

    pub(super) fn to(&self, url: &str) -> Route<'_> {
        let straight = Route { agent: &self.direct, via: None, authorization: None };
        let Some(proxy) = self.proxies.way(url) else { return straight };
        let is_tunnel = url.starts_with("https://");
        let agent = if is_tunnel { &self.tunnel } else { &self.forward };
        let authorization = if is_tunnel { None } else { basic(proxy) };
        match agent {
            Some(agent) => Route { agent, via: Some(proxy), authorization },
            None => straight,
        }
    }
}

fn config(times: &Times) -> ConfigBuilder<AgentScope> {
    Config::builder()
        // Or ureq would read the environment, and take one proxy for every scheme.
        .proxy(None)
        .user_agent(concat!("etchaos-updater/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .http_status_as_error(false)
        // A connection for every request: what comes behind an answer, or instead of the body that an
        // answer to HEAD has not, would be the next answer.
        .max_idle_connections(0)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(HEADER_MAX)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .timeout_connect(Some(times.connect))
        .timeout_recv_response(Some(times.stall))
        .timeout_per_read(Some(times.stall))
}

fn basic(proxy: &Proxy) -> Option<String> {
    let proxy = proxy.inner();
    let user = proxy.username()?;
    let password = proxy.password().unwrap_or_default();
    Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}
