//! The settings, and the checks of their lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::interface::{Interface, InterfaceFragment};
use super::names::{is_label, time_server};

/// The maximum number of interfaces.
const INTERFACES_MAX: usize = 32;
/// The maximum number of time servers.
const TIME_SERVERS_MAX: usize = 8;

/// The validated settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSettings {
    /// The host name; `None` for the one of the image.
    pub hostname: Option<String>,
    /// The interfaces by the names that the configuration gives them. Empty: DHCP on every network card.
    pub interfaces: BTreeMap<String, Interface>,
    /// The time servers. Empty: those of DHCP and of the image.
    pub ntp: Vec<String>,
}

/// Checks interfaces.
///
/// # Errors
/// Returns the name of the interface, if it is a valid one, with the member that is not valid, and what was
/// expected. The reason shows no value.
pub(crate) fn interfaces(
    fragments: &BTreeMap<String, InterfaceFragment>,
) -> Result<BTreeMap<String, Interface>, (String, String)> {
    if fragments.len() > INTERFACES_MAX {
        return Err((String::new(), format!("expected at most {INTERFACES_MAX} interfaces")));
    }
    let mut interfaces = BTreeMap::new();
    for (name, fragment) in fragments {
        if !is_label(name) {
            let reason = "the name of an interface is a part of a file name: expected 1 to 32 lower-case letters, digits and dashes";
            return Err((String::new(), reason.to_owned()));
        }
        let interface = Interface::new(fragment)
            .map_err(|(member, reason)| (format!(".{name}{member}"), reason))?;
        interfaces.insert(name.clone(), interface);
    }
    Ok(interfaces)
}

/// Checks time servers.
///
/// # Errors
/// Returns what was expected.
pub(crate) fn time_servers(texts: &[String]) -> Result<Vec<String>, String> {
    if texts.len() > TIME_SERVERS_MAX {
        return Err(format!("expected at most {TIME_SERVERS_MAX} time servers"));
    }
    let server = |text: &String| {
        time_server(text).ok_or_else(|| "expected a list of host names or addresses".to_owned())
    };
    texts.iter().map(server).collect()
}
