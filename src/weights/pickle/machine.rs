//! The stack machine of pickles (Python's `pickletools`, protocols 0 to 5), cut down to what builds values.
//!
//! It runs no code: a call of a function in the allow-list becomes a node, any other is an error. What PyTorch never
//! writes is refused by name. Knows nothing of tensors beyond the names of the functions that make them.

use std::borrow::Cow;
use std::collections::HashMap;

use super::PickleError;
use super::cursor::Cursor;
use super::error::shorten;
use super::globals::{self, Global};
use super::node::{Id, Node, Tree};

mod text;

const MAX_STACK: usize = 1 << 20;
const MAX_MEMO: usize = 1 << 20;
const HIGHEST_PROTOCOL: u8 = 5;
const STOP: u8 = b'.';

/// Every opcode of protocols 0 to 3, as a file's first byte after the protocol.
const OPCODES: &[u8] = b"(.012FIJKLMNPQRSTUVXabcdeghijloqprstu})]G\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8bBC";

/// Whether `byte` can start an instruction of protocols 0 to 3.
pub(super) fn is_opcode(byte: u8) -> bool {
    OPCODES.contains(&byte)
}

/// Runs the whole pickle and returns the tree that it builds.
pub(super) fn parse(pickle: &[u8]) -> Result<Tree<'_>, PickleError> {
    let mut machine = Machine {
        input: Cursor::new(pickle, 0),
        at: 0,
        tree: Tree::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    machine.tree.root = machine.run()?;
    Ok(machine.tree)
}

struct Machine<'a> {
    input: Cursor<'a>,
    /// Where the instruction that is being carried out starts.
    at: usize,
    tree: Tree<'a>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            self.at = self.input.at();
            match self.array::<1>()? {
                [STOP] => return self.pop(),
                [opcode] => self.step(opcode)?,
            }
        }
    }

    /// Carries out one instruction.
    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            0x80 => self.protocol(),
            0x95 => self.array::<8>().map(drop), // FRAME: a hint for buffering
            b'(' => self.mark(),
            b'0' => self.discard(),
            b'1' => self.pop_mark().map(drop),
            b'2' => self.top().and_then(|id| self.push(id)),

            b'N' => self.add(Node::None),
            0x88 => self.add(Node::Bool(true)),
            0x89 => self.add(Node::Bool(false)),
            b'I' => self.int_line(),
            b'J' => self.array().and_then(|bytes| self.add(Node::Int(i32::from_le_bytes(bytes).into()))),
            b'K' => self.array::<1>().and_then(|[byte]| self.add(Node::Int(byte.into()))),
            b'M' => self.array().and_then(|bytes| self.add(Node::Int(u16::from_le_bytes(bytes).into()))),
            b'L' => self.long_line(),
            0x8a => self.len::<1>().and_then(|len| self.long(len)),
            0x8b => self.len::<4>().and_then(|len| self.long(len)),
            b'F' => self.float_line(),
            b'G' => self.array().and_then(|bytes| self.add(Node::Float(f64::from_be_bytes(bytes)))),

            0x8c => self.len::<1>().and_then(|len| self.text(len)),
            b'X' => self.len::<4>().and_then(|len| self.text(len)),
            0x8d => self.len::<8>().and_then(|len| self.text(len)),
            b'V' => self.escaped_text(),
            b'S' => self.quoted_text(),
            b'U' => self.len::<1>().and_then(|len| self.python2_text(len)),
            b'T' => self.len::<4>().and_then(|len| self.python2_text(len)),
            b'C' => self.len::<1>().and_then(|len| self.bytes(len)),
            b'B' => self.len::<4>().and_then(|len| self.bytes(len)),
            0x8e | 0x96 => self.len::<8>().and_then(|len| self.bytes(len)),

            b')' => self.add(Node::Tuple(Box::default())),
            0x85 => self.small_tuple(1),
            0x86 => self.small_tuple(2),
            0x87 => self.small_tuple(3),
            b't' => self.pop_mark().and_then(|items| self.add(Node::Tuple(items.into()))),
            b']' => self.add(Node::List(Vec::new())),
            b'l' => self.marked_list(),
            b'a' => self.pop().and_then(|item| self.extend_list(&[item])),
            b'e' => self.pop_mark().and_then(|items| self.extend_list(&items)),
            b'}' => self.add(Node::Dict(Vec::new())),
            b'd' => self.marked_dict(),
            b's' => self.pair().and_then(|(key, value)| self.extend_dict(&[key, value])),
            b'u' => self.pop_mark().and_then(|items| self.extend_dict(&items)),
            0x8f => self.add(Node::Opaque), // EMPTY_SET
            0x90 => self.pop_mark().and_then(|_| self.top().map(drop)),
            0x91 => self.pop_mark().and_then(|_| self.add(Node::Opaque)),

            b'g' => self.memo_line().and_then(|key| self.recall(key)),
            b'h' => self.array::<1>().and_then(|[key]| self.recall(key.into())),
            b'j' => self.array().and_then(|key| self.recall(u32::from_le_bytes(key))),
            b'p' => self.memo_line().and_then(|key| self.memoize(key)),
            b'q' => self.array::<1>().and_then(|[key]| self.memoize(key.into())),
            b'r' => self.array().and_then(|key| self.memoize(u32::from_le_bytes(key))),
            0x94 => self.memoize(self.memo.len() as u32),

            b'c' => self.global_lines(),
            0x93 => self.stack_global(),
            b'Q' => self.pop().and_then(|id| self.add(Node::Persistent(id))),
            b'R' | 0x81 => self.pair().and_then(|(callee, args)| self.call(callee, args)),
            0x92 => self.pop().and_then(|_| self.pair()).and_then(|(callee, args)| self.call(callee, args)),
            b'b' => self.pop().and_then(|_state| self.top().map(drop)), // BUILD: attributes such as `_metadata`

            _ => Err(self.refuse(opcode)),
        }
    }

    fn refuse(&self, opcode: u8) -> PickleError {
        let name = match opcode {
            b'P' => "PERSID",
            b'i' => "INST",
            b'o' => "OBJ",
            0x82..=0x84 => "EXT",
            0x97 => "NEXT_BUFFER",
            0x98 => "READONLY_BUFFER",
            _ => return self.malformed(format!("{opcode:#04x} is no instruction")),
        };
        self.malformed(format!("the instruction {name}, which PyTorch never writes"))
    }

    fn malformed(&self, reason: impl Into<String>) -> PickleError {
        PickleError::Malformed { at: self.at, reason: reason.into() }
    }

    fn truncated(&self) -> PickleError {
        self.malformed("it ends inside an instruction")
    }

    fn protocol(&mut self) -> Result<(), PickleError> {
        match self.array()? {
            [0..=HIGHEST_PROTOCOL] => Ok(()),
            [other] => Err(self.malformed(format!("protocol {other}, expected at most {HIGHEST_PROTOCOL}"))),
        }
    }
}

/// Reading the operands of an instruction.
impl<'a> Machine<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        self.input.array().ok_or_else(|| self.truncated())
    }

    /// A length of `N` bytes. One that does not fit is past the end anyway.
    fn len<const N: usize>(&mut self) -> Result<usize, PickleError> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        Ok(usize::try_from(u64::from_le_bytes(wide)).unwrap_or(usize::MAX))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
        self.input.take(len).ok_or_else(|| self.truncated())
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let line = self.input.line().ok_or_else(|| self.truncated())?;
        self.utf8(line)
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str, PickleError> {
        std::str::from_utf8(bytes).map_err(|_| self.malformed("text that is not UTF-8"))
    }

    fn memo_line(&mut self) -> Result<u32, PickleError> {
        self.line()?.parse().map_err(|_| self.malformed("a memo position that is no number"))
    }
}

/// The stack and the memo.
impl<'a> Machine<'a> {
    fn push(&mut self, id: Id) -> Result<(), PickleError> {
        if self.stack.len() >= MAX_STACK {
            return Err(PickleError::Limit { what: "values on the pickle's stack", limit: MAX_STACK });
        }
        self.stack.push(id);
        Ok(())
    }

    fn add(&mut self, node: Node<'a>) -> Result<(), PickleError> {
        let id = self.tree.add(node)?;
        self.push(id)
    }

    /// The topmost value above the last mark.
    fn top(&self) -> Result<Id, PickleError> {
        let fence = self.marks.last().copied().unwrap_or(0);
        self.stack[fence..].last().copied().ok_or_else(|| self.malformed("a value is missing from the stack"))
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// The two topmost values, in the order they were pushed.
    fn pair(&mut self) -> Result<(Id, Id), PickleError> {
        let second = self.pop()?;
        Ok((self.pop()?, second))
    }

    fn mark(&mut self) -> Result<(), PickleError> {
        if self.marks.len() >= MAX_STACK {
            return Err(PickleError::Limit { what: "marks on the pickle's stack", limit: MAX_STACK });
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.malformed("a mark is missing from the stack"))?;
        Ok(self.stack.drain(mark..).collect())
    }

    /// POP takes a mark where that is on top.
    fn discard(&mut self) -> Result<(), PickleError> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn memoize(&mut self, key: u32) -> Result<(), PickleError> {
        let id = self.top()?;
        self.memo.insert(key, id);
        if self.memo.len() > MAX_MEMO {
            return Err(PickleError::Limit { what: "remembered values in data.pkl", limit: MAX_MEMO });
        }
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), PickleError> {
        match self.memo.get(&key) {
            Some(&id) => self.push(id),
            None => Err(self.malformed(format!("memo position {key} is read before it is written"))),
        }
    }
}

/// Collections and calls.
impl<'a> Machine<'a> {
    fn small_tuple(&mut self, len: usize) -> Result<(), PickleError> {
        let mut items: Box<[Id]> = vec![0; len].into();
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        self.add(Node::Tuple(items))
    }

    fn marked_list(&mut self) -> Result<(), PickleError> {
        let items = self.pop_mark()?;
        self.add(Node::List(Vec::new()))?;
        self.extend_list(&items)
    }

    fn marked_dict(&mut self) -> Result<(), PickleError> {
        let items = self.pop_mark()?;
        self.add(Node::Dict(Vec::new()))?;
        self.extend_dict(&items)
    }

    fn extend_list(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let list = self.top()?;
        let known = self.tree.extend_list(list, items)?;
        known.then_some(()).ok_or_else(|| self.malformed("items are appended to what is no list"))
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), PickleError> {
        if !items.len().is_multiple_of(2) {
            return Err(self.malformed("a key without a value"));
        }
        let dict = self.top()?;
        let known = self.tree.extend_dict(dict, items)?;
        known.then_some(()).ok_or_else(|| self.malformed("keys are set in what is no dictionary"))
    }

    fn global_lines(&mut self) -> Result<(), PickleError> {
        let module = self.line()?;
        let name = self.line()?;
        self.global(module, name)
    }

    fn stack_global(&mut self) -> Result<(), PickleError> {
        let (module, name) = self.pair()?;
        match (self.tree.get(module), self.tree.get(name)) {
            (Node::Str(module), Node::Str(name)) => {
                let (module, name) = (module.clone(), name.clone());
                self.global(&module, &name)
            }
            _ => Err(self.malformed("a global whose name is no text")),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        match globals::find(module, name) {
            Some(global) => self.add(Node::Global(global)),
            None => Err(PickleError::Forbidden { module: shorten(module), name: shorten(name) }),
        }
    }

    /// Pushes what a call of `callee` stands for; nothing is called.
    fn call(&mut self, callee: Id, args: Id) -> Result<(), PickleError> {
        let Node::Global(callee) = *self.tree.get(callee) else {
            return Err(self.malformed("a call of what is no function"));
        };
        let Node::Tuple(items) = self.tree.get(args) else {
            return Err(self.malformed("a call whose arguments are no tuple"));
        };
        match (callee, &items[..]) {
            (Global::Dict, _) => self.new_dict(args),
            (Global::Size, &[sizes]) => self.push(sizes),
            (Global::Rebuild(rebuild), _) => self.add(Node::Tensor(rebuild, args)),
            _ => self.add(Node::Opaque),
        }
    }

    /// A dictionary that is filled afterwards, or, as Python 2 writes it, made from a list of pairs.
    fn new_dict(&mut self, args: Id) -> Result<(), PickleError> {
        self.add(Node::Dict(Vec::new()))?;
        let first = self.tree.sequence(args).and_then(|args| args.first().copied());
        let Some(pairs) = first.and_then(|first| self.tree.sequence(first)) else { return Ok(()) };
        let mut items = Vec::new();
        for &pair in pairs {
            match self.tree.sequence(pair) {
                Some(&[key, value]) => items.extend([key, value]),
                _ => return Err(self.malformed("a dictionary is made from what are no pairs")),
            }
        }
        self.extend_dict(&items)
    }
}

/// Numbers and text.
impl<'a> Machine<'a> {
    /// INT: a line, in which `00` and `01` are truth values.
    fn int_line(&mut self) -> Result<(), PickleError> {
        match self.line()? {
            "00" => self.add(Node::Bool(false)),
            "01" => self.add(Node::Bool(true)),
            digits => self.decimal(digits),
        }
    }

    fn long_line(&mut self) -> Result<(), PickleError> {
        let line = self.line()?;
        self.decimal(line.strip_suffix('L').unwrap_or(line))
    }

    /// A number that does not fit is kept as an opaque value: no size, offset or step count is that large.
    fn decimal(&mut self, digits: &str) -> Result<(), PickleError> {
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.malformed("a number with other characters than digits"));
        }
        self.add(digits.parse().map_or(Node::Opaque, Node::Int))
    }

    /// LONG1 and LONG4: little-endian two's complement.
    fn long(&mut self, len: usize) -> Result<(), PickleError> {
        let bytes = self.take(len)?;
        if len > 8 {
            return self.add(Node::Opaque);
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..len].copy_from_slice(bytes);
        self.add(Node::Int(i64::from_le_bytes(wide)))
    }

    fn float_line(&mut self) -> Result<(), PickleError> {
        let number = self.line()?.parse().map_err(|_| self.malformed("a number that cannot be read"))?;
        self.add(Node::Float(number))
    }

    fn text(&mut self, len: usize) -> Result<(), PickleError> {
        let bytes = self.take(len)?;
        let text = self.utf8(bytes)?;
        self.add(Node::Str(Cow::Borrowed(text)))
    }

    /// A string of Python 2, which may be text or bytes.
    fn python2_text(&mut self, len: usize) -> Result<(), PickleError> {
        let bytes = self.take(len)?;
        self.add(std::str::from_utf8(bytes).map_or(Node::Opaque, |text| Node::Str(Cow::Borrowed(text))))
    }

    fn bytes(&mut self, len: usize) -> Result<(), PickleError> {
        self.take(len)?;
        self.add(Node::Opaque)
    }

    fn escaped_text(&mut self) -> Result<(), PickleError> {
        let line = self.input.line().ok_or_else(|| self.truncated())?;
        let text = text::unescape(line).ok_or_else(|| self.malformed("text with a broken escape"))?;
        self.add(Node::Str(text))
    }

    fn quoted_text(&mut self) -> Result<(), PickleError> {
        let line = self.line()?;
        let text =
            text::unquote(line).ok_or_else(|| self.malformed("a quoted string with escapes or without quotes"))?;
        self.add(Node::Str(Cow::Borrowed(text)))
    }
}
