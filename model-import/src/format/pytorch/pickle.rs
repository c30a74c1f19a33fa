//! A pickle read as data. Nothing is imported or called: the few functions that PyTorch writes into a
//! file of tensors are known by name and done here, any other call is refused.
//!
//! Burn's own reader is not used: it passes over strides (a transposed view loads wrong), fills what a
//! short file lacks with zeros, and copies an object whenever it is mentioned again, so that a few
//! hundred bytes can ask for all memory. Here objects are numbered and mentioned by number.

use std::collections::HashMap;

use super::rebuild::{self, Storage, View};

/// Names of classes and functions are short; they are copied where they are mentioned.
const LONGEST_GLOBAL: usize = 256;

/// Number of an object.
pub(super) type Id = u32;

/// An object, its parts by number.
#[derive(Debug)]
pub(super) enum Value {
    None,
    Int(i64),
    Text(Box<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, as `module.name`.
    Global(Box<str>),
    Storage(Box<Storage>),
    Tensor(Box<View>),
    /// Anything that no tensor depends on: floats, bytes, devices.
    Other,
}

/// Why a pickle was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PickleError {
    /// It calls this.
    Forbidden(String),
    /// It is damaged, or holds what is not supported.
    Broken(String),
}

type Result<T> = std::result::Result<T, PickleError>;

pub(super) fn broken(reason: impl Into<String>) -> PickleError {
    PickleError::Broken(reason.into())
}

/// The objects of a pickle.
#[derive(Debug, Default)]
pub(super) struct Objects {
    values: Vec<Value>,
}

impl Objects {
    pub(super) fn get(&self, id: Id) -> &Value {
        // Numbers are given out by `add` only.
        &self.values[id as usize]
    }

    fn add(&mut self, value: Value) -> Id {
        let id = self.values.len() as Id;
        self.values.push(value);
        id
    }

    /// Bytes of a value of each storage, by key.
    pub(super) fn storage_widths(&self) -> HashMap<&str, u64> {
        let storages = self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some((storage.key.as_str(), storage.value_bytes())),
            _ => None,
        });
        storages.collect()
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(parts) | Value::List(parts) => Some(parts),
            _ => None,
        }
    }

    pub(super) fn global(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Global(name) => Some(name),
            _ => None,
        }
    }
}

/// Reads one pickle from the front of `bytes`: its objects, the number of the root, and its length.
pub(super) fn read(bytes: &[u8]) -> Result<(Objects, Id, usize)> {
    let mut machine = Machine {
        bytes,
        place: 0,
        objects: Objects::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        num_copied: 0,
    };
    let root = machine.run()?;
    Ok((machine.objects, root, machine.place))
}

struct Machine<'a> {
    bytes: &'a [u8],
    place: usize,
    objects: Objects,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Pairs copied into dictionaries: not more than the pickle has bytes, however often it asks.
    num_copied: usize,
}

impl<'a> Machine<'a> {
    /// One operation after the other, by their letters in Python's `pickletools`.
    fn run(&mut self) -> Result<Id> {
        loop {
            let operation = self.byte()?;
            match operation {
                b'.' => return self.pop(),
                0x80 => {
                    let protocol = self.byte()?;
                    if protocol > 5 {
                        return Err(broken(format!("pickle protocol {protocol} is unknown")));
                    }
                }
                0x95 => {
                    self.take(8)?;
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.pop_to_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                b'N' => self.push(Value::None),
                0x88 => self.push(Value::Int(1)),
                0x89 => self.push(Value::Int(0)),
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()));
                }
                b'K' => {
                    let value = self.byte()?;
                    self.push(Value::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()));
                }
                b'I' | b'L' => {
                    let value = match self.line()?.trim_end_matches('L') {
                        "00" => Some(0),
                        "01" => Some(1),
                        digits => digits.parse().ok(),
                    };
                    self.push(value.map_or(Value::Other, Value::Int));
                }
                0x8a | 0x8b => {
                    let length = self.length(if operation == 0x8a { 1 } else { 4 })?;
                    let digits = self.take(length)?;
                    self.push(long(digits).map_or(Value::Other, Value::Int));
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Other);
                }
                b'F' => {
                    self.line()?;
                    self.push(Value::Other);
                }
                b'X' | b'T' => self.push_text(4)?,
                b'U' | 0x8c => self.push_text(1)?,
                0x8d => self.push_text(8)?,
                b'V' | b'S' => {
                    let text = self.line()?.trim_matches(['\'', '"']).into();
                    self.push(Value::Text(text));
                }
                b'B' | b'C' | 0x8e | 0x96 => {
                    let length = self.length(match operation {
                        b'C' => 1,
                        b'B' => 4,
                        _ => 8,
                    })?;
                    self.take(length)?;
                    self.push(Value::Other);
                }
                b')' => self.push(Value::Tuple(Vec::new())),
                0x85..=0x87 => {
                    let parts = self.pop_many(usize::from(operation - 0x84))?;
                    self.push(Value::Tuple(parts));
                }
                b't' => {
                    let parts = self.pop_to_mark()?;
                    self.push(Value::Tuple(parts));
                }
                b']' => self.push(Value::List(Vec::new())),
                b'l' => {
                    let parts = self.pop_to_mark()?;
                    self.push(Value::List(parts));
                }
                b'a' => {
                    let part = self.pop()?;
                    self.extend_list(vec![part])?;
                }
                b'e' => {
                    let parts = self.pop_to_mark()?;
                    self.extend_list(parts)?;
                }
                b'}' => self.push(Value::Dict(Vec::new())),
                b'd' => {
                    let parts = self.pop_to_mark()?;
                    self.push(Value::Dict(Vec::new()));
                    self.extend_dict(&parts)?;
                }
                b's' => {
                    let parts = self.pop_many(2)?;
                    self.extend_dict(&parts)?;
                }
                b'u' => {
                    let parts = self.pop_to_mark()?;
                    self.extend_dict(&parts)?;
                }
                b'q' | b'r' | 0x94 | b'p' => {
                    let key = match operation {
                        b'q' => self.byte()?.into(),
                        b'r' => u32::from_le_bytes(self.array()?),
                        0x94 => self.memo.len() as u32,
                        _ => self.line_number()?,
                    };
                    let top = self.top()?;
                    self.memo.insert(key, top);
                }
                b'h' | b'j' | b'g' => {
                    let key = match operation {
                        b'h' => self.byte()?.into(),
                        b'j' => u32::from_le_bytes(self.array()?),
                        _ => self.line_number()?,
                    };
                    let id = self.memo.get(&key).copied();
                    self.stack.push(id.ok_or_else(|| {
                        broken(format!("object {key} is mentioned before it is there"))
                    })?);
                }
                b'c' => {
                    let global = global(self.line()?, self.line()?)?;
                    self.push(global);
                }
                0x93 => {
                    let parts = self.pop_many(2)?;
                    let (Some(module), Some(name)) =
                        (self.objects.text(parts[0]), self.objects.text(parts[1]))
                    else {
                        return Err(broken("a class without a name"));
                    };
                    let global = global(module, name)?;
                    self.push(global);
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = rebuild::storage(&self.objects, id)?;
                    self.push(Value::Storage(Box::new(storage)));
                }
                b'R' | 0x81 => {
                    let parts = self.pop_many(2)?;
                    let value = rebuild::call(&self.objects, parts[0], parts[1])?;
                    match value {
                        rebuild::Rebuilt::New(value) => {
                            if let Value::Dict(pairs) = &value {
                                self.num_copied += pairs.len();
                            }
                            if self.num_copied > self.bytes.len() {
                                return Err(broken(
                                    "it copies the same dictionary again and again",
                                ));
                            }
                            self.push(value);
                        }
                        rebuild::Rebuilt::Same(id) => self.stack.push(id),
                    }
                }
                b'b' => {
                    // Attributes of a dictionary or a tensor, such as a state_dict's `_metadata`: not needed.
                    self.pop()?;
                    let target = self.top()?;
                    if !matches!(self.objects.get(target), Value::Dict(_) | Value::Tensor(_)) {
                        return Err(PickleError::Forbidden("__setstate__".into()));
                    }
                }
                b'i' => {
                    let callable = format!("{}.{}", self.line()?, self.line()?);
                    return Err(PickleError::Forbidden(callable));
                }
                b'o' | 0x92 => return Err(PickleError::Forbidden("a class of its own".into())),
                0x82..=0x84 => return Err(PickleError::Forbidden("a registered extension".into())),
                other => {
                    return Err(broken(format!(
                        "operation {other:#04x} at byte {} is unknown or never used for tensors",
                        self.place - 1
                    )));
                }
            }
        }
    }

    fn push(&mut self, value: Value) {
        let id = self.objects.add(value);
        self.stack.push(id);
    }

    /// The lowest place that may be popped: what is below the last mark belongs to someone else.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or_default()
    }

    fn top(&self) -> Result<Id> {
        match self.stack[self.floor()..].last() {
            Some(id) => Ok(*id),
            None => Err(broken("an operation lacks its object")),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        let start = self.stack.len().checked_sub(count);
        match start.filter(|start| *start >= self.floor()) {
            Some(start) => Ok(self.stack.split_off(start)),
            None => Err(broken("an operation lacks its objects")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(broken("an operation lacks its mark")),
        }
    }

    fn extend_list(&mut self, parts: Vec<Id>) -> Result<()> {
        let id = self.top()?;
        match &mut self.objects.values[id as usize] {
            Value::List(list) => list.extend(parts),
            _ => return Err(broken("something is appended to what is no list")),
        }
        Ok(())
    }

    fn extend_dict(&mut self, parts: &[Id]) -> Result<()> {
        let id = self.top()?;
        match &mut self.objects.values[id as usize] {
            Value::Dict(dict) if parts.len().is_multiple_of(2) => {
                dict.extend(parts.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            _ => return Err(broken("a key is set in what is no dictionary")),
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.place..];
        let taken = rest
            .get(..count)
            .ok_or_else(|| broken("it ends in the middle of an object"))?;
        self.place += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A length of that many bytes.
    fn length(&mut self, num_bytes: usize) -> Result<usize> {
        let mut wide = [0; 8];
        wide[..num_bytes].copy_from_slice(self.take(num_bytes)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| broken("a length is not possible"))
    }

    fn push_text(&mut self, num_bytes: usize) -> Result<()> {
        let length = self.length(num_bytes)?;
        let text = String::from_utf8_lossy(self.take(length)?).into();
        self.push(Value::Text(text));
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.place..];
        let length = rest.iter().position(|b| *b == b'\n');
        let line = self.take(length.ok_or_else(|| broken("it ends in the middle of a line"))?)?;
        self.place += 1;
        std::str::from_utf8(line)
            .map(|line| line.trim_end_matches('\r'))
            .map_err(|_| broken("a line is not text"))
    }

    fn line_number(&mut self) -> Result<u32> {
        let line = self.line()?;
        line.parse().map_err(|_| broken("a line is not a number"))
    }
}

fn global(module: &str, name: &str) -> Result<Value> {
    if module.len() + name.len() > LONGEST_GLOBAL {
        return Err(broken("a class has too long a name"));
    }
    Ok(Value::Global(format!("{module}.{name}").into()))
}

/// A little-endian two's complement number; `None` if it is too large for any shape.
fn long(digits: &[u8]) -> Option<i64> {
    if digits.len() > 8 {
        return None;
    }
    let negative = digits.last().is_some_and(|b| b & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..digits.len()].copy_from_slice(digits);
    Some(i64::from_le_bytes(wide))
}
