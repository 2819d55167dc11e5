//! The mapping engine: a format is a table of rows, run in either direction.
//!
//! A row pairs a pattern of their names with one of ours. `{}` stands for an index (digits), `{*}` for any text; what they
//! match is carried over in order. The first row that matches a name decides.

use super::{error::WeightsError, named::NamedTensors};

/// What happens to a tensor that a row matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Renamed, as it is.
    Copy,
    /// A 1×1 convolution's weight or a matrix in theirs, a matrix in ours.
    Squeeze,
    /// Computed, not learned: left out on the way in; a writer that wants it computes it.
    Drop,
}

/// One rule of a format.
#[derive(Clone, Debug)]
pub struct Row {
    theirs: String,
    ours: String,
    op: Op,
}

impl Row {
    /// A plain renaming.
    pub fn copy(theirs: impl Into<String>, ours: impl Into<String>) -> Row {
        Row { theirs: theirs.into(), ours: ours.into(), op: Op::Copy }
    }

    /// A renaming that also removes trailing axes of size one.
    pub fn squeeze(theirs: impl Into<String>, ours: impl Into<String>) -> Row {
        Row { op: Op::Squeeze, ..Row::copy(theirs, ours) }
    }

    /// A name that has no counterpart in ours.
    pub fn drop(theirs: impl Into<String>) -> Row {
        Row { op: Op::Drop, ..Row::copy(theirs, "") }
    }
}

/// A weight format: its name and its rows.
#[derive(Clone, Debug)]
pub struct Table {
    name: &'static str,
    rows: Vec<Row>,
}

impl Table {
    /// A format called `name`, for messages.
    pub fn new(name: &'static str, rows: Vec<Row>) -> Table {
        Table { name, rows }
    }

    /// Turns their names into ours. Any name that no row knows is an error; `hint` may say what the file is instead.
    pub fn import(
        &self,
        mut tensors: NamedTensors,
        hint: impl Fn(&NamedTensors) -> String,
    ) -> Result<NamedTensors, WeightsError> {
        let names: Vec<String> = tensors.names().map(String::from).collect();
        let unknown: Vec<&String> = names.iter().filter(|name| self.find(name).is_none()).collect();
        if let Some(first) = unknown.first() {
            return Err(WeightsError::UnknownKeys {
                origin: tensors.origin_of(first).unwrap_or_else(|| "tensors".into()),
                format: self.name,
                count: unknown.len(),
                total: names.len(),
                first: (*first).clone(),
                hint: hint(&tensors),
            });
        }
        for name in &names {
            let (row, captures) = self.find(name).expect("checked above");
            if row.op == Op::Squeeze {
                squeeze(&mut tensors, name);
            }
            tensors.rename(name, (row.op != Op::Drop).then(|| fill(&row.ours, &captures)));
        }
        Ok(tensors)
    }

    /// Their name for one of ours, if the format has it.
    pub fn export_name(&self, ours: &str) -> Option<String> {
        self.rows
            .iter()
            .filter(|row| row.op != Op::Drop)
            .find_map(|row| captures(&row.ours, ours).map(|captures| fill(&row.theirs, &captures)))
    }

    /// Our name for one of theirs: the name, or `None` inside when it is left out; outer `None` when unknown.
    pub fn import_name(&self, theirs: &str) -> Option<Option<String>> {
        self.find(theirs).map(|(row, captures)| (row.op != Op::Drop).then(|| fill(&row.ours, &captures)))
    }

    fn find<'n>(&self, theirs: &'n str) -> Option<(&Row, Vec<&'n str>)> {
        self.rows.iter().find_map(|row| captures(&row.theirs, theirs).map(|captures| (row, captures)))
    }
}

fn squeeze(tensors: &mut NamedTensors, name: &str) {
    let Some(shape) = tensors.shape(name) else { return };
    if let [rows, columns, 1, 1] = shape[..] {
        let tensor = tensors.get(name).expect("it has a shape").view([rows, columns]);
        tensors.insert(name, tensor);
    }
}

/// What the placeholders of `pattern` stand for in `name`, if the whole name matches.
fn captures<'n>(pattern: &str, name: &'n str) -> Option<Vec<&'n str>> {
    let Some(open) = pattern.find('{') else {
        return (pattern == name).then(Vec::new);
    };
    let close = open + pattern[open..].find('}').expect("a placeholder is closed");
    let rest = name.strip_prefix(&pattern[..open])?;
    let (any, pattern_rest) = (&pattern[open + 1..close] == "*", &pattern[close + 1..]);
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let longest = if any { rest.len() } else { digits };
    let shortest = if any { 1 } else { digits.max(1) };
    (shortest..=longest).filter(|&end| rest.is_char_boundary(end)).find_map(|end| {
        let mut tail = captures(pattern_rest, &rest[end..])?;
        tail.insert(0, &rest[..end]);
        Some(tail)
    })
}

/// `pattern` with its placeholders replaced in order.
fn fill(pattern: &str, captures: &[&str]) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut captures = captures.iter();
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let close = open + rest[open..].find('}').expect("a placeholder is closed");
        out.push_str(&rest[..open]);
        out.push_str(captures.next().expect("both sides of a row have the same placeholders"));
        rest = &rest[close + 1..];
    }
    out + rest
}
