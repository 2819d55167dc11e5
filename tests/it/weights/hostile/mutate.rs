//! Damage to files, the same in every run.

/// Longest result of a repetition.
const LONGEST: usize = 256 << 10;

/// Integers that readers add, multiply or allocate by.
const INTEGERS: [u64; 10] =
    [0, 1, 0x7f, 0xffff, i32::MAX as u64, u32::MAX as u64, 1 << 32, i64::MAX as u64, u64::MAX - 7, u64::MAX];
/// The same in JSON, and what is no integer there.
const NUMBERS: [&str; 10] = [
    "0",
    "1",
    "-1",
    "65536",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "0.5",
];
/// What the grammars consist of: JSON, pickle's instructions, a zip's signatures.
const WORDS: [&[u8]; 16] = [
    b"{",
    b"[",
    b"]",
    b"\"",
    b",",
    b"\\u0000",
    b"\"__metadata__\":",
    b"\"shape\":[",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"(",
    b"h\x00",
    b"q\x00",
    b"R",
    b"\x85",
    b"cos\nsystem\n",
];

/// Marsaglia's xorshift64.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Below `limit`; 0 where nothing is.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// One of `items`.
    pub fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// `file`, damaged in one to three places; parts of `other` may get into it.
pub fn damaged(file: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..1 + random.below(3) {
        damage(&mut bytes, other, random);
    }
    bytes
}

/// As [`damaged`], but of the header of a safetensors file, whose length is then set right again: otherwise most damage would
/// end at that.
pub fn rewritten(file: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let Some((header, data)) = split(file) else { return damaged(file, other, random) };
    let header = damaged(header, split(other).map_or(other, |(header, _)| header), random);
    [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
}

/// Header and data.
fn split(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(64)).min(bytes.len());
    match random.below(10) {
        0 => flip(bytes, at, random),
        1 => bytes.truncate(at),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let from = random.below(other.len());
            let to = (from + 1 + random.below(64)).min(other.len());
            bytes.splice(at..at, other[from.min(to)..to].iter().copied());
        }
        4 => drop(bytes.splice(at.., other[random.below(other.len())..].iter().copied())),
        5 => drop(bytes.splice(at..at, random.of(&WORDS).iter().copied())),
        6 => overwrite(bytes, at, random),
        7 | 8 => replace_number(bytes, at, random),
        _ if random.below(8) == 0 => repeat(bytes, at..end, LONGEST),
        _ => repeat(bytes, at..end, bytes.len() + 4096),
    }
}

fn flip(bytes: &mut [u8], at: usize, random: &mut Random) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// Writes an extreme integer of one to eight bytes at `at`, least byte first.
fn overwrite(bytes: &mut [u8], at: usize, random: &mut Random) {
    let integer = random.of(&INTEGERS).to_le_bytes();
    let width = random.of(&[1, 2, 4, 8]);
    let place = bytes[at..].iter_mut().take(width);
    place.zip(integer).for_each(|(byte, new)| *byte = new);
}

/// Writes an extreme number in place of the digits next after `at`.
fn replace_number(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    bytes.splice(start..start + length, random.of(&NUMBERS).bytes());
}

/// Repeats a part until there are `length` bytes.
fn repeat(bytes: &mut Vec<u8>, part: std::ops::Range<usize>, length: usize) {
    let missing = length.saturating_sub(bytes.len());
    let copies: Vec<u8> = bytes[part.clone()].iter().copied().cycle().take(missing).collect();
    bytes.splice(part.end..part.end, copies);
}
