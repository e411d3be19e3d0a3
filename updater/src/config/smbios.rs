//! The OEM strings of the firmware's tables (DMTF DSP0134, structure type 11), by which a
//! hypervisor hands configuration to a guest.

/// The type of the structure with OEM strings.
const OEM_STRINGS: u8 = 11;
/// The type that ends the table.
const END: u8 = 127;
/// Type, length and handle.
const HEADER: usize = 4;

/// The OEM strings in a table, in order. A table that is damaged ends where it is damaged.
pub fn oem_strings(table: &[u8]) -> Vec<String> {
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

/// The type of the first structure, its strings with a zero between, and what comes after it.
fn structure(table: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, length) = (*table.first()?, usize::from(*table.get(1)?));
    if length < HEADER {
        return None;
    }
    let strings = table.get(length..)?;
    // Two zeros end it, also if there are no strings.
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
    fn oem_strings_are_found() {
        assert_eq!(oem_strings(&table()), ["etchaos={}", "other"]);
    }

    #[test]
    fn a_cut_table_gives_what_is_whole() {
        for end in 0..table().len() {
            assert!(oem_strings(&table()[..end]).len() <= 2);
        }
        assert!(oem_strings(&[11, 0, 0, 0, 0, 0]).is_empty());
    }

    proptest! {
        #[test]
        fn no_table_panics_or_hangs(table in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = oem_strings(&table);
        }
    }
}
