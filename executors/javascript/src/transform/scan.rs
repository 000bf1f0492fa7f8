//! A look at the signs of a source without parsing it: what is open at its end, and how deep it is nested.
//!
//! It does not recurse, so any source can be given to it. Where only a parser could tell a division from a regular
//! expression it goes by what stands before.

/// What a source comes to.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The brackets that are open at the end, with the offsets where they were opened.
    pub(super) open: Vec<usize>,
    /// What the source ends within.
    pub(super) within: Option<Within>,
    /// Most brackets open at once, and where.
    pub(super) brackets: Deepest,
    /// Longest run of operators, calls and statements that hang on each other, and where.
    pub(super) chain: Deepest,
}

/// What a source can end within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    Comment,
    /// Only a line that ends in a backslash goes on.
    String,
    Template,
}

/// A depth and the first offset where it was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deepest {
    pub(super) depth: usize,
    pub(super) at: usize,
}

impl Deepest {
    fn see(&mut self, depth: usize, at: usize) {
        if depth > self.depth {
            *self = Self { depth, at };
        }
    }
}

/// What stood before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// An expression may go on here: with an operator, a call.
    Value,
    /// The closing bracket of `if (…)`: a statement follows.
    Head,
    /// Something has to follow.
    Operator,
    /// Nothing, or `;`.
    Start,
}

struct Level {
    bracket: u8,
    at: usize,
    /// Of `if (`, `while (` and the like.
    is_head: bool,
    chain: usize,
    /// `else`s of this block: each stands within the one before.
    elses: usize,
}

/// Scans a source.
pub(super) fn scan(source: &str) -> Scan {
    let mut scanner = Scanner {
        bytes: source.as_bytes(),
        at: 0,
        before: Before::Start,
        word: "",
        newline: false,
        load: 0,
        levels: vec![Level { bracket: 0, at: 0, is_head: false, chain: 0, elses: 0 }],
        found: Scan::default(),
    };
    while scanner.at < source.len() {
        scanner.step(source);
    }
    let Scanner { levels, mut found, .. } = scanner;
    found.open = levels.iter().skip(1).map(|level| level.at).collect();
    found
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    before: Before,
    /// The word just read, if it was one.
    word: &'a str,
    newline: bool,
    /// The chains of all open levels together.
    load: usize,
    levels: Vec<Level>,
    found: Scan,
}

impl<'a> Scanner<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn step(&mut self, source: &'a str) {
        match self.peek(0) {
            b'\n' => {
                self.newline = true;
                self.at += 1;
            }
            byte if byte.is_ascii_whitespace() => self.at += 1,
            b'/' if self.peek(1) == b'/' => self.line(),
            b'#' if self.at == 0 && self.peek(1) == b'!' => self.line(),
            b'/' if self.peek(1) == b'*' => self.comment(source),
            byte @ (b'"' | b'\'') => self.string(byte),
            b'`' => {
                self.at += 1;
                self.template();
            }
            b'/' if self.before != Before::Value => self.regex(),
            byte if is_word(byte) => self.word(source),
            byte => {
                self.sign(byte);
                self.newline = false;
                self.word = "";
            }
        }
    }

    fn line(&mut self) {
        while self.at < self.bytes.len() && self.peek(0) != b'\n' {
            self.at += 1;
        }
    }

    fn comment(&mut self, source: &str) {
        let rest = source.get(self.at + 2..).unwrap_or_default();
        let Some(length) = rest.find("*/") else {
            self.found.within = Some(Within::Comment);
            self.at = self.bytes.len();
            return;
        };
        self.newline |= rest.get(..length).is_some_and(|comment| comment.contains('\n'));
        self.at += length + 4;
    }

    fn string(&mut self, quote: u8) {
        self.operand();
        self.at += 1;
        loop {
            match self.peek(0) {
                0 if self.at >= self.bytes.len() => {
                    self.found.within = Some(Within::String);
                    return;
                }
                b'\\' => self.at += 2,
                // The parser will say so.
                b'\n' => return,
                byte => {
                    self.at += 1;
                    if byte == quote {
                        return;
                    }
                }
            }
        }
    }

    /// The text of a template up to its end or to `${`.
    fn template(&mut self) {
        loop {
            match self.peek(0) {
                0 if self.at >= self.bytes.len() => {
                    self.found.within = Some(Within::Template);
                    return;
                }
                b'\\' => self.at += 2,
                b'`' => {
                    self.at += 1;
                    self.link();
                    self.before = Before::Value;
                    return;
                }
                b'$' if self.peek(1) == b'{' => {
                    self.open(b'$');
                    self.at += 2;
                    return;
                }
                _ => self.at += 1,
            }
        }
    }

    fn regex(&mut self) {
        let mut in_class = false;
        let mut at = self.at + 1;
        loop {
            match self.bytes.get(at) {
                // None after all: a sign like others.
                None | Some(b'\n') => return self.sign(b'/'),
                Some(b'\\') => at += 1,
                Some(b'[') => in_class = true,
                Some(b']') => in_class = false,
                Some(b'/') if !in_class => break,
                Some(_) => {}
            }
            at += 1;
        }
        self.operand();
        self.at = at + 1;
    }

    fn word(&mut self, source: &'a str) {
        let start = self.at;
        while self.at < self.bytes.len() && is_word(self.peek(0)) {
            self.at += 1;
        }
        let word = source.get(start..self.at).unwrap_or_default();
        let is_member =
            self.before == Before::Operator && start > 0 && self.bytes.get(start - 1) == Some(&b'.');
        if !is_member && is_operator(word) {
            if word == "else" {
                self.level(|level| level.elses += 1);
                self.load += 1;
            }
            // After a value it can only begin a statement.
            if self.before == Before::Value && starts_statement(word) {
                self.boundary();
            }
            self.link();
            self.before = Before::Operator;
        } else {
            if !self.word.is_empty() && !self.newline && self.before == Before::Value {
                self.link();
            }
            self.operand();
        }
        self.newline = false;
        self.word = if is_member { "" } else { word };
    }

    /// A value stands here. After another one that is the start of something new.
    fn operand(&mut self) {
        let goes_on = self.before != Before::Value || (!self.word.is_empty() && !self.newline);
        if !goes_on {
            self.boundary();
        }
        self.before = Before::Value;
        self.newline = false;
        self.word = "";
    }

    fn sign(&mut self, byte: u8) {
        self.at += 1;
        match byte {
            b'(' | b'[' | b'{' => {
                self.at -= 1;
                self.open(byte);
                self.at += 1;
            }
            b')' | b']' | b'}' => self.close(),
            b';' => {
                self.boundary();
                self.before = Before::Start;
            }
            b',' => {
                self.boundary();
                self.before = Before::Operator;
            }
            b'+' | b'-' if self.peek(0) == byte => {
                // `x++` ends a value, `++x` wants one.
                self.at += 1;
                self.link();
            }
            // `x!` of TypeScript ends a value as well.
            b'!' if self.before == Before::Value && self.peek(0) != b'=' => self.link(),
            _ => {
                self.link();
                self.before = Before::Operator;
            }
        }
    }

    fn open(&mut self, bracket: u8) {
        let is_head = bracket == b'(' && matches!(self.word, "if" | "while" | "for" | "with" | "await");
        self.levels.push(Level { bracket, at: self.at, is_head, chain: 0, elses: 0 });
        self.found.brackets.see(self.levels.len() - 1, self.at);
        self.before = Before::Start;
        self.word = "";
    }

    fn close(&mut self) {
        if self.levels.len() == 1 {
            return;
        }
        let Some(level) = self.levels.pop() else { return };
        self.load -= level.chain + level.elses;
        self.link();
        self.before = if level.is_head { Before::Head } else { Before::Value };
        if level.bracket == b'$' {
            self.template();
        }
    }

    /// One more that hangs on what stood before.
    fn link(&mut self) {
        self.level(|level| level.chain += 1);
        self.load += 1;
        self.found.chain.see(self.load, self.at);
    }

    /// What follows does not hang on what stood before.
    fn boundary(&mut self) {
        let mut chain = 0;
        self.level(|level| chain = std::mem::take(&mut level.chain));
        self.load -= chain;
    }

    fn level(&mut self, change: impl FnOnce(&mut Level)) {
        if let Some(level) = self.levels.last_mut() {
            change(level);
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Words after which something has to follow.
fn is_operator(word: &str) -> bool {
    matches!(
        word,
        "as" | "await"
            | "case"
            | "delete"
            | "do"
            | "else"
            | "extends"
            | "for"
            | "if"
            | "in"
            | "infer"
            | "instanceof"
            | "keyof"
            | "new"
            | "satisfies"
            | "throw"
            | "try"
            | "typeof"
            | "void"
            | "while"
            | "with"
            | "yield"
    )
}

/// Those of them that begin a statement when they stand after a value.
fn starts_statement(word: &str) -> bool {
    matches!(
        word,
        "await"
            | "case"
            | "delete"
            | "do"
            | "for"
            | "if"
            | "new"
            | "throw"
            | "try"
            | "typeof"
            | "void"
            | "while"
            | "with"
            | "yield"
    )
}
