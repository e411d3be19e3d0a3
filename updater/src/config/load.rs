//! Reads every source of configuration, in order.

use std::io;
use std::path::{Path, PathBuf};

use protocol::esp;

use super::error::ConfigError;
use super::fragment::{Fragment, HealthFragment, ListenFragment};
use super::health_policy::HealthPolicy;
use super::merged::Merged;
use super::network::Environment;
use super::quantity::{Quantity, format_duration};
use super::reboot_policy::RebootFragment;
use super::smbios::oem_strings;
use super::source::{IMAGE_CONFIG, IMAGE_KEYS, Source};
use crate::esp::{Esp, EspError, mount_volume};
use crate::files::parent;
use crate::host::{Host, read_limited};

/// The kernel's copy of the SMBIOS tables.
const DMI: &str = "/sys/firmware/dmi/tables/DMI";
/// The devices of the volume that clouds and hypervisors attach. Some tools write FAT labels only in
/// upper case.
const CIDATA: [&str; 2] = ["/dev/disk/by-label/cidata", "/dev/disk/by-label/CIDATA"];
/// The name of the file on the `cidata` volume.
const USER_DATA: &str = "user-data";
/// The prefix of the SMBIOS strings that contain a configuration.
const SMBIOS_PREFIX: &str = "etchaos=";

/// The maximum size of a file. A key takes 100 to 600 bytes, so this is enough for hundreds of keys.
const FILE_MAX: u64 = 256 * 1024;
/// The maximum size of the SMBIOS tables. Those of a large server take tens of kB; the format allows
/// 4 GiB.
const DMI_MAX: u64 = 1024 * 1024;
/// The default address for pushes. The port is the one that Etcha uses.
const LISTEN_ADDRESS: &str = "0.0.0.0:4000";

/// Reads and merges every source, `files` last. A missing source is ignored, except for `files`; a
/// source that cannot be read or parsed is an error.
pub(crate) fn load(
    host: &Host,
    esp: Option<&Esp>,
    files: &[PathBuf],
) -> Result<Merged, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut merged = Merged { environment: Environment::read(&variable), ..Merged::default() };
    merged.add(&Source::Default, defaults());
    add_os_release(&mut merged, host)?;
    add_file(&mut merged, Source::Image, &host.path(IMAGE_CONFIG))?;
    add_image_keys(&mut merged, host)?;
    if let Some(esp) = esp {
        add_file(&mut merged, Source::Esp, &esp.path(esp::CONFIG))
            .map_err(explain_not_a_directory)?;
    }
    add_cmdline(&mut merged, host)?;
    add_smbios(&mut merged, host)?;
    add_cidata(&mut merged, host)?;
    for path in files {
        let source = Source::File(path.clone());
        if !add_file(&mut merged, source.clone(), path)? {
            let reason = "there is no such file: create it, or omit --config";
            let error = io::Error::new(io::ErrorKind::NotFound, reason);
            return Err(ConfigError::Read { from: source, error });
        }
    }
    Ok(merged)
}

/// Returns the values that do not depend on a configuration file: the defaults, the running variant and
/// the keys of the image. Commands that only show the state of the host use them if the configuration is
/// broken.
pub(crate) fn load_built_in(host: &Host) -> Result<Merged, ConfigError> {
    let mut merged = Merged::default();
    merged.add(&Source::Default, defaults());
    add_os_release(&mut merged, host)?;
    add_image_keys(&mut merged, host)?;
    Ok(merged)
}

fn defaults() -> Fragment {
    Fragment {
        reboot: Some(RebootFragment::Idle),
        health: Some(HealthFragment {
            deadline: Some(Quantity::Text(format_duration(HealthPolicy::DEADLINE))),
            ..HealthFragment::default()
        }),
        listen: Some(ListenFragment { address: Some(LISTEN_ADDRESS.into()), sources: None }),
        ..Fragment::default()
    }
}

fn add_os_release(merged: &mut Merged, host: &Host) -> Result<(), ConfigError> {
    let from = Source::OsRelease;
    let variant = host.os_release("VARIANT_ID");
    let variant = variant.map_err(|error| ConfigError::Read { from: from.clone(), error })?;
    merged.add(&from, Fragment { variant, ..Fragment::default() });
    Ok(())
}

fn add_file(merged: &mut Merged, from: Source, path: &Path) -> Result<bool, ConfigError> {
    let Some(json) = read(&from, path, FILE_MAX)? else { return Ok(false) };
    add(merged, from, Fragment::from_json(&json))?;
    Ok(true)
}

/// Explains the error that occurs if `etchaos` on the ESP is a file. The system only reports "not a
/// directory".
fn explain_not_a_directory(error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Read { from, error } if error.kind() == io::ErrorKind::NotADirectory => {
            let reason = format!(
                "{} on the ESP is a file, expected a directory: remove the file",
                parent(esp::CONFIG)
            );
            let error = io::Error::new(io::ErrorKind::NotADirectory, reason);
            ConfigError::Read { from, error }
        }
        error => error,
    }
}

fn add_image_keys(merged: &mut Merged, host: &Host) -> Result<(), ConfigError> {
    let from = Source::ImageKeys;
    let text = read(&from, &host.path(IMAGE_KEYS), FILE_MAX)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let keys = lines.map(str::to_owned).collect();
    merged.add(&from, Fragment { keys: Some(keys), ..Fragment::default() });
    Ok(())
}

fn add_cmdline(merged: &mut Merged, host: &Host) -> Result<(), ConfigError> {
    let cmdline =
        host.cmdline().map_err(|error| ConfigError::Read { from: Source::Cmdline, error })?;
    match esp::argument(&cmdline, esp::ARG_CONFIG) {
        Some(text) => add(merged, Source::Cmdline, Fragment::from_json_or_base64(text)),
        None => Ok(()),
    }
}

fn add_smbios(merged: &mut Merged, host: &Host) -> Result<(), ConfigError> {
    let table = match read_limited(&host.path(DMI), DMI_MAX) {
        Ok(table) => table.unwrap_or_default(),
        // Only root can read the table. Other users still see the other sources.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            log::warn!("ignoring SMBIOS strings: reading {DMI} needs root");
            return Ok(());
        }
        Err(error) => return Err(ConfigError::Read { from: Source::Smbios(1), error }),
    };
    let strings = oem_strings(&table);
    let ours = strings.iter().filter_map(|text| text.strip_prefix(SMBIOS_PREFIX));
    for (index, text) in ours.enumerate() {
        add(merged, Source::Smbios(index + 1), Fragment::from_json_or_base64(text))?;
    }
    Ok(())
}

fn add_cidata(merged: &mut Merged, host: &Host) -> Result<(), ConfigError> {
    let from = Source::Cidata;
    let Some(device) = CIDATA.map(|path| host.path(path)).into_iter().find(|path| path.exists())
    else {
        return Ok(());
    };
    let volume = mount_volume(host, &device, &["vfat", "iso9660"])
        .map_err(|error| mount_error(from.clone(), &error))?;
    let text = read(&from, &volume.path(USER_DATA), FILE_MAX)?;
    let Some(text) = text else { return Ok(()) };
    match user_data(&text) {
        UserData::Config(json) => add(merged, from, Fragment::from_json(json)),
        UserData::Foreign(reason) => {
            log::info!(
                "ignoring {from}: {reason}; a configuration is a JSON object, optionally after a first line #etchaos"
            );
            Ok(())
        }
    }
}

fn mount_error(from: Source, error: &EspError) -> ConfigError {
    let text = error.to_string();
    match error {
        EspError::NotRoot(_) => ConfigError::NotRoot { from, error: text },
        _ => ConfigError::Read { from, error: io::Error::other(text) },
    }
}

/// The contents of `user-data`. Clouds and hypervisors attach a `cidata` volume to every machine, so the
/// file may be meant for another program.
#[derive(Debug, PartialEq, Eq)]
enum UserData<'a> {
    /// A configuration, possibly with syntax errors.
    Config(&'a [u8]),
    /// A file for another program, and the reason for that conclusion.
    Foreign(&'static str),
}

fn user_data(text: &[u8]) -> UserData<'_> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return UserData::Foreign("it is empty");
    }
    if !text.starts_with(b"#") {
        return UserData::Config(text);
    }
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let (first, rest) = (text[..end].trim_ascii(), text[end..].trim_ascii());
    // With the line #etchaos, a syntax error is reported instead of ignoring the file.
    let is_config = first == b"#etchaos"
        || serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(rest).is_ok();
    match is_config {
        true => UserData::Config(rest),
        false => UserData::Foreign("it begins with # and is not followed by a JSON object"),
    }
}

fn read(from: &Source, path: &Path, max: u64) -> Result<Option<Vec<u8>>, ConfigError> {
    read_limited(path, max).map_err(|error| ConfigError::Read { from: from.clone(), error })
}

fn add(
    merged: &mut Merged,
    from: Source,
    fragment: Result<Fragment, String>,
) -> Result<(), ConfigError> {
    let fragment = fragment.map_err(|reason| ConfigError::Format { from: from.clone(), reason })?;
    merged.add(&from, fragment);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_configurations_from_foreign_user_data() {
        for foreign in [
            "",
            " \n",
            "#",
            "#cloud-config",
            "#cloud-config\npackages: [vim]\n",
            "#cloud-config\n{packages: [vim]}\n",
            "#!/bin/sh\necho {}\n",
            "#include\nhttps://example.com/x\n",
        ] {
            assert!(matches!(user_data(foreign.as_bytes()), UserData::Foreign(_)), "{foreign:?}");
        }
        for (config, json) in [
            ("{", "{"),
            ("{\"cdn\": \"x\"}\n", "{\"cdn\": \"x\"}"),
            ("#anything\r\n{}", "{}"),
            ("#etchaos\r\n{\"cdn\":", "{\"cdn\":"),
            ("cdn: x", "cdn: x"),
        ] {
            assert_eq!(
                user_data(config.as_bytes()),
                UserData::Config(json.as_bytes()),
                "{config:?}"
            );
        }
    }
}
