//! Kernels that are killed at random moments, hundreds of times.

use std::collections::BTreeSet;

use cob_protocol::frame::{Call, Display, Done, Frame};
use cob_protocol::json::Json;

use crate::kernel::{Kernel, request};

const SEEDS: u64 = 300;
/// After so many, a kernel lives on: a large frame that each of them began to read would never be whole.
const DEATHS_MAX: usize = 20;
/// What the code of every execution is drawn from.
const VERBS: &[&str] = &[
    "show 3 10",
    "show 5 3000",
    "show 2 90000",
    "ask",
    "threads 4 2000",
    "threads 2 60000",
    "show 1 700000",
];

/// A small generator (xorshift): the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// What outlives a kernel beside its record: what was asked for, and what it answered.
struct Plan {
    codes: Vec<String>,
    /// Executions that were handed out.
    sent: u64,
    done: u64,
    answered: BTreeSet<u64>,
}

#[test]
fn however_often_kernels_are_killed_every_frame_is_recorded_once_and_in_order() {
    for seed in 1..=SEEDS {
        live(seed);
    }
}

fn live(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    // Small enough that it is reached, in some lives.
    let mut kernel = Kernel::start([1_000, 20_000, 500_000, 64 << 20][dice.roll(4) as usize]);
    kernel.acknowledge();
    let mut plan = Plan { codes: Vec::new(), sent: 0, done: 0, answered: BTreeSet::new() };
    for _ in 0..3 {
        let verbs: Vec<_> =
            (0..=dice.roll(4)).map(|_| VERBS[dice.roll(VERBS.len() as u64) as usize]).collect();
        plan.codes.push(verbs.join("\n"));
    }
    let mut deaths = 0;
    let deadliness = 2 + dice.roll(12);
    while plan.done < plan.codes.len() as u64 {
        hand_out(&mut kernel, &mut plan, &mut dice);
        if deaths < DEATHS_MAX && dice.roll(deadliness) == 0 {
            deaths += 1;
            die(&mut kernel, &mut plan, &mut dice);
            continue;
        }
        if kernel.seen.is_empty() {
            let magnitude = 1 + dice.roll(18);
            kernel.read(1 + dice.roll(1 << magnitude) as usize);
        }
        let count = dice.roll(kernel.seen.len() as u64 + 1) as usize;
        // A kernel that sees frames and never records one would read on for ever.
        kernel.record(count.max(usize::from(kernel.seen.len() > 3)));
        settle(&mut kernel, &mut plan);
        // Killed between the record and telling the worker, sometimes; but in the end it must be told.
        if dice.roll(4) > 0 || kernel.seen.is_empty() {
            kernel.acknowledge();
        }
    }
    check(&kernel, &plan, seed);
    let ran = kernel.shut_down();
    assert_eq!(ran, [1, 2, 3], "seed {seed}: each ran once");
}

/// Sends what is asked for, one or all of it at once.
fn hand_out(kernel: &mut Kernel, plan: &mut Plan, dice: &mut Dice) {
    while (plan.sent as usize) < plan.codes.len() && (plan.sent == plan.done || dice.roll(3) == 0) {
        plan.sent += 1;
        let code = plan.codes[plan.sent as usize - 1].clone();
        kernel.execute(plan.sent, &code);
    }
}

/// Acts on what was recorded, as the next kernel does on what it finds.
fn settle(kernel: &mut Kernel, plan: &mut Plan) {
    let mut to_answer = Vec::new();
    for envelope in &kernel.record {
        match &envelope.frame {
            Frame::Call(Call { request, .. }) if plan.answered.insert(*request) => to_answer.push(*request),
            Frame::Done(Done { execution, .. }) => plan.done = plan.done.max(*execution),
            _ => {}
        }
    }
    to_answer.into_iter().for_each(|request| kernel.answer(request));
}

fn die(kernel: &mut Kernel, plan: &mut Plan, dice: &mut Dice) {
    if dice.roll(3) == 0 {
        kernel.send_half(request(99), &["show 1 1".into()]);
    }
    for _ in 0..dice.roll(3) {
        match dice.roll(3) {
            0 => drop(kernel.announce()),
            // Before the custodian knew of it: only while the worker cannot have found it yet would the next one
            // still come over the old socket, so both are sent here.
            1 => {
                kernel.announce();
                kernel.take_over();
            }
            _ => kernel.take_over(),
        }
    }
    kernel.take_over();
    let attached = kernel.until_attached();
    kernel.acknowledge();
    assert!(attached.execution <= plan.sent);
    for execution in attached.execution + 1..=plan.sent {
        let code = plan.codes[execution as usize - 1].clone();
        kernel.execute(execution, &code);
    }
    if let Some(call) = attached.call
        && plan.answered.contains(&call)
    {
        kernel.answer(call);
    }
}

/// The record is what one kernel that never died would have got.
fn check(kernel: &Kernel, plan: &Plan, seed: u64) {
    let mut frames = kernel.record.iter().skip(2).map(|envelope| &envelope.frame);
    let mut written = 0;
    for (execution, code) in (1..).zip(&plan.codes) {
        for line in code.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let count: u64 = words.get(1).map_or(0, |count| count.parse().unwrap());
            match words[0] {
                "ask" => assert!(matches!(frames.next(), Some(Frame::Call(_))), "seed {seed}"),
                "show" => {
                    for index in 0..count {
                        written += 1;
                        let Some(Frame::Display(display)) = frames.next() else { panic!("seed {seed}") };
                        let Display { execution: of, metadata, at, .. } = display;
                        let shown = (*of, metadata.clone(), at.stdout);
                        assert_eq!(shown, (execution, Json::of(&index).unwrap(), written), "seed {seed}");
                    }
                }
                _ => {
                    for _ in 0..3 * count {
                        assert!(matches!(frames.next(), Some(Frame::Display(_))), "seed {seed}");
                    }
                }
            }
        }
        let done = frames.next();
        assert!(
            matches!(done, Some(Frame::Done(done)) if done.execution == execution),
            "seed {seed}: {done:?}"
        );
    }
    assert_eq!(frames.next(), None);
}
