//! The record of what was applied, for `status`.

use serde::{Deserialize, Serialize};

use super::settings::HostSettings;
use crate::record::Record;

/// What the last run applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub time: u64,
    #[serde(flatten)]
    pub settings: HostSettings,
    /// Why not everything was applied; `None` if it was.
    pub problem: Option<String>,
}

impl Record for Applied {
    const FILE: &'static str = "host-settings.json";
}

impl Applied {
    /// Returns a name and a text for each setting, as `status` shows them.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let HostSettings { hostname, interfaces, ntp } = &self.settings;
        let mut rows = Vec::new();
        rows.extend(hostname.iter().map(|name| ("host name", name.clone())));
        rows.extend(interfaces.iter().map(|(name, interface)| {
            ("interface", format!("{name} ({}): {}", interface.card, interface.describe()))
        }));
        rows.extend((!ntp.is_empty()).then(|| ("ntp", ntp.join(", "))));
        rows.extend(self.problem.iter().map(|problem| ("settings", problem.clone())));
        rows
    }
}
