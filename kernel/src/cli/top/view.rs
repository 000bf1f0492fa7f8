//! What the page shows, and what keys do.

use super::rows::Rows;
use super::screen::Key;

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    Quit,
    /// New figures.
    Renew,
    /// A request about a session.
    Ask(&'static str, String),
}

/// Where the person is.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The session that is chosen: its row may move.
    chosen: Option<String>,
    /// A session that is to be ended, if the person means it.
    doomed: Option<String>,
    /// What became of the last request.
    said: String,
}

const HELP: &str = "arrows choose   i interrupts   k ends the session   q quits";

impl View {
    pub(super) fn say(&mut self, text: String) {
        self.said = text;
    }

    pub(super) fn key(&mut self, key: Key, rows: &Rows) -> Action {
        self.said.clear();
        if let Some(session) = self.doomed.take() {
            return match key {
                Key::Letter('y' | 'Y') => Action::Ask("session_close", session),
                _ => Action::Nothing,
            };
        }
        let at = self.at(rows);
        match key {
            Key::Letter('q') => return Action::Quit,
            Key::Up => self.chosen = at.and_then(|at| rows.session(at.saturating_sub(1))),
            Key::Down => self.chosen = at.and_then(|at| rows.session(at + 1).or_else(|| rows.session(at))),
            Key::Letter('i') => {
                if let Some(session) = at.and_then(|at| rows.session(at)) {
                    return Action::Ask("interrupt", session);
                }
            }
            Key::Letter('k') => self.doomed = at.and_then(|at| rows.session(at)),
            Key::Letter(_) => {}
        }
        Action::Nothing
    }

    /// The row that is chosen: at first, and when its session is gone, the uppermost.
    fn at(&self, rows: &Rows) -> Option<usize> {
        let chosen = self.chosen.as_ref();
        let place = chosen.and_then(|chosen| rows.sessions().position(|session| session == chosen));
        place.or_else(|| rows.session(0).map(|_| 0))
    }

    /// The page, as large as the window.
    pub(super) fn lines(&self, rows: &Rows, (width, height): (usize, usize)) -> Vec<String> {
        let at = self.at(rows).unwrap_or(0);
        let cut = |line: &str| line.chars().take(width).collect::<String>();
        let mut table = rows.table().lines().into_iter();
        let mut lines = vec![cut(&rows.headline()), String::new()];
        lines.extend(table.next().map(|head| format!("\x1b[1m{}\x1b[0m", cut(&head))));
        let room = height.saturating_sub(lines.len() + 1);
        let first = (at + 1).saturating_sub(room);
        for (number, line) in table.enumerate().skip(first).take(room) {
            let line = cut(&line);
            lines.push(if number == at { format!("\x1b[7m{line:width$}\x1b[0m") } else { line });
        }
        lines.resize(height.saturating_sub(1), String::new());
        lines.push(cut(&self.footer()));
        lines
    }

    fn footer(&self) -> String {
        match (&self.doomed, self.said.as_str()) {
            (Some(session), _) => {
                format!("End {session}? What runs in it is cancelled, its variables are gone. y ends it")
            }
            (None, "") => HELP.to_owned(),
            (None, said) => said.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(sessions: &[&str]) -> Rows {
        Rows::of(sessions)
    }

    #[test]
    fn a_session_stays_chosen_when_its_row_moves() {
        let mut view = View::default();
        assert_eq!(view.key(Key::Down, &rows(&["s1", "s2", "s3"])), Action::Nothing);
        let moved = rows(&["s3", "s1", "s2"]);
        assert_eq!(view.key(Key::Letter('i'), &moved), Action::Ask("interrupt", "s2".into()));
        assert_eq!(view.key(Key::Down, &moved), Action::Nothing);
        assert_eq!(view.key(Key::Letter('i'), &moved), Action::Ask("interrupt", "s2".into()));
        // It is gone: the uppermost.
        assert_eq!(view.key(Key::Letter('i'), &rows(&["s3", "s1"])), Action::Ask("interrupt", "s3".into()));
        assert_eq!(view.key(Key::Letter('i'), &rows(&[])), Action::Nothing);
    }

    #[test]
    fn a_session_is_ended_only_when_it_is_meant() {
        let (mut view, rows) = (View::default(), rows(&["s1"]));
        assert_eq!(view.key(Key::Letter('k'), &rows), Action::Nothing);
        assert!(view.lines(&rows, (80, 10)).last().unwrap().starts_with("End s1?"));
        assert_eq!(view.key(Key::Letter('q'), &rows), Action::Nothing);
        assert_eq!(view.key(Key::Letter('y'), &rows), Action::Nothing);
        view.key(Key::Letter('k'), &rows);
        assert_eq!(view.key(Key::Letter('y'), &rows), Action::Ask("session_close", "s1".into()));
        assert_eq!(view.key(Key::Letter('q'), &rows), Action::Quit);
    }

    #[test]
    fn the_page_fits_the_window_and_shows_what_is_chosen() {
        let names: Vec<String> = (1..=50).map(|number| format!("s{number}")).collect();
        let rows = rows(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut view = View::default();
        for _ in 0..40 {
            view.key(Key::Down, &rows);
        }
        let lines = view.lines(&rows, (20, 12));
        assert_eq!(lines.len(), 12);
        assert!(lines.iter().any(|line| line.starts_with("\x1b[7ms41 ")), "{lines:?}");
        assert!(lines.iter().all(|line| {
            line.replace("\x1b[7m", "").replace("\x1b[1m", "").replace("\x1b[0m", "").chars().count() <= 20
        }));
    }
}
