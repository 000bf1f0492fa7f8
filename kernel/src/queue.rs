//! Whose turn is next: by priority, then by arrival, and nobody is overtaken for ever. Pure.

use std::collections::VecDeque;

use cob_protocol::limits::OVERTAKEN_MAX;

/// Something that waits its turn.
pub(crate) trait Turn {
    /// Higher ones come first.
    fn priority(&self) -> i32;

    /// It was promised that nothing comes before it any more.
    fn is_next(&self) -> bool;
}

struct Waiting<T> {
    item: T,
    /// How often something that came later went before it.
    overtaken: u32,
}

/// What waits, in the order of its turns.
///
/// **Invariant:** what came later goes before something only if its priority is higher, and only [`OVERTAKEN_MAX`] times
/// before the same thing.
pub(crate) struct Queue<T>(VecDeque<Waiting<T>>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Turn> Queue<T> {
    /// Takes its place: before those at the end that it may overtake.
    pub(crate) fn push(&mut self, item: T) {
        let may_overtake = |known: &Waiting<T>| {
            known.item.priority() < item.priority()
                && known.overtaken < OVERTAKEN_MAX
                && !known.item.is_next()
        };
        let place = self.0.iter().rposition(|known| !may_overtake(known)).map_or(0, |place| place + 1);
        self.0.iter_mut().skip(place).for_each(|known| known.overtaken += 1);
        self.0.insert(place, Waiting { item, overtaken: 0 });
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        self.0.pop_front().map(|waiting| waiting.item)
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.0.front().map(|waiting| &waiting.item)
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.0.front_mut().map(|waiting| &mut waiting.item)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|waiting| &waiting.item)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|waiting| &mut waiting.item)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out the first one of which this is true.
    pub(crate) fn take(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let place = self.0.iter().position(|waiting| is_it(&waiting.item))?;
        self.0.remove(place).map(|waiting| waiting.item)
    }

    /// Takes out all of which this is true, in their order.
    pub(crate) fn take_all(&mut self, is_one: impl Fn(&T) -> bool) -> Vec<T> {
        let (taken, kept) =
            std::mem::take(&mut self.0).into_iter().partition::<Vec<_>, _>(|waiting| is_one(&waiting.item));
        self.0 = kept.into();
        taken.into_iter().map(|waiting| waiting.item).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Request {
        number: usize,
        priority: i32,
        is_next: bool,
    }

    impl Turn for Request {
        fn priority(&self) -> i32 {
            self.priority
        }

        fn is_next(&self) -> bool {
            self.is_next
        }
    }

    fn numbers(queue: &Queue<Request>) -> Vec<usize> {
        queue.iter().map(|request| request.number).collect()
    }

    fn filled(priorities: &[i32]) -> Queue<Request> {
        let mut queue = Queue::default();
        for (number, priority) in priorities.iter().enumerate() {
            queue.push(Request { number, priority: *priority, is_next: false });
        }
        queue
    }

    #[test]
    fn higher_ones_come_first_and_equal_ones_in_the_order_of_their_arrival() {
        assert_eq!(numbers(&filled(&[0, 5, 0, 5, -1, 100])), [5, 1, 3, 0, 2, 4]);
    }

    #[test]
    fn nothing_goes_before_what_was_promised_to_be_next() {
        let mut queue = filled(&[0, 0]);
        queue.front_mut().unwrap().is_next = true;
        queue.push(Request { number: 2, priority: 100, is_next: false });
        assert_eq!(numbers(&queue), [0, 2, 1]);
    }

    #[test]
    fn some_or_one_can_be_taken_out_and_the_others_stay_in_order() {
        let mut queue = filled(&[0, 1, 0, 1, 0]);
        assert_eq!(queue.take(|request| request.number == 2).unwrap().number, 2);
        assert_eq!(queue.take(|request| request.number == 2), None);
        let taken: Vec<_> =
            queue.take_all(|request| request.priority == 1).into_iter().map(|r| r.number).collect();
        assert_eq!((taken, numbers(&queue)), (vec![1, 3], vec![0, 4]));
    }

    proptest! {
        /// Requests come and are served in any order; whoever is served is compared with those that are left.
        #[test]
        fn nobody_is_overtaken_too_often_or_by_a_lower_one(
            steps in prop::collection::vec(prop::option::weighted(0.7, -3..=3), 0..400),
        ) {
            let mut queue = Queue::default();
            let (mut overtaken, mut served) = (vec![0_u32; steps.len()], 0);
            for (number, step) in steps.iter().enumerate() {
                let Some(priority) = step else {
                    let Some(next) = queue.pop() else { continue };
                    served += 1;
                    for earlier in queue.iter().filter(|known: &&Request| known.number < next.number) {
                        prop_assert!(earlier.priority < next.priority);
                        overtaken[earlier.number] += 1;
                        prop_assert!(overtaken[earlier.number] <= OVERTAKEN_MAX);
                    }
                    continue;
                };
                queue.push(Request { number, priority: *priority, is_next: false });
            }
            let asked = steps.iter().flatten().count();
            prop_assert_eq!(queue.len(), asked - served);
        }

        /// However many important ones come, each one is served after a bounded number of others.
        #[test]
        fn nothing_starves(low in -3..0, before in 0_usize..5) {
            let mut queue = filled(&vec![0; before]);
            queue.push(Request { number: usize::MAX, priority: low, is_next: false });
            let mut others = 0;
            loop {
                queue.push(Request { number: others, priority: 3, is_next: false });
                if queue.pop().unwrap().number == usize::MAX {
                    break;
                }
                others += 1;
                prop_assert!(others <= before + OVERTAKEN_MAX as usize);
            }
        }
    }
}
