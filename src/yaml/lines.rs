//! The line on which a dotted key stands, found by indentation.
//!
//! Not a YAML parser: it runs on texts that serde_yaml has accepted, and only says where to look. Keys inside `{…}` and `[…]` are not
//! told apart; their section's line stands for them.

/// The keys of a text in block style with their lines.
pub(super) struct Lines(Vec<(Vec<String>, usize)>);

/// An open section while scanning.
struct Open {
    column: usize,
    key: String,
    /// The place in a list, rather than a key.
    item: bool,
}

impl Lines {
    pub fn scan(text: &str) -> Self {
        let mut scan = Scan { open: Vec::new(), found: Vec::new(), skip: Skip::Nothing };
        for (number, line) in text.lines().enumerate() {
            scan.line(line, number + 1);
        }
        Self(scan.found)
    }

    /// The line of `path`, or of the nearest section around it; `None` when not even that is known.
    pub fn find(&self, path: &[String]) -> Option<usize> {
        let depth = |known: &[String]| if path.starts_with(known) { known.len() } else { 0 };
        // The first of the deepest: an entry of a list is noted before the keys in it.
        let best = self.0.iter().map(|(known, _)| depth(known)).max()?;
        self.0.iter().find(|(known, _)| best > 0 && depth(known) == best).map(|(_, line)| *line)
    }

    /// The first key that is there twice, with its first and its second line.
    pub fn double(&self) -> Option<(&[String], usize, usize)> {
        let mut seen = std::collections::BTreeMap::new();
        self.0.iter().find_map(|(path, line)| seen.insert(path, *line).map(|first| (path.as_slice(), first, *line)))
    }
}

/// What the following lines belong to.
enum Skip {
    Nothing,
    /// The text of a `|` or `>` block, as long as it is indented more than this.
    Block(usize),
    /// A value that goes on over several lines.
    Value(Unclosed),
}

struct Scan {
    open: Vec<Open>,
    found: Vec<(Vec<String>, usize)>,
    skip: Skip,
}

impl Scan {
    fn line(&mut self, line: &str, number: usize) {
        let content = line.trim_start_matches(' ');
        let column = line.len() - content.len();
        match &mut self.skip {
            Skip::Value(unclosed) => {
                unclosed.read(line);
                if unclosed.is_closed() {
                    self.skip = Skip::Nothing;
                }
                return;
            }
            Skip::Block(above) if content.trim().is_empty() || column > *above => return,
            _ => self.skip = Skip::Nothing,
        }
        if !(content.trim().is_empty() || content.starts_with(['#', '%']) || content.starts_with("---")) {
            self.entry(content, column, number);
        }
    }

    /// A line's `- ` marks, then its key, then how its value goes on.
    fn entry(&mut self, content: &str, column: usize, number: usize) {
        if let Some(rest) = content.strip_prefix('-').filter(|rest| rest.is_empty() || rest.starts_with(' ')) {
            self.item(column, number);
            let inner = rest.trim_start();
            if !inner.is_empty() && !inner.starts_with('#') {
                self.entry(inner, column + content.len() - inner.len(), number);
            }
            return;
        }
        match split_key(content) {
            Some((key, value)) => {
                self.open.retain(|open| open.column < column);
                self.push(column, key, false, number);
                self.value(value, column);
            }
            None => self.value(content, self.open.last().map_or(0, |open| open.column)),
        }
    }

    fn item(&mut self, column: usize, number: usize) {
        let next = self
            .open
            .iter()
            .find(|open| open.item && open.column == column)
            .map_or(0, |open| open.key.parse::<usize>().map_or(0, |index| index + 1));
        self.open.retain(|open| open.column < column || (open.column == column && !open.item));
        self.push(column, next.to_string(), true, number);
    }

    fn push(&mut self, column: usize, key: String, item: bool, number: usize) {
        self.open.push(Open { column, key, item });
        self.found.push((self.open.iter().map(|open| open.key.clone()).collect(), number));
    }

    fn value(&mut self, value: &str, column: usize) {
        let value = value.trim();
        if value.starts_with(['|', '>']) {
            self.skip = Skip::Block(column);
        } else if value.starts_with(['[', '{', '"', '\'']) {
            let mut unclosed = Unclosed::default();
            unclosed.read(value);
            if !unclosed.is_closed() {
                self.skip = Skip::Value(unclosed);
            }
        }
    }
}

/// Brackets and quotes that are still open.
#[derive(Default)]
struct Unclosed {
    depth: usize,
    quote: Option<char>,
}

impl Unclosed {
    fn is_closed(&self) -> bool {
        self.depth == 0 && self.quote.is_none()
    }

    fn read(&mut self, line: &str) {
        let mut before = ' ';
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match (self.quote, c) {
                (Some('"'), '\\') => drop(chars.next()),
                (Some(quote), c) if c == quote => self.quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') if !before.is_alphanumeric() => self.quote = Some(c),
                (None, '[' | '{') => self.depth += 1,
                (None, ']' | '}') => self.depth = self.depth.saturating_sub(1),
                (None, '#') if before == ' ' => return,
                _ => {}
            }
            before = c;
        }
    }
}

/// `key: value`, with the key's quotes taken off.
fn split_key(content: &str) -> Option<(String, &str)> {
    if let Some(quote) = content.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let (key, rest) = content[1..].split_once(quote)?;
        return Some((key.to_owned(), rest.trim_start().strip_prefix(':')?));
    }
    if content.starts_with(['[', '{']) {
        return None;
    }
    let end = content
        .match_indices(':')
        .map(|(at, _)| at)
        .find(|at| content[at + 1..].is_empty() || content[at + 1..].starts_with(' '))?;
    let key = content[..end].trim_end();
    (!key.contains(" #")).then(|| (key.to_owned(), &content[end + 1..]))
}
