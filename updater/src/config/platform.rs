//! The cloud platform of this machine, as its firmware names it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::{Host, read_limited};

/// Where the kernel shows single strings of the SMBIOS tables, readable by every user.
const DMI_ID: &str = "/sys/class/dmi/id";
/// The maximum size of a string.
const STRING_MAX: u64 = 4096;

/// A platform that hands user data to its machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Platform {
    /// Amazon Web Services.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// Google Cloud.
    Gcp,
    /// Hetzner Cloud.
    Hetzner,
    /// OpenStack, and clouds that are built with it.
    OpenStack,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aws => "AWS",
            Self::Azure => "Azure",
            Self::Gcp => "GCP",
            Self::Hetzner => "Hetzner",
            Self::OpenStack => "OpenStack",
        })
    }
}

/// Returns the platform of the host, or `None` if the firmware names none that is known here.
///
/// On other machines, the address of the metadata service may belong to any machine on the same network.
pub(super) fn identify(host: &Host) -> Option<Platform> {
    // Firmware pads its strings with spaces or zero bytes.
    let string = |name: &str| {
        let bytes = read_limited(&host.path(&format!("{DMI_ID}/{name}")), STRING_MAX);
        let bytes = bytes.ok().flatten().unwrap_or_default();
        let is_padding = |c: char| c.is_whitespace() || c == '\0';
        String::from_utf8_lossy(&bytes).trim_matches(is_padding).to_ascii_lowercase()
    };
    let vendor = string("sys_vendor");
    let product = string("product_name");
    let tag = string("chassis_asset_tag");
    // Nitro instances name the vendor (systemd's virt.c, and `identify_ec2_instances` of the EC2 User
    // Guide); older Xen instances have a BIOS version such as 4.11.amazon.
    let is_aws = vendor == "amazon ec2"
        || string("bios_vendor") == "amazon ec2"
        || string("bios_version").ends_with(".amazon");
    // "Detect if a VM is running in Compute Engine" of Google's documentation.
    let is_gcp = product == "google compute engine";
    // The tag of all Azure machines, which Azure's agent and cloud-init's ds-identify check.
    let is_azure = tag == "7783-7084-3265-9085-8269-3286-77";
    // ds-identify of cloud-init, which Hetzner's images use.
    let is_hetzner = vendor == "hetzner";
    // "Discovery" of cloud-init's OpenStack data source; Nova writes the product. The tags are those of
    // clouds that replace it.
    let is_openstack = ["openstack nova", "openstack compute"].contains(&product.as_str())
        || [
            "openstack nova",
            "openstack compute",
            "opentelekomcloud",
            "huaweicloud",
            "sap ccloud vm",
        ]
        .contains(&tag.as_str());
    [
        (is_aws, Platform::Aws),
        (is_azure, Platform::Azure),
        (is_gcp, Platform::Gcp),
        (is_hetzner, Platform::Hetzner),
        (is_openstack, Platform::OpenStack),
    ]
    .into_iter()
    .find_map(|(is_platform, platform)| is_platform.then_some(platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifies_platforms() {
        use Platform::*;
        for (name, value, expected) in [
            ("sys_vendor", "Amazon EC2\n", Some(Aws)),
            ("bios_vendor", "Amazon EC2\n", Some(Aws)),
            ("bios_version", "4.11.amazon\n", Some(Aws)),
            ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n", Some(Azure)),
            ("product_name", "Google Compute Engine\n", Some(Gcp)),
            ("sys_vendor", "Hetzner\n", Some(Hetzner)),
            ("product_name", "OpenStack Nova\n", Some(OpenStack)),
            ("chassis_asset_tag", "OpenTelekomCloud\n", Some(OpenStack)),
            ("sys_vendor", " amazon ec2 \n", Some(Aws)),
            ("bios_version", "4.11.Amazon \n", Some(Aws)),
            ("sys_vendor", "HETZNER \0\n", Some(Hetzner)),
            ("product_name", "OpenStack Nova   \n", Some(OpenStack)),
            ("sys_vendor", "Hetzner Online GmbH\n", None),
            ("sys_vendor", "QEMU\n", None),
            ("sys_vendor", "Microsoft Corporation\n", None),
            ("sys_vendor", "Google\n", None),
            ("product_name", "", None),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("sys/class/dmi/id");
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join(name), value).unwrap();
            assert_eq!(identify(&Host::new(directory.path())), expected, "{name} {value}");
        }
        assert_eq!(identify(&Host::new("/nonexistent")), None);
    }
}
