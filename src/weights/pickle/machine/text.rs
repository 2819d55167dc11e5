//! The two spellings of text in protocol 0.

use std::borrow::Cow;

/// The text of a UNICODE line: Latin-1 with `\uXXXX` and `\UXXXXXXXX` for the rest. `None` for an escape that is no
/// character.
pub(super) fn unescape(line: &[u8]) -> Option<Cow<'_, str>> {
    if line.is_ascii() && !line.contains(&b'\\') {
        return std::str::from_utf8(line).ok().map(Cow::Borrowed);
    }
    let mut text = String::with_capacity(2 * line.len()); // a Latin-1 byte takes up to two of UTF-8
    let mut rest = line;
    while let [byte, tail @ ..] = rest {
        let (character, len) = match (byte, tail.first()) {
            (b'\\', Some(b'u')) => (hex(tail.get(1..5)?)?, 6),
            (b'\\', Some(b'U')) => (hex(tail.get(1..9)?)?, 10),
            _ => (char::from(*byte), 1),
        };
        text.push(character);
        rest = &rest[len..];
    }
    Some(Cow::Owned(text))
}

fn hex(digits: &[u8]) -> Option<char> {
    let fold = |value: u32, &digit: &u8| Some(value << 4 | char::from(digit).to_digit(16)?);
    digits.iter().try_fold(0, fold).and_then(char::from_u32)
}

/// The text of a STRING line between its quotes. `None` without quotes, or with a backslash: PyTorch's names have none.
pub(super) fn unquote(line: &str) -> Option<&str> {
    let inner = ['\'', '"'].iter().find_map(|&quote| line.strip_prefix(quote)?.strip_suffix(quote))?;
    (!inner.contains('\\')).then_some(inner)
}
