//! Reading every source, in order.

use std::io;
use std::path::{Path, PathBuf};

use protocol::esp;

use super::smbios::oem_strings;
use super::{
    ConfigError, Environment, Fragment, HealthFragment, ListenFragment, Merged, Quantity,
    RebootFragment, Source,
};
use super::{Health, span_text};
use crate::esp::{Esp, EspError, mount_volume};
use crate::files::parent;
use crate::host::{Host, read_limited};

/// What the image says.
pub(super) const IMAGE_CONFIG: &str = "/usr/lib/etchaos/updater.json";
/// The keys that the image trusts, one a line.
pub(super) const IMAGE_KEYS: &str = "/usr/lib/etchaos/keys";
/// The firmware's tables, as the kernel copies them.
const DMI: &str = "/sys/firmware/dmi/tables/DMI";
/// The volume that clouds and hypervisors attach. Some tools write FAT labels in capitals only.
const CIDATA: [&str; 2] = ["/dev/disk/by-label/cidata", "/dev/disk/by-label/CIDATA"];
/// The file on it.
const USER_DATA: &str = "user-data";
/// How an SMBIOS string begins that is meant for us.
const SMBIOS_PREFIX: &str = "etchaos=";

/// A key string takes 100 bytes to 600; a configuration with a thousand is no longer one.
const FILE_MAX: u64 = 256 * 1024;
/// The tables of a large server take some tens of kB. The entry point cannot say more than 4 GiB.
const DMI_MAX: u64 = 1024 * 1024;
/// Any TCP port that is free and easy to remember; it is Etcha's.
const LISTEN_ADDRESS: &str = "0.0.0.0:4000";

/// Reads and merges every source. One that is not there is fine, one that is broken is an error.
/// `files` come last.
pub fn load(host: &Host, esp: Option<&Esp>, files: &[PathBuf]) -> Result<Merged, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut merged = Merged { environment: Environment::read(&variable), ..Merged::default() };
    merged.add(&Source::Default, defaults());
    add_os_release(&mut merged, host)?;
    add_file(&mut merged, Source::Image, &host.path(IMAGE_CONFIG))?;
    add_image_keys(&mut merged, host)?;
    if let Some(esp) = esp {
        add_file(&mut merged, Source::Esp, &esp.path(esp::CONFIG)).map_err(in_the_way)?;
    }
    add_cmdline(&mut merged, host)?;
    add_smbios(&mut merged, host)?;
    add_cidata(&mut merged, host)?;
    for path in files {
        let from = Source::File(path.clone());
        if !add_file(&mut merged, from.clone(), path)? {
            let why = "there is no such file: put it there, or leave --config out";
            let why = io::Error::new(io::ErrorKind::NotFound, why);
            return Err(ConfigError::Read { from, why });
        }
    }
    Ok(merged)
}

/// What nobody configured: the defaults, the variant that runs, and the keys of the image.
pub fn of_image(host: &Host) -> Result<Merged, ConfigError> {
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
            deadline: Some(Quantity::Text(span_text(Health::DEADLINE))),
            ..HealthFragment::default()
        }),
        listen: Some(ListenFragment { address: Some(LISTEN_ADDRESS.into()), sources: None }),
        ..Fragment::default()
    }
}

fn add_os_release(merged: &mut Merged, host: &Host) -> Result<(), ConfigError> {
    let from = Source::OsRelease;
    let variant = host.os_release("VARIANT_ID");
    let variant = variant.map_err(|why| ConfigError::Read { from: from.clone(), why })?;
    merged.add(&from, Fragment { variant, ..Fragment::default() });
    Ok(())
}

fn add_file(merged: &mut Merged, from: Source, path: &Path) -> Result<bool, ConfigError> {
    let Some(json) = read(&from, path, FILE_MAX)? else { return Ok(false) };
    add(merged, from, Fragment::from_json(&json))?;
    Ok(true)
}

/// Of a file in the place of our directory, the system says only that it is none.
fn in_the_way(error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Read { from, why } if why.kind() == io::ErrorKind::NotADirectory => {
            let why = format!(
                "{} on the ESP is a file, and a directory is expected there: it may be removed",
                parent(esp::CONFIG)
            );
            let why = io::Error::new(io::ErrorKind::NotADirectory, why);
            ConfigError::Read { from, why }
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
    let cmdline = host.cmdline().map_err(|why| ConfigError::Read { from: Source::Cmdline, why })?;
    match esp::argument(&cmdline, esp::ARG_CONFIG) {
        Some(word) => add(merged, Source::Cmdline, Fragment::from_word(word)),
        None => Ok(()),
    }
}

fn add_smbios(merged: &mut Merged, host: &Host) -> Result<(), ConfigError> {
    let table = match read_limited(&host.path(DMI), DMI_MAX) {
        Ok(table) => table.unwrap_or_default(),
        // The table is root's alone. Who is not root sees the other sources.
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
            log::warn!("SMBIOS is not looked at: reading {DMI} needs root");
            return Ok(());
        }
        Err(why) => return Err(ConfigError::Read { from: Source::Smbios(1), why }),
    };
    let strings = oem_strings(&table);
    let ours = strings.iter().filter_map(|text| text.strip_prefix(SMBIOS_PREFIX));
    for (index, word) in ours.enumerate() {
        add(merged, Source::Smbios(index + 1), Fragment::from_word(word))?;
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
        .map_err(|error| not_mounted(from.clone(), &error))?;
    let text = read(&from, &volume.path(USER_DATA), FILE_MAX)?;
    let Some(text) = text else { return Ok(()) };
    match user_data(&text) {
        UserData::Ours(json) => add(merged, from, Fragment::from_json(json)),
        UserData::Foreign(why) => {
            log::info!(
                "{from} is ignored: {why}; a configuration is a JSON object, with or without a first line #etchaos"
            );
            Ok(())
        }
    }
}

fn not_mounted(from: Source, error: &EspError) -> ConfigError {
    let why = error.to_string();
    match error {
        EspError::NotRoot(_) => ConfigError::NotRoot { from, why },
        _ => ConfigError::Read { from, why: io::Error::other(why) },
    }
}

/// A volume labelled `cidata` may be there for others: clouds and hypervisors attach one to every
/// machine.
#[derive(Debug, PartialEq, Eq)]
enum UserData<'a> {
    /// JSON, which may be broken.
    Ours(&'a [u8]),
    /// Somebody else's, and why.
    Foreign(&'static str),
}

fn user_data(text: &[u8]) -> UserData<'_> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return UserData::Foreign("it is empty");
    }
    if !text.starts_with(b"#") {
        return UserData::Ours(text);
    }
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let (first, rest) = (text[..end].trim_ascii(), text[end..].trim_ascii());
    // A typing error in what says that it is ours must be told.
    let is_ours = first == b"#etchaos"
        || serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(rest).is_ok();
    match is_ours {
        true => UserData::Ours(rest),
        false => UserData::Foreign("it begins with # and no JSON object follows"),
    }
}

fn read(from: &Source, path: &Path, max: u64) -> Result<Option<Vec<u8>>, ConfigError> {
    read_limited(path, max).map_err(|why| ConfigError::Read { from: from.clone(), why })
}

fn add(
    merged: &mut Merged,
    from: Source,
    fragment: Result<Fragment, String>,
) -> Result<(), ConfigError> {
    let fragment = fragment.map_err(|why| ConfigError::Format { from: from.clone(), why })?;
    merged.add(&from, fragment);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_of_others_is_told_from_ours() {
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
        for (ours, json) in [
            ("{", "{"),
            ("{\"cdn\": \"x\"}\n", "{\"cdn\": \"x\"}"),
            ("#anything\r\n{}", "{}"),
            ("#etchaos\r\n{\"cdn\":", "{\"cdn\":"),
            ("cdn: x", "cdn: x"),
        ] {
            assert_eq!(user_data(ours.as_bytes()), UserData::Ours(json.as_bytes()), "{ours:?}");
        }
    }
}
