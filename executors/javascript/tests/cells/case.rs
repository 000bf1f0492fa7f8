//! Cases, read from Markdown.

/// What a session is asked, and what it must show.
#[derive(Debug, Default)]
pub struct Case {
    /// `file: title`
    pub name: String,
    /// Files of the working folder: name and content.
    pub files: Vec<(String, String)>,
    /// `permissions` of the session, as JSON; `.` stands for the working folder.
    pub permissions: Option<String>,
    pub cells: Vec<Cell>,
}

#[derive(Debug, Default)]
pub struct Cell {
    pub code: String,
    /// Where it stands in its file, counted from 1.
    pub line: usize,
    /// What the host answers when it is asked: `answer` with JSON, or `eof`, `declined`, `interrupt`.
    pub answers: Vec<(String, String)>,
    /// What must come: the words behind the fence, and the text.
    pub expected: Vec<(String, String)>,
}

/// What the host does, in contrast to what it expects.
const ANSWERS: [&str; 4] = ["answer", "eof", "declined", "interrupt"];

/// The cases of a file.
pub fn parse(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            cases.push(Case { name: format!("{file}: {title}"), ..Case::default() });
        } else if let Some(words) = line.strip_prefix("```") {
            let case = cases
                .last_mut()
                .unwrap_or_else(|| panic!("{file}.md:{}: a block before any title", number + 1));
            let mut content = String::new();
            loop {
                let (_, line) =
                    lines.next().unwrap_or_else(|| panic!("{file}.md:{}: the block has no end", number + 1));
                if line.trim_end() == "```" {
                    break;
                }
                content.push_str(line);
                content.push('\n');
            }
            let content = content.strip_suffix('\n').unwrap_or_default().to_owned();
            case.take(words.trim(), content, &format!("{file}.md:{}", number + 1), number + 1);
        }
    }
    cases
}

impl Case {
    fn take(&mut self, words: &str, content: String, place: &str, line: usize) {
        let (kind, rest) = words.split_once(' ').unwrap_or((words, ""));
        match kind {
            "ts" | "js" => self.cells.push(Cell { code: content, line, ..Cell::default() }),
            "file" => self.files.push((rest.to_owned(), content + "\n")),
            "permissions" => self.permissions = Some(content),
            _ => {
                let cell =
                    self.cells.last_mut().unwrap_or_else(|| panic!("{place}: no cell stands before it"));
                let list = if ANSWERS.contains(&kind) { &mut cell.answers } else { &mut cell.expected };
                list.push((words.to_owned(), content));
            }
        }
    }
}
