//! The end of a worker: who learns of it, what it left behind, and what is still to be given out.

use super::{Ending, Worker};
use crate::exit::Exit;

impl Worker {
    /// After the end: everything that still lies in pipes and socket. A transport that broke has no more frames.
    fn take_remains(&mut self) {
        let page = self.page.get();
        let _ = self.stdout.read(page, usize::MAX);
        let _ = self.stderr.read(page, usize::MAX);
        let _ = self.take_frames();
        self.socket_dry = true;
    }

    pub(super) fn look_at_life(&mut self) {
        if let (Some(exit), Ending::Alive) = (self.life.ended(), &self.ending) {
            self.ending = Ending::Gone(self.cause.take().unwrap_or(exit));
        }
    }

    /// After the end of the process: ends what it left behind, and asks what the session's limits had to do with it.
    pub(super) async fn clear(&mut self) {
        if let Ending::Gone(exit) = &self.ending {
            let exit = exit.clone();
            // What it has not read is gone with it, also what would be a checkpoint.
            self.writer.give_up();
            self.on_their_way.settled().await;
            let verdict = self.enclosure.clear(exit.clone(), self.life.cpu_ms()).await;
            self.ending = Ending::Cleared(if self.is_killed { exit } else { verdict });
        }
    }

    /// How the worker ended, once everything it left has been given out.
    pub(super) fn finished(&mut self) -> Option<Exit> {
        let Ending::Cleared(exit) = &self.ending else { return None };
        let exit = exit.clone();
        self.take_remains();
        let drains = [&self.stdout, &self.stderr];
        let is_empty = drains.iter().all(|drain| !drain.is_holding() && !drain.is_starved());
        (is_empty && self.frames.is_empty()).then_some(exit)
    }
}
