//! How the data partition is marked in the partition table, and where it is mounted.

/// The type of the partition. It is EtchaOS's own: programs mount partitions of well-known types, and that of
/// /var belongs to a machine ID, which differs in each boot.
pub(super) const TYPE: &str = "7c3d1a4e-95f2-4b0c-8d6a-e7c4a05d11d8";
/// The type in the byte order of the disk: the first three numbers of a GUID are little-endian.
pub(super) const TYPE_BYTES: [u8; 16] = [
    0x4e, 0x1a, 0x3d, 0x7c, 0xf2, 0x95, 0x0c, 0x4b, 0x8d, 0x6a, 0xe7, 0xc4, 0xa0, 0x5d, 0x11, 0xd8,
];
/// The name of the partition, and the label of its file system.
pub(super) const LABEL: &str = "etchaos-data";
/// The attribute of a partition that has no complete file system yet. The UEFI specification leaves the bits 48
/// to 63 to the type of the partition.
pub(super) const UNFINISHED: u64 = 1 << 48;
/// Where the partition is mounted.
pub(crate) const MOUNT_POINT: &str = "/var/lib/etchaos/data";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_type_are_the_same() {
        let hex: String = TYPE.chars().filter(|c| *c != '-').collect();
        let bytes: Vec<u8> =
            (0..16).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        assert_eq!(order.map(|at| bytes[at]), TYPE_BYTES);
    }
}
