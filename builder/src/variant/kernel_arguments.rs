//! Arguments of the kernel that become words of `grub.cfg`.

use anyhow::{Result, ensure};

use super::fields::Field;

/// The maximum length of all arguments, in bytes. The kernels of x86 and arm64 accept 2048 in total
/// (`COMMAND_LINE_SIZE`), of which EtchaOS and the operator need a part.
const LENGTH_MAX: usize = 1024;

/// The parameters that decide which slot boots, and whether a failed boot ends. A variant with other values
/// could not be updated, or not fall back.
const RESERVED: [&str; 4] = ["panic", "init", "rdinit", "initrd"];
/// The prefix of EtchaOS's own parameters.
const RESERVED_PREFIX: &str = "etchaos.";

/// Reads the arguments.
pub(super) fn read(fields: &[Field<'_>]) -> Result<Vec<String>> {
    let mut length = 0;
    let mut arguments = Vec::new();
    for field in fields {
        let expected = "an argument such as \"quiet\" or \"mitigations=auto,nosmt\": letters, digits, and \
                        any of . _ , : / = + @ % -, with a letter or a digit first";
        let argument = field.text_that(expected, is_argument)?;
        // The kernel takes "-" and "_" in the names of parameters for the same character.
        let name = argument.split('=').next().unwrap_or(argument);
        ensure!(
            !RESERVED.contains(&name) && !name.starts_with(RESERVED_PREFIX),
            field.error("but EtchaOS sets this parameter itself")
        );
        length += argument.len() + 1;
        ensure!(
            length <= LENGTH_MAX,
            field.error(&format!("and the arguments have more than {LENGTH_MAX} bytes"))
        );
        arguments.push(argument.to_owned());
    }
    Ok(arguments)
}

/// Returns whether a text is one word for GRUB, with the same meaning inside and outside of quotes. GRUB
/// expands `$`, `*`, `?` and `[`, and ends a command at `;`, `{`, `}`, `&` and `|`.
fn is_argument(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._,:/=+@%-".contains(&b);
    text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && text.bytes().all(is_allowed)
}
