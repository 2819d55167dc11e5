//! A writer of stored zip archives, small enough to break on purpose.

/// An archive of `entries`, as (name, bytes).
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in entries {
        let header = file.len() as u32;
        let mut fields = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]; // version, flags, method, time, checksum
        fields.extend((bytes.len() as u32).to_le_bytes());
        fields.extend((bytes.len() as u32).to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0, 0]);
        file.extend(b"PK\x03\x04");
        file.extend(&fields);
        file.extend(name.as_bytes());
        file.extend(*bytes);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend(header.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    finish(file, &directory, entries.len() as u16)
}

fn finish(mut file: Vec<u8>, directory: &[u8], records: u16) -> Vec<u8> {
    let start = file.len() as u32;
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(records.to_le_bytes());
    file.extend(records.to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// An archive of `pickle` with the storage `0` of 16 bytes.
pub fn wrap(pickle: &[u8]) -> Vec<u8> {
    archive(&[("m/data.pkl", pickle), ("m/byteorder", b"little"), ("m/data/0", &[7; 16])])
}

/// The bytes of `m/data.pkl` of an archive by PyTorch: between the first local header and the next.
pub fn pickle_of(file: &[u8]) -> &[u8] {
    let number = |at: usize| usize::from(u16::from_le_bytes([file[at], file[at + 1]]));
    let start = 30 + number(26) + number(28);
    let len = (start..file.len()).find(|&at| file[at..].starts_with(b"PK")).unwrap_or(file.len()) - start;
    &file[start..start + len]
}
