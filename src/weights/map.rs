//! The mapping engine: a format is a table of rows, run in either direction.
//!
//! A row pairs a pattern of their names with one of ours. `{}` stands for an index (digits), `{*}` for any text; what they
//! match is carried over in order. The first row that matches a name decides, in both directions.

use std::collections::BTreeMap;

use super::{error::WeightsError, named::NamedTensors};

/// What happens to a tensor that a row matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Renamed, as it is.
    Copy,
    /// A 1×1 convolution's weight in theirs, a matrix in ours; a matrix in theirs is accepted too.
    Conv1x1,
    /// Computed, not learned: left out on the way in; a writer that wants it computes it.
    Drop,
    /// Part of another model that shares the file: known, and left out.
    Aside,
}

/// One rule of a format.
#[derive(Clone, Debug)]
pub struct Row {
    theirs: Pattern,
    ours: Pattern,
    op: Op,
}

impl Row {
    /// A plain renaming.
    pub fn copy(theirs: impl Into<String>, ours: impl Into<String>) -> Row {
        Row { theirs: Pattern::new(theirs), ours: Pattern::new(ours), op: Op::Copy }
    }

    /// A renaming of what may be a 1×1 convolution's weight in theirs, and is a matrix in ours.
    pub fn conv1x1(theirs: impl Into<String>, ours: impl Into<String>) -> Row {
        Row { op: Op::Conv1x1, ..Row::copy(theirs, ours) }
    }

    /// A name that has no counterpart in ours.
    pub fn drop(theirs: impl Into<String>) -> Row {
        Row { op: Op::Drop, ..Row::copy(theirs, "") }
    }

    /// A name that belongs to another model in the same file.
    pub fn aside(theirs: impl Into<String>) -> Row {
        Row { op: Op::Aside, ..Row::copy(theirs, "") }
    }

    fn renames(&self) -> bool {
        matches!(self.op, Op::Copy | Op::Conv1x1)
    }
}

/// A weight format: its name and its rows.
#[derive(Clone, Debug)]
pub struct Table {
    name: &'static str,
    rows: Vec<Row>,
}

/// How many names of a file a table knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Names that become tensors of ours.
    pub own: usize,
    /// Names that are known and left out.
    pub left_out: usize,
}

impl Table {
    /// A format called `name`, for messages.
    pub fn new(name: &'static str, rows: Vec<Row>) -> Table {
        Table { name, rows }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many of `names` it knows.
    pub fn coverage<'n>(&self, names: impl Iterator<Item = &'n str>) -> Coverage {
        let mut coverage = Coverage::default();
        for (row, _) in names.filter_map(|name| self.find(name)) {
            if row.renames() {
                coverage.own += 1;
            } else {
                coverage.left_out += 1;
            }
        }
        coverage
    }

    /// Those of `names` that it does not know.
    pub fn unknown<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<String> {
        names.filter(|name| self.find(name).is_none()).map(String::from).collect()
    }

    /// Whether a name belongs to another model in the same file.
    pub fn is_aside(&self, theirs: &str) -> bool {
        self.find(theirs).is_some_and(|(row, _)| row.op == Op::Aside)
    }

    /// Turns their names into ours. Any name that no row knows is an error, as are two that become one; `hint` may say what
    /// the file is instead.
    pub fn import(
        &self,
        mut tensors: NamedTensors,
        hint: impl Fn(&NamedTensors) -> String,
    ) -> Result<NamedTensors, WeightsError> {
        let unknown = self.unknown(tensors.names());
        if let Some(first) = unknown.first() {
            return Err(WeightsError::UnknownKeys {
                origin: tensors.origin_of(first).unwrap_or_else(|| "tensors".into()),
                format: self.name,
                count: unknown.len(),
                total: tensors.len(),
                first: first.clone(),
                hint: hint(&tensors),
            });
        }
        let step = |name: &str| {
            let (row, captures) = self.find(name).expect("checked above");
            (row.renames().then(|| row.ours.fill(&captures)), row.op)
        };
        run(&mut tensors, step, |shape| match shape {
            [rows, columns, 1, 1] => Some(vec![*rows, *columns]),
            _ => None,
        })
    }

    /// Turns our names into theirs.
    ///
    /// # Errors
    /// When the format has no name for one of ours.
    pub fn export(&self, mut tensors: NamedTensors) -> Result<NamedTensors, WeightsError> {
        let nameless: Vec<&str> = tensors.names().filter(|name| self.find_ours(name).is_none()).collect();
        if let Some(first) = nameless.first() {
            return Err(WeightsError::Nameless {
                origin: tensors.origin_of(first).unwrap_or_else(|| "tensors".into()),
                format: self.name,
                count: nameless.len(),
                total: tensors.len(),
                first: (*first).to_owned(),
            });
        }
        let step = |name: &str| {
            let (row, captures) = self.find_ours(name).expect("checked above");
            (Some(row.theirs.fill(&captures)), row.op)
        };
        run(&mut tensors, step, |shape| match shape {
            [rows, columns] => Some(vec![*rows, *columns, 1, 1]),
            _ => None,
        })
    }

    /// Their name for one of ours, if the format has it.
    pub fn export_name(&self, ours: &str) -> Option<String> {
        self.find_ours(ours).map(|(row, captures)| row.theirs.fill(&captures))
    }

    /// Our name for one of theirs: the name, or `None` inside when it is left out; outer `None` when unknown.
    pub fn import_name(&self, theirs: &str) -> Option<Option<String>> {
        self.find(theirs).map(|(row, captures)| row.renames().then(|| row.ours.fill(&captures)))
    }

    fn find<'n>(&self, theirs: &'n str) -> Option<(&Row, Vec<&'n str>)> {
        self.rows.iter().find_map(|row| row.theirs.captures(theirs).map(|captures| (row, captures)))
    }

    fn find_ours<'n>(&self, ours: &'n str) -> Option<(&Row, Vec<&'n str>)> {
        let rows = self.rows.iter().filter(|row| row.renames());
        rows.filter_map(|row| row.ours.captures(ours).map(|captures| (row, captures))).next()
    }
}

/// Renames all of `tensors` as `step` says, and gives those of `Op::Conv1x1` the shape that `reshaped` says.
fn run(
    tensors: &mut NamedTensors,
    step: impl Fn(&str) -> (Option<String>, Op),
    reshaped: impl Fn(&[i64]) -> Option<Vec<i64>>,
) -> Result<NamedTensors, WeightsError> {
    let mut source = std::mem::take(tensors);
    let mut renamed = NamedTensors::new();
    let mut before = BTreeMap::<String, String>::new();
    let names: Vec<String> = source.names().map(String::from).collect();
    for name in names {
        let (Some(to), op) = step(&name) else { continue };
        if let Some(other) = before.insert(to.clone(), name.clone()) {
            let origin = source.origin_of(&name).unwrap_or_else(|| "tensors".into());
            return Err(WeightsError::Twice { origin, first: other, second: name, name: to });
        }
        if op == Op::Conv1x1
            && let Some(shape) = source.shape(&name).and_then(|shape| reshaped(&shape))
        {
            source.reshape(&name, &shape);
        }
        source.hand_over(&name, &to, &mut renamed);
    }
    Ok(renamed)
}

/// A name with placeholders.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    /// Length of what comes before the first placeholder.
    literal: usize,
}

impl Pattern {
    fn new(text: impl Into<String>) -> Pattern {
        let text = text.into();
        let literal = text.find('{').unwrap_or(text.len());
        Pattern { text, literal }
    }

    /// What the placeholders stand for in `name`, if the whole name matches.
    fn captures<'n>(&self, name: &'n str) -> Option<Vec<&'n str>> {
        // Most rows end here: tables have thousands of them.
        let rest = name.strip_prefix(&self.text[..self.literal])?;
        captures(&self.text[self.literal..], rest)
    }

    /// The name with its placeholders replaced in order.
    fn fill(&self, captures: &[&str]) -> String {
        let mut out = String::with_capacity(self.text.len() + 16);
        let mut captures = captures.iter();
        let mut rest = self.text.as_str();
        while let Some(open) = rest.find('{') {
            let close = open + rest[open..].find('}').expect("a placeholder is closed");
            out.push_str(&rest[..open]);
            out.push_str(captures.next().expect("both sides of a row have the same placeholders"));
            rest = &rest[close + 1..];
        }
        out + rest
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
