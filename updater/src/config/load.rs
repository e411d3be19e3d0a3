//! Reads every source of configuration, in order.

use std::io;
use std::path::{Path, PathBuf};

use protocol::esp;
use protocol::keys::split_keys;

use super::broken::{Broken, Ignored, KEPT, kept, mentioned};
use super::error::ConfigError;
use super::fragment::{Fragment, HealthFragment, ListenFragment, StringList};
use super::health_policy::HealthPolicy;
use super::instance::{Ask, user_data};
use super::listen_tls::TlsFragment;
use super::merged::Merged;
use super::metadata::Answer;
use super::network::Environment;
use super::platform::{Platform, identify};
use super::quantity::{Quantity, format_duration};
use super::reboot_policy::RebootFragment;
use super::settings::Settings;
use super::smbios::oem_strings;
use super::source::{IMAGE_CONFIG, IMAGE_KEYS, Source};
use super::text::{begins_as_text, decode_start};
use super::user_data::{USER_DATA_MAX, UserData};
use crate::esp::{Esp, EspError, mount_volume};
use crate::files::parent;
use crate::host::{Host, read_limited, read_regular, read_start};

/// The kernel's copy of the SMBIOS tables.
const DMI: &str = "/sys/firmware/dmi/tables/DMI";
/// The devices of the volumes that clouds and hypervisors attach. Some tools write FAT labels only in
/// upper case.
const CIDATA: [&str; 2] = ["/dev/disk/by-label/cidata", "/dev/disk/by-label/CIDATA"];
/// The name of the file on the `cidata` volume.
const CIDATA_FILE: &str = "user-data";
/// The devices of OpenStack's config drive (docs.openstack.org, Nova, "Config drives").
const CONFIG_DRIVE: [&str; 2] = ["/dev/disk/by-label/config-2", "/dev/disk/by-label/CONFIG-2"];
/// The name of the file on the config drive.
const CONFIG_DRIVE_FILE: &str = "openstack/latest/user_data";
/// The prefix of the SMBIOS strings that contain a configuration.
const SMBIOS_PREFIX: &str = "etchaos=";

/// The maximum size of a file. A key takes 100 to 600 bytes, so this is enough for hundreds of keys.
const FILE_MAX: u64 = 256 * 1024;
/// The maximum size of the SMBIOS tables. Those of a large server take tens of kB; the format allows
/// 4 GiB.
const DMI_MAX: u64 = 1024 * 1024;
/// The default address for pushes. The port is the one that Etcha uses.
const LISTEN_ADDRESS: &str = "0.0.0.0:4000";

/// Reads and merges every source, `files` last. A missing source is ignored, and [`Merged`] has the errors
/// of broken ones.
///
/// # Errors
/// Fails if one of `files` is missing or broken, because the operator names it in the same command, and if
/// a source needs root.
pub(crate) fn load(
    host: &Host,
    esp: Option<&Esp>,
    files: &[PathBuf],
    ask: Ask,
) -> Result<Merged, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut sources =
        Sources(Merged { environment: Environment::read(&variable), ..Merged::default() });
    sources.0.add(&Source::Default, defaults());
    sources.os_release(host);
    sources.file(Source::Image, &host.path(IMAGE_CONFIG));
    sources.image_keys(host);
    if let Some(esp) = esp {
        sources.file(Source::Esp, &esp.path(esp::CONFIG));
    }
    sources.cmdline(host);
    sources.smbios(host);
    let has_config_drive = CONFIG_DRIVE.iter().any(|path| host.path(path).exists());
    match identify(host) {
        // The config drive has the same user data.
        Some(Platform::OpenStack) if has_config_drive => {}
        Some(platform) => sources.instance(host, platform, ask),
        None => {}
    }
    sources.volumes(host, &Source::ConfigDrive, &CONFIG_DRIVE, CONFIG_DRIVE_FILE)?;
    sources.volumes(host, &Source::Cidata, &CIDATA, CIDATA_FILE)?;
    for path in files {
        sources.required_file(path)?;
    }
    Ok(sources.0)
}

fn defaults() -> Fragment {
    Fragment {
        reboot: Some(RebootFragment::Idle),
        health: Some(HealthFragment {
            deadline: Some(Quantity::Text(format_duration(HealthPolicy::DEADLINE))),
            ..HealthFragment::default()
        }),
        listen: Some(ListenFragment {
            address: Some(LISTEN_ADDRESS.into()),
            tls: Some(TlsFragment::Enabled(true)),
            sources: None,
        }),
        ..Fragment::default()
    }
}

/// The sources that have been read so far.
struct Sources(Merged);

impl Sources {
    fn os_release(&mut self, host: &Host) {
        let from = Source::OsRelease;
        match host.os_release("VARIANT_ID") {
            Ok(variant) => {
                self.add_or_reject(&from, Ok(Fragment { variant, ..Fragment::default() }), b"")
            }
            Err(error) => self.reject(ConfigError::read(&from, &error), b""),
        }
    }

    fn file(&mut self, from: Source, path: &Path) {
        match read_limited(path, FILE_MAX) {
            Ok(Some(json)) => self.json(&from, &json),
            Ok(None) => {}
            Err(error) => {
                // The start of a file that is too large may tell which values are not known.
                let is_large = error.kind() == io::ErrorKind::FileTooLarge;
                let start = is_large.then(|| read_start(path, FILE_MAX).ok().flatten()).flatten();
                let error = explain_not_a_directory(&from, &error);
                self.reject(error, &start.unwrap_or_default());
            }
        }
    }

    /// Adds a file that must exist and be valid.
    fn required_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let from = Source::File(path.to_owned());
        let text =
            read_limited(path, FILE_MAX).map_err(|error| ConfigError::read(&from, &error))?;
        let Some(json) = text else {
            let reason = "there is no such file: create it, or omit --config";
            let error = io::Error::new(io::ErrorKind::NotFound, reason);
            return Err(ConfigError::read(&from, &error));
        };
        self.add(&from, Fragment::from_json(&json))
    }

    /// Adds the keys of the image, one by one: a line that is damaged does not take the other keys away.
    fn image_keys(&mut self, host: &Host) {
        let from = Source::ImageKeys;
        let text = match read_limited(&host.path(IMAGE_KEYS), FILE_MAX) {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => return self.reject(ConfigError::read(&from, &error), b""),
        };
        let text = String::from_utf8_lossy(&text);
        for key in split_keys(&text) {
            let keys = Some(StringList(vec![key]));
            if let Err(error) = self.add(&from, Ok(Fragment { keys, ..Fragment::default() })) {
                self.0.add_broken(Broken { error, unknown: vec!["keys"] });
            }
        }
    }

    fn cmdline(&mut self, host: &Host) {
        let from = Source::Cmdline;
        match host.cmdline() {
            Ok(cmdline) => {
                if let Some(text) = esp::argument(&cmdline, esp::ARG_CONFIG) {
                    self.json_or_base64(&from, text);
                }
            }
            Err(error) => self.reject(ConfigError::read(&from, &error), b""),
        }
    }

    fn smbios(&mut self, host: &Host) {
        let table = match read_limited(&host.path(DMI), DMI_MAX) {
            Ok(table) => table.unwrap_or_default(),
            // Only root can read the table. Other users still see the other sources.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return log::warn!("ignoring SMBIOS strings: reading {DMI} needs root");
            }
            Err(error) => return self.reject(ConfigError::read(&Source::Smbios(1), &error), b""),
        };
        let strings = oem_strings(&table);
        let ours = strings.iter().filter_map(|text| text.strip_prefix(SMBIOS_PREFIX));
        for (index, text) in ours.enumerate() {
            self.json_or_base64(&Source::Smbios(index + 1), text);
        }
    }

    fn instance(&mut self, host: &Host, platform: Platform, ask: Ask) {
        let from = Source::UserData(platform);
        match user_data(host, platform, ask) {
            Ok(Some(Answer::Data(data))) => self.user_data(from, &data),
            Ok(Some(Answer::Nothing(reason))) => self.ignore(from, reason),
            Ok(None) => self.ignore(from, "it has not been read yet in this boot".to_owned()),
            Err(reason) => {
                self.reject(ConfigError::Read { from, kind: io::ErrorKind::Other, reason }, b"")
            }
        }
    }

    /// Adds the user data in a file of each of the volumes that are attached.
    fn volumes(
        &mut self,
        host: &Host,
        from: &Source,
        devices: &[&str],
        file: &str,
    ) -> Result<(), ConfigError> {
        let devices = devices.iter().map(|path| host.path(path)).filter(|path| path.exists());
        devices.into_iter().try_for_each(|device| self.volume(host, from.clone(), &device, file))
    }

    fn volume(
        &mut self,
        host: &Host,
        from: Source,
        device: &Path,
        file: &str,
    ) -> Result<(), ConfigError> {
        let volume = match mount_volume(host, device, &["vfat", "iso9660"]) {
            Ok(volume) => volume,
            Err(error @ EspError::NotRoot(_)) => {
                return Err(ConfigError::NotRoot { from, error: error.to_string() });
            }
            Err(error) => {
                self.reject(ConfigError::read(&from, &io::Error::other(error.to_string())), b"");
                return Ok(());
            }
        };
        // One byte more says that the file is larger.
        match read_regular(&volume.path(""), file, USER_DATA_MAX as u64 + 1) {
            Ok(Some(data)) => self.user_data(from, &data),
            Ok(None) => self.ignore(from, format!("it has no file {file}")),
            Err(error) => self.reject(ConfigError::read(&from, &error), b""),
        }
        Ok(())
    }

    fn user_data(&mut self, from: Source, data: &[u8]) {
        match UserData::classify(data) {
            UserData::Config(json) if json.len() as u64 > FILE_MAX => {
                let reason = format!("it is larger than the limit of {FILE_MAX} bytes");
                self.reject(ConfigError::Format { from, reason }, &json);
            }
            UserData::Config(json) => self.json(&from, &json),
            UserData::Broken { reason, text } => {
                self.reject(ConfigError::Format { from, reason }, &text);
            }
            UserData::Foreign(reason) => self.ignore(from, reason),
        }
    }

    fn json(&mut self, from: &Source, json: &[u8]) {
        self.add_or_reject(from, Fragment::from_json(json), json);
    }

    fn json_or_base64(&mut self, from: &Source, text: &str) {
        let json = Fragment::json_of(text);
        let fragment =
            json.as_ref().map_err(String::clone).and_then(|json| Fragment::from_json(json));
        let Err(error) = self.add(from, fragment) else { return };
        // The kernel truncates its command line, and with it base64.
        let start = json.ok().or_else(|| decode_start(text.as_bytes()));
        match start.filter(|start| begins_as_text(start)) {
            Some(start) => self.reject(error, &start),
            // The text says that it is ours, so every member may be in it.
            None => self.0.add_broken(Broken { error, unknown: KEPT.to_vec() }),
        }
    }

    fn add_or_reject(&mut self, from: &Source, fragment: Result<Fragment, String>, text: &[u8]) {
        if let Err(error) = self.add(from, fragment) {
            self.reject(error, text);
        }
    }

    /// Adds the values of a source if all are valid, together with those of the earlier sources.
    fn add(
        &mut self,
        from: &Source,
        fragment: Result<Fragment, String>,
    ) -> Result<(), ConfigError> {
        let fragment =
            fragment.map_err(|reason| ConfigError::Format { from: from.clone(), reason })?;
        let mut next = self.0.clone();
        next.add(from, fragment);
        Settings::try_from(&next)?;
        self.0 = next;
        Ok(())
    }

    /// Records that a source is broken, and adds what is kept of its text; see [`super::broken`].
    fn reject(&mut self, error: ConfigError, text: &[u8]) {
        let from = error.origin().clone();
        let mut unknown = mentioned(text);
        for (name, fragment) in kept(text) {
            if self.add(&from, fragment).is_err() && !unknown.contains(&name) {
                unknown.push(name);
            }
        }
        self.0.add_broken(Broken { error, unknown });
    }

    fn ignore(&mut self, source: Source, reason: String) {
        log::info!("ignoring {source}: {reason}");
        self.0.ignored.push(Ignored { source, reason });
    }
}

/// Explains the error that occurs if `etchaos` on the ESP is a file. The system only reports "not a
/// directory".
fn explain_not_a_directory(from: &Source, error: &io::Error) -> ConfigError {
    if error.kind() != io::ErrorKind::NotADirectory {
        return ConfigError::read(from, error);
    }
    let reason = format!(
        "{} on the ESP is a file, expected a directory: remove the file",
        parent(esp::CONFIG)
    );
    ConfigError::read(from, &io::Error::new(error.kind(), reason))
}
