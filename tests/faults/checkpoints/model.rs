//! A model of a namespace: numbers, and lists that several names may share.

use std::collections::BTreeMap;

use cob_tests::seed::Seed;

const NUMBERS: [&str; 3] = ["a", "b", "c"];
const LISTS: [&str; 4] = ["l", "m", "n", "o"];

/// Python code that prints what [`Namespace::shown`] says.
pub(super) const SHOW: &str = "print([(n, globals()[n] if n in 'abc' else (next(m for m in 'lmno' if globals().get(m) is \
                               globals()[n]), globals()[n])) for n in 'abclmno' if n in globals()])";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Number(u64),
    /// A place among the lists.
    List(usize),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    names: BTreeMap<&'static str, Value>,
    lists: Vec<Vec<u64>>,
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.shown() == other.shown()
    }
}

impl Namespace {
    pub(super) fn shown(&self) -> String {
        let first =
            |place| LISTS.iter().find(|name| self.names.get(**name) == Some(&Value::List(place))).unwrap();
        let shown = self.names.iter().map(|(name, value)| match value {
            Value::Number(number) => format!("('{name}', {number})"),
            Value::List(place) => format!("('{name}', ('{}', {:?}))", first(*place), self.lists[*place]),
        });
        format!("[{}]\n", shown.collect::<Vec<_>>().join(", "))
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.names.keys().copied().collect()
    }

    /// Something happens to it: the code.
    pub(super) fn change(&mut self, seed: &mut Seed) -> String {
        let number = seed.below(1000) as u64;
        let lists: Vec<_> = LISTS.iter().filter(|name| self.names.contains_key(*name)).copied().collect();
        match seed.below(6) {
            0 | 1 => {
                let name = NUMBERS[seed.below(3)];
                self.names.insert(name, Value::Number(number));
                format!("{name} = {number}")
            }
            2 if !lists.is_empty() => {
                let (name, from) = (LISTS[seed.below(4)], lists[seed.below(lists.len())]);
                self.names.insert(name, self.names[from]);
                format!("{name} = {from}")
            }
            3 | 4 if !lists.is_empty() => {
                let name = lists[seed.below(lists.len())];
                if let Value::List(place) = self.names[name] {
                    self.lists[place].push(number);
                }
                format!("{name}.append({number})")
            }
            5 if self.names.len() > 3 => {
                let names = self.names();
                let name = names[seed.below(names.len())];
                self.names.remove(name);
                format!("del {name}")
            }
            _ => {
                let name = LISTS[seed.below(4)];
                self.names.insert(name, Value::List(self.lists.len()));
                self.lists.push(vec![number]);
                format!("{name} = [{number}]")
            }
        }
    }

    /// What it is when another one is merged into it; lists of the two are never the same.
    pub(super) fn merged(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        let before = merged.lists.len();
        merged.lists.extend(other.lists.iter().cloned());
        for (name, value) in &other.names {
            let value = match value {
                Value::List(place) => Value::List(before + place),
                number @ Value::Number(_) => *number,
            };
            merged.names.insert(name, value);
        }
        merged
    }
}
