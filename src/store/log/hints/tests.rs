use super::*;
use crate::store::file::open;
use crate::store::state::events;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn event(id: &str, customer: &str, second: i64) -> Event {
    Event { id: id.to_owned(), customer: CustomerId::new(customer).ok(), created_at: Some(at(second)) }
}

fn with_store(work: impl FnOnce(&Tx<'_>)) {
    let mut conn = open::in_memory();
    work(&conn.transaction().unwrap());
}

fn stored(tx: &Tx<'_>, events: &[Event], second: i64) -> StoredEvents {
    store_events(tx, events, (at(second), at(second))).unwrap()
}

#[test]
fn repeated_event_makes_one_hint() {
    with_store(|tx| {
        let one = [event("e1", "a", 0), event("e1", "a", 0)];
        let customers = vec![CustomerId::new("a").unwrap()];
        let expected = StoredEvents { new: 1, hinted: 1, customers, ..StoredEvents::default() };
        assert_eq!(stored(tx, &one, 1), expected);
        assert_eq!(stored(tx, &one, 2), StoredEvents::default());
        let last_event_at = events::read(tx).unwrap().last_event_at;
        assert_eq!(last_event_at, Some(time::written(at(1))), "a repeated event is not a new one");
        assert_eq!(due(tx, at(2), 10).unwrap().len(), 1);
    });
}

#[test]
fn hint_is_due_at_once_and_merged_after_its_request() {
    with_store(|tx| {
        stored(tx, &[event("e1", "a", 0)], 1);
        let hint = due(tx, at(1), 10).unwrap().remove(0);
        assert!(!is_hinted_again(tx, &hint).unwrap());
        stored(tx, &[event("e2", "a", 1)], 1);
        assert!(is_hinted_again(tx, &hint).unwrap());
        assert!(settle(tx, &hint.id, at(1), HintStep::Close).unwrap());
        assert_eq!(next_due(tx, at(1)).unwrap(), None);
        // A hint within two seconds after the request is due two seconds after it.
        stored(tx, &[event("e3", "a", 2)], 2);
        assert_eq!(next_due(tx, at(2)).unwrap(), Some(at(3)));
        assert_eq!(due(tx, at(2), 10).unwrap(), []);
    });
}

#[test]
fn new_hint_replaces_the_second_request() {
    with_store(|tx| {
        stored(tx, &[event("e1", "a", 0)], 1);
        let id = CustomerId::new("a").unwrap();
        let step = HintStep::ReadAt { at: at(121), is_second: true };
        assert!(!settle(tx, &id, at(1), step).unwrap());
        assert_eq!(open_count(tx).unwrap(), 0, "it was requested once");
        stored(tx, &[event("e2", "a", 60)], 60);
        let due = due(tx, at(60), 10).unwrap();
        assert_eq!((due.len(), due[0].is_second, due[0].first_at), (1, false, at(1)));
    });
}

#[test]
fn more_than_500_open_hints_are_dropped_with_all_older_events() {
    with_store(|tx| {
        let events: Vec<Event> = (0..501).map(|n| event(&format!("e{n}"), &format!("c{n}"), 5)).collect();
        assert_eq!(stored(tx, &events[..500], 10).dropped, 0);
        assert_eq!(stored(tx, &events[500..], 10).dropped, 501);
        assert_eq!(due(tx, at(11), 600).unwrap(), []);
        // What happened before the sweep starts makes no hint; what happens later does.
        let late = stored(tx, &[event("late", "c1", 9)], 12);
        assert_eq!((late.hinted, late.left_to_sweep), (0, 1));
        assert_eq!(stored(tx, &[event("ahead", "c2", 0)], 5).hinted, 1, "a clock was set back");
        assert_eq!(stored(tx, &[event("next", "c1", 11)], 12).hinted, 1);
    });
}

#[test]
fn event_without_customer_makes_no_hint_and_is_counted() {
    with_store(|tx| {
        let nameless = Event { id: "e".into(), customer: None, created_at: None };
        let dotted = event("d", "..", 0);
        assert_eq!(stored(tx, &[nameless, dotted], 1), StoredEvents { new: 2, ..StoredEvents::default() });
        let count: i64 =
            tx.query_row("SELECT without_customer FROM event_state", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 2);
    });
}

#[test]
fn event_is_forgotten_after_24_hours() {
    with_store(|tx| {
        stored(tx, &[event("e1", "a", 0)], 0);
        stored(tx, &[event("e2", "b", 0)], 86_400);
        assert_eq!(stored(tx, &[event("e1", "a", 0)], 86_400).new, 0, "a day old");
        stored(tx, &[event("e3", "b", 0)], 86_401);
        assert_eq!(stored(tx, &[event("e1", "a", 0)], 86_401).new, 1);
    });
}

#[test]
fn hint_that_a_wrong_clock_dated_far_ahead_is_due_now() {
    with_store(|tx| {
        stored(tx, &[event("e1", "a", 0)], 100_000);
        assert_eq!(next_due(tx, at(0)).unwrap(), Some(at(0)));
        assert_eq!(due(tx, at(0), 10).unwrap().len(), 1);
        assert_eq!(next_due(tx, at(99_000)).unwrap(), Some(at(100_000)), "that may be true");
        let earliest = at(100_000) - LONGEST_WAIT;
        assert_eq!(next_due(tx, earliest).unwrap(), Some(at(100_000)));
        assert_eq!(due(tx, earliest, 10).unwrap(), []);
    });
}

#[test]
fn paused_hints_are_not_due() {
    with_store(|tx| {
        stored(tx, &[event("e1", "a", 0)], 0);
        pause(tx, at(900), "many unknown customers").unwrap();
        assert_eq!(due(tx, at(899), 10).unwrap(), []);
        assert_eq!(next_due(tx, at(1)).unwrap(), Some(at(900)));
        assert_eq!(due(tx, at(900), 10).unwrap().len(), 1);
    });
}

#[test]
fn at_most_500_customers_wait_for_their_second_request() {
    with_store(|tx| {
        let step = HintStep::ReadAt { at: at(121), is_second: true };
        let is_answered = |n: u32| {
            let id = format!("c{n}");
            stored(tx, &[event(&format!("e{n}"), &id, 0)], 1);
            settle(tx, &CustomerId::new(id).unwrap(), at(1), step).unwrap()
        };
        assert!(!(0..500).any(is_answered));
        assert!(is_answered(500), "one more is not requested again");
        assert_eq!(due(tx, at(121), 600).unwrap().len(), 500);
    });
}
