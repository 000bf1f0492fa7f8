//! Ways through checkpoints, without workers: those in the store are as good for that.

use proptest::prelude::*;

use cob_protocol::checkpoint::Mode;

use super::*;
use crate::request::Target;

const SESSION: SessionId = SessionId(1);

fn id(number: u64) -> CheckpointId {
    CheckpointId { session: SESSION, number }
}

fn view(number: u64) -> CheckpointView {
    CheckpointView {
        checkpoint: id(number),
        label: None,
        tier: Tier::Durable,
        automatic: true,
        execution: 0,
        count: 0,
        taken_at: 0,
        parent: None,
        private_bytes: None,
        bytes: None,
        new_bytes: None,
        findings: Vec::new(),
        missing: Vec::new(),
    }
}

impl Checkpoints {
    /// Takes one, at once.
    fn take(&mut self) -> CheckpointId {
        let (id, _) = self.next_number();
        self.expect(view(id.number), Taking::automatic(Default::default(), wishes::Then::Tell(None)));
        if let Some(known) = self.get_mut(id) {
            (known.coming, known.is_durable) = (None, true);
        }
        id
    }

    fn drop_one(&mut self, id: CheckpointId) {
        if let Some(known) = self.get_mut(id) {
            known.is_durable = false;
        }
        self.tidy();
    }

    fn undo(&mut self, back: u64) -> Option<u64> {
        self.resolve(&Target::Undo(back), 0, Mode::Auto).ok().map(|(id, _)| id.number)
    }
}

#[test]
fn undoing_follows_the_way_that_led_to_the_present_variables() {
    let mut checkpoints = Checkpoints::new(SESSION);
    for _ in 0..4 {
        checkpoints.take();
        checkpoints.code_runs(true);
    }
    assert_eq!((checkpoints.undo(1), checkpoints.undo(4), checkpoints.undo(5)), (Some(4), Some(1), None));
    // Back to before the second cell: what came after it lies on no way any more.
    assert_eq!(checkpoints.arrive(id(2)).map(|place| place.since), Some(3));
    checkpoints.code_runs(true);
    assert_eq!((checkpoints.undo(1), checkpoints.undo(2)), (Some(2), Some(1)));
    checkpoints.take();
    checkpoints.code_runs(true);
    assert_eq!((checkpoints.undo(1), checkpoints.undo(2), checkpoints.undo(3)), (Some(5), Some(2), Some(1)));
    // And forth again, by its name.
    assert!(checkpoints.resolve(&Target::Checkpoint(id(4)), 0, Mode::Auto).is_ok());
    checkpoints.arrive(id(4));
    assert_eq!(checkpoints.undo(1), Some(3));
}

#[test]
fn the_cell_that_asks_does_not_count() {
    let mut checkpoints = Checkpoints::new(SESSION);
    for _ in 0..3 {
        checkpoints.take();
        checkpoints.code_runs(true);
    }
    let undone = checkpoints.resolve(&Target::Undo(1), 1, Mode::Auto).ok().map(|(id, _)| id.number);
    assert_eq!(undone, Some(2));
}

#[test]
fn ways_lead_past_what_is_gone() {
    let mut checkpoints = Checkpoints::new(SESSION);
    for _ in 0..3 {
        checkpoints.take();
        checkpoints.code_runs(true);
    }
    checkpoints.drop_one(id(2));
    assert_eq!((checkpoints.undo(1), checkpoints.undo(2)), (Some(3), Some(1)));
    checkpoints.drop_one(id(3));
    assert_eq!(checkpoints.undo(1), Some(1));
    checkpoints.drop_one(id(1));
    assert_eq!((checkpoints.undo(1), checkpoints.head), (None, None));
}

#[test]
fn numbers_are_reserved_before_they_are_given_and_go_on_after_a_restart() {
    let mut checkpoints = Checkpoints::new(SESSION);
    assert_eq!(checkpoints.next_number(), (id(1), Some(CHECKPOINT_NUMBERS)));
    for number in 2..=CHECKPOINT_NUMBERS {
        assert_eq!(checkpoints.next_number(), (id(number), None));
    }
    let (next, up_to) = checkpoints.next_number();
    assert_eq!((next.number, up_to), (CHECKPOINT_NUMBERS + 1, Some(2 * CHECKPOINT_NUMBERS)));
    let mut checkpoints = Checkpoints::new(SESSION);
    // One was stored whose number was not recorded in time.
    checkpoints.recover(64, 9, vec![view(3), view(66)]);
    assert_eq!(checkpoints.next_number(), (id(67), Some(66 + CHECKPOINT_NUMBERS)));
    assert_eq!((checkpoints.head, checkpoints.undo(0)), (Some(id(66)), Some(66)));
}

proptest! {
    /// Whatever is taken, dropped and gone back to: what is undone is the newest that knows so much less, and the way
    /// has an end.
    #[test]
    fn what_is_undone_is_the_newest_that_knows_so_much_less(
        steps in prop::collection::vec((0..4, 1_u64..12), 0..120),
        back in 0_u64..5,
    ) {
        let mut checkpoints = Checkpoints::new(SESSION);
        for (step, number) in steps {
            match step {
                0 => drop(checkpoints.take()),
                1 => checkpoints.code_runs(true),
                2 if checkpoints.get(id(number)).is_some() => drop(checkpoints.arrive(id(number))),
                _ => checkpoints.drop_one(id(number)),
            }
            let way: Vec<_> = checkpoints.way().map(|known| (known.id(), known.ran)).collect();
            prop_assert!(way.len() <= checkpoints.known.len());
            prop_assert!(way.iter().zip(way.iter().skip(1)).all(|(later, earlier)| later.1 >= earlier.1));
            let expected = way.iter().find(|(_, ran)| *ran + back <= checkpoints.ran);
            prop_assert_eq!(checkpoints.undo(back), expected.map(|(id, _)| id.number));
        }
    }
}
