//! The terminal as a page: drawn as a whole, left as it was found.

use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, tcgetwinsize};
use tokio::sync::mpsc;

use crate::cli::terminal;

/// What the person typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Letter(char),
}

/// The page. Dropping it gives the terminal back.
pub(super) struct Screen;

impl Screen {
    pub(super) fn enter() -> Self {
        terminal::change(LocalModes::ECHO | LocalModes::ICANON);
        // The other page, without a cursor.
        write("\x1b[?1049h\x1b[?25l");
        Self
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (usize::from(size.ws_col), usize::from(size.ws_row)))
    }

    /// Replaces what is shown.
    pub(super) fn draw(&self, lines: &[String]) {
        let page: String = lines.join("\x1b[K\r\n");
        write(&format!("\x1b[H{page}\x1b[K\x1b[J"));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write("\x1b[?25h\x1b[?1049l");
        terminal::restore();
    }
}

fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What is typed from now on, until the end of the process.
pub(super) fn keys() -> mpsc::Receiver<Key> {
    let (typed, keys) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut bytes) {
            for key in parse(bytes.get(..count).unwrap_or_default()) {
                if typed.blocking_send(key).is_err() {
                    return;
                }
            }
        }
    });
    keys
}

/// The keys in what one read returned: a terminal sends the sequence of one key at once.
fn parse(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        bytes = match bytes {
            [0x1b, b'[' | b'O', b'A', rest @ ..] => {
                keys.push(Key::Up);
                rest
            }
            [0x1b, b'[' | b'O', b'B', rest @ ..] => {
                keys.push(Key::Down);
                rest
            }
            // Another sequence, or the key itself: neither means anything here.
            [0x1b, ..] => &[],
            _ => {
                if first.is_ascii() {
                    keys.push(Key::Letter(char::from(*first)));
                }
                rest
            }
        };
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_what_terminals_send() {
        let letters = |text: &str| text.chars().map(Key::Letter).collect::<Vec<_>>();
        assert_eq!(parse(b"qk"), letters("qk"));
        assert_eq!(parse(b"\x1b[A\x1bOBi"), [Key::Up, Key::Down, Key::Letter('i')]);
        assert_eq!(parse(b"\x1b[5~"), []);
        assert_eq!(parse("é".as_bytes()), []);
    }
}
