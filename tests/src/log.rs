//! What a kernel writes to stderr, line by line, as it comes.

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

/// The log of one process.
#[derive(Debug)]
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    /// How many lines there are; closed at the end of the stream.
    count: watch::Receiver<usize>,
    reader: Option<JoinHandle<()>>,
}

impl Log {
    pub(crate) fn of(stderr: ChildStderr) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sender, count) = watch::channel(0);
        let written = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let mut lines = written.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(String::from_utf8_lossy(&line).into_owned());
                sender.send_replace(lines.len());
            }
        });
        Self { lines, count, reader: Some(reader) }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The `nth` line (from 0) that contains `text`; `None` when the stream ends without it.
    pub(crate) async fn line(&self, text: &str, nth: usize) -> Option<String> {
        let mut count = self.count.clone();
        loop {
            count.borrow_and_update();
            if let Some(line) = self.lines().into_iter().filter(|line| line.contains(text)).nth(nth) {
                return Some(line);
            }
            if count.changed().await.is_err() {
                return self.lines().into_iter().filter(|line| line.contains(text)).nth(nth);
            }
        }
    }

    /// Waits until the last line that contains `text` also contains `more`; `false` when the stream ends first.
    pub(crate) async fn at_last(&self, text: &str, more: &str) -> bool {
        let mut count = self.count.clone();
        loop {
            count.borrow_and_update();
            let last = self.lines().into_iter().rfind(|line| line.contains(text));
            if last.is_some_and(|line| line.contains(more)) {
                return true;
            }
            if count.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Everything, once nobody can write to it any more.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            // A panic of the reader would only lose lines of a report.
            let _ = reader.join();
        }
        self.lines()
    }
}
