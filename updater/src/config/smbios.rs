//! The OEM strings in the SMBIOS tables (DMTF DSP0134, structure type 11), through which a
//! hypervisor passes configuration to a guest.

/// The structure type of OEM strings.
const OEM_STRINGS: u8 = 11;
/// The structure type that ends the table.
const END: u8 = 127;
/// The length of type, length and handle.
const HEADER_LEN: usize = 4;

/// Returns the OEM strings in a table, in order, up to the first damaged structure.
pub(super) fn oem_strings(table: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = table;
    while let Some((kind, strings, after)) = structure(rest) {
        if kind == OEM_STRINGS {
            let texts = strings.split(|byte| *byte == 0).filter(|text| !text.is_empty());
            found.extend(texts.map(|text| String::from_utf8_lossy(text).into_owned()));
        }
        if kind == END {
            break;
        }
        rest = after;
    }
    found
}

/// Splits off the first structure: returns its type, its strings separated by zero bytes, and the rest
/// of the table.
fn structure(table: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, length) = (*table.first()?, usize::from(*table.get(1)?));
    if length < HEADER_LEN {
        return None;
    }
    let strings = table.get(length..)?;
    // Two zero bytes end a structure, even if it has no strings.
    let end = strings.windows(2).position(|pair| pair == [0, 0])?;
    Some((kind, &strings[..end], &strings[end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> Vec<u8> {
        let mut table = vec![0, 6, 0, 0, 1, 2];
        table.extend(b"vendor\0version\0\0");
        table.extend([1, 5, 1, 0, 9, 0, 0]); // without strings
        table.extend([11, 5, 2, 0, 2]);
        table.extend(b"etchaos={}\0other\0\0");
        table.extend([127, 4, 3, 0, 0, 0]);
        table
    }

    #[test]
    fn finds_oem_strings() {
        assert_eq!(oem_strings(&table()), ["etchaos={}", "other"]);
    }

    #[test]
    fn reads_complete_structures_of_a_truncated_table() {
        for end in 0..table().len() {
            assert!(oem_strings(&table()[..end]).len() <= 2);
        }
        assert!(oem_strings(&[11, 0, 0, 0, 0, 0]).is_empty());
    }

    proptest! {
        #[test]
        fn does_not_panic_or_hang_on_any_table(table in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = oem_strings(&table);
        }
    }
}
