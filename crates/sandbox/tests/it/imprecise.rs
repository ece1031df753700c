//! Tests the readings of how exact the customer list is, each alone and all together.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use komoju_sandbox::readings::{
    Deleted, DeletedListed, LastPage, ListTimes, Order, PastEnd, Readings, Repeated, Ties, Total,
};
use komoju_sandbox::{Drift, Fault, FaultEffect, Region, Sandbox};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::client::{ask, get, ids, page, sandbox, sandbox_with, sweep};

/// Requests a list under these readings, and returns its envelope without the data.
async fn envelope(sandbox: &Sandbox, query: &str) -> Value {
    let mut list = get(sandbox, &format!("/customers?{query}")).await.json();
    list.as_object_mut().unwrap().remove("data").unwrap();
    list
}

#[tokio::test]
async fn total_is_wrong_missing_or_text() {
    let sandbox = sandbox(25).await;
    let whole = envelope(&sandbox, "").await;
    for (total, said) in [
        (Total::Exact, Some(json!(25))),
        (Total::Off(3), Some(json!(28))),
        (Total::Off(-3), Some(json!(22))),
        (Total::Off(-26), Some(json!(0))),
        (Total::Missing, None),
        (Total::Text, Some(json!("25"))),
    ] {
        *sandbox.world().readings_mut() = Readings { total, ..Readings::default() };
        let mut expected = whole.clone();
        match said {
            Some(said) => expected["total"] = said,
            None => drop(expected.as_object_mut().unwrap().remove("total")),
        }
        assert_eq!(envelope(&sandbox, "").await, expected, "{total:?}");
        assert_eq!(page(&sandbox, "page=3").await.len(), 5, "{total:?}");
        assert_eq!(get(&sandbox, "/events").await.json()["total"], 0, "events are exact");
    }
}

#[tokio::test]
async fn random_total_takes_every_number_within_its_percentage() {
    let readings = Readings { total: Total::Random(5), ..Readings::default() };
    let sandbox = sandbox_with(100, readings).await;
    let mut said = BTreeSet::new();
    for _ in 0..200 {
        said.insert(envelope(&sandbox, "").await["total"].as_u64().unwrap());
    }
    assert_eq!(said, (95..=105).collect());
}

#[tokio::test]
async fn last_page_is_wrong_or_missing() {
    let sandbox = sandbox(25).await;
    let whole = envelope(&sandbox, "").await;
    for (last_page, said) in [
        (LastPage::Exact, Some(json!(3))),
        (LastPage::Divisor(7.try_into().unwrap()), Some(json!(4))),
        (LastPage::Divisor(100.try_into().unwrap()), Some(json!(1))),
        (LastPage::Floor, Some(json!(2))),
        (LastPage::Missing, None),
        (LastPage::Null, Some(Value::Null)),
        (LastPage::Zero, Some(json!(0))),
    ] {
        *sandbox.world().readings_mut() = Readings { last_page, ..Readings::default() };
        let mut expected = whole.clone();
        match said {
            Some(said) => expected["last_page"] = said,
            None => drop(expected.as_object_mut().unwrap().remove("last_page")),
        }
        assert_eq!(envelope(&sandbox, "").await, expected, "{last_page:?}");
        assert_eq!(page(&sandbox, "page=3").await.len(), 5, "{last_page:?}");
    }
}

#[tokio::test]
async fn envelope_times_are_echoed_absent_null_or_filled() {
    let sandbox = sandbox(1).await;
    let asked = "2020-01-01T00:00:00Z";
    let (epoch, now) = ("1970-01-01T00:00:00Z", "2026-06-01T00:00:00Z");
    for (list_times, without, with) in [
        (ListTimes::Echoed, Some((json!(null), json!(null))), Some((json!(asked), json!(null)))),
        (ListTimes::Absent, None, None),
        (ListTimes::Null, Some((json!(null), json!(null))), Some((json!(null), json!(null)))),
        (ListTimes::Filled, Some((json!(epoch), json!(now))), Some((json!(asked), json!(now)))),
    ] {
        sandbox.world().readings_mut().list_times = list_times;
        for path in ["customers", "events"] {
            for (query, expected) in [("", &without), ("start_time=2020-01-01T00:00:00Z", &with)] {
                let list = get(&sandbox, &format!("/{path}?{query}")).await.json();
                let said = list.get("start_time").cloned().zip(list.get("end_time").cloned());
                assert_eq!(&said, expected, "{list_times:?} {path} {query}");
            }
        }
    }
}

#[tokio::test]
async fn filtered_customers_are_missing_from_their_page_and_counted() {
    let sandbox = sandbox(25).await;
    let all = sandbox.world().ids();
    sandbox.world().readings_mut().filtered_every = Some(4.try_into().unwrap());
    for number in 1..=3 {
        let list = get(&sandbox, &format!("/customers?page={number}")).await.json();
        let positions = (number - 1) * 10..25.min(number * 10);
        // The newest customer has number 24.
        let expected: Vec<&String> =
            positions.filter(|position| (24 - position) % 4 != 0).map(|position| &all[position]).collect();
        let listed = ids(list["data"].as_array().unwrap());
        assert_eq!(listed.iter().collect::<Vec<_>>(), expected);
        assert_eq!(
            (&list["total"], &list["last_page"], &list["per_page"]),
            (&json!(25), &json!(3), &json!(10))
        );
    }
    assert_eq!(get(&sandbox, &format!("/customers/{}", all[0])).await.status, 200);
}

/// Creates two customers in one second, a hundred in an earlier one, and three in the one before.
async fn tied(order: Order, ties: Ties, seed: u64) -> Sandbox {
    let sandbox = sandbox_with(0, Readings { order, ties, seed, ..Readings::default() }).await;
    for (count, second) in [(2, 3), (100, 2), (3, 1)] {
        for number in 0..count {
            let id = format!("{second}-{number:03}");
            sandbox.world().create(json!({"id": id, "created_at": format!("2026-01-01T00:00:0{second}Z")}));
        }
    }
    sandbox
}

#[tokio::test]
async fn customers_of_one_second_have_another_order_for_each_request() {
    for (order, first, last) in [(Order::NewestFirst, "3", "1"), (Order::OldestFirst, "1", "3")] {
        let sandbox = tied(order, Ties::Unstable, 1).await;
        let mut at_50 = HashSet::new();
        let mut orders = HashSet::new();
        for _ in 0..400 {
            let listed = ids(&page(&sandbox, "per_page=10&page=6").await);
            assert!(listed.iter().all(|id| id.starts_with('2')), "{listed:?}");
            assert_eq!(listed.iter().collect::<HashSet<_>>().len(), 10, "none is twice on a page");
            at_50.insert(listed[0].clone());
            orders.insert(listed);
        }
        assert_eq!((at_50.len() > 90, orders.len()), (true, 400), "{order:?}");

        sandbox.world().readings_mut().per_page_max = 200;
        let mut whole = ids(&page(&sandbox, "per_page=200").await);
        let edge = if first == "3" { 2 } else { 3 };
        assert!(whole[..edge].iter().all(|id| id.starts_with(first)));
        assert!(whole[edge + 100..].iter().all(|id| id.starts_with(last)));
        let mut all = sandbox.world().ids();
        whole.sort();
        all.sort();
        assert_eq!(whole, all, "all are there");
    }
}

#[tokio::test]
async fn unstable_ties_depend_on_the_seed() {
    let run = async |order, ties, seed| {
        let sandbox = tied(order, ties, seed).await;
        [ids(&sweep(&sandbox, 10).await), ids(&sweep(&sandbox, 10).await)]
    };
    let unstable = run(Order::NewestFirst, Ties::Unstable, 1).await;
    assert_eq!(run(Order::NewestFirst, Ties::Unstable, 1).await, unstable);
    assert_ne!(run(Order::NewestFirst, Ties::Unstable, 2).await, unstable);
    let missed = 105 - unstable[0].iter().collect::<HashSet<_>>().len();
    assert!(missed > 10, "a sweep over pages that disagree misses customers: {missed}");
    for (order, ties) in [(Order::NewestFirst, Ties::Stable), (Order::ById, Ties::Unstable)] {
        let [first, second] = run(order, ties, 1).await;
        assert_eq!(first, second, "{order:?}");
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), 105, "{order:?}");
    }
}

#[tokio::test]
async fn repeated_customer_is_added_to_each_page_or_replaces_another_one() {
    let sandbox = sandbox(25).await;
    let all = sandbox.world().ids();
    for (repeated, lengths) in [(Repeated::Added, [11, 11, 6]), (Repeated::Displacing, [10, 10, 5])] {
        sandbox.world().readings_mut().repeated = repeated;
        let mut places = HashSet::new();
        for number in 1..=3 {
            let query = format!("page={number}");
            let listed = ids(&page(&sandbox, &query).await);
            assert_eq!(ids(&page(&sandbox, &query).await), listed, "the same one each time");
            assert_eq!(listed.len(), lengths[number - 1], "{repeated:?}");
            let index = listed.windows(2).position(|pair| pair[0] == pair[1]).unwrap();
            let mut expected = all[(number - 1) * 10..25.min(number * 10)].to_vec();
            match repeated {
                Repeated::Displacing => expected[index + 1] = expected[index].clone(),
                _ => expected.insert(index, expected[index].clone()),
            }
            assert_eq!(listed, expected, "{repeated:?}");
            places.insert(index);
        }
        assert!(places.len() > 1, "not at the same place of each page: {places:?}");
        assert_eq!(envelope(&sandbox, "").await["total"], 25);
    }
    // A page with one customer can repeat it, but has no other one to replace.
    assert_eq!(ids(&page(&sandbox, "per_page=1").await), all[..1]);
    assert_eq!(page(&sandbox, "page=4").await.len(), 0);
}

#[tokio::test]
async fn show_of_a_deleted_customer_has_four_answers() {
    let sandbox = sandbox(3).await;
    let [seeded, changed, living] = sandbox.world().ids().try_into().unwrap();
    sandbox.world().update(&changed, json!({"email": "a@example.jp"}));
    let before = sandbox.world().truth();
    sandbox.world().delete(&seeded);
    sandbox.world().delete(&changed);
    for (deleted, status, code) in [
        (Deleted::NotFound, 404, "not_found"),
        (Deleted::OtherCode, 404, "customer_deleted"),
        (Deleted::Gone, 410, "gone"),
    ] {
        sandbox.world().readings_mut().deleted = deleted;
        for id in [&seeded, &changed] {
            let shown = get(&sandbox, &format!("/customers/{id}")).await;
            assert_eq!(shown.error(), (status, code.to_owned(), Value::Null));
        }
    }
    sandbox.world().readings_mut().deleted = Deleted::Flagged;
    for id in [&seeded, &changed] {
        let path = format!("/customers/{id}");
        let mut expected = before[id].clone();
        expected["deleted"] = true.into();
        let shown = get(&sandbox, &path).await;
        assert_eq!((shown.status, shown.json()), (200, expected));
        for method in ["PATCH", "DELETE"] {
            let refused = ask(&sandbox, method, &path).json(&json!({})).send(&sandbox).await;
            assert_eq!(refused.error(), (404, "not_found".to_owned(), Value::Null), "{method}");
        }
    }
    assert_eq!(get(&sandbox, &format!("/customers/{living}")).await.json(), before[&living]);
    assert_eq!(get(&sandbox, "/customers/never").await.error().1, "not_found");
}

#[tokio::test]
async fn deleted_customers_are_listed_in_place_with_a_flag() {
    for order in [Order::NewestFirst, Order::OldestFirst, Order::ById] {
        let sandbox = sandbox_with(20, Readings { order, ..Readings::default() }).await;
        let all = page(&sandbox, "per_page=20").await;
        let gone = ids(&all)[7].clone();
        sandbox.world().delete(&gone);
        assert_eq!(page(&sandbox, "per_page=20").await.len(), 19);

        sandbox.world().readings_mut().deleted_listed = DeletedListed::Flagged;
        let mut expected = all.clone();
        expected[7]["deleted"] = true.into();
        assert_eq!(page(&sandbox, "per_page=20").await, expected, "{order:?}");
        assert_eq!(envelope(&sandbox, "").await["total"], 20);
        let bounded = page(&sandbox, "per_page=20&start_time=2000-01-01").await;
        assert_eq!(bounded, expected, "{order:?}");

        // Changes after the first such list are listed, too.
        let other = ids(&all)[12].clone();
        sandbox.world().delete(&other);
        sandbox.world().restore(&gone);
        expected[7].as_object_mut().unwrap().remove("deleted");
        expected[12]["deleted"] = true.into();
        assert_eq!(page(&sandbox, "per_page=20").await, expected, "{order:?}");
        sandbox.world().put_raw(all[12].clone());
        assert_eq!(page(&sandbox, "per_page=20").await, all, "{order:?}");
        let new = sandbox.world().create(json!({}));
        assert!(ids(&page(&sandbox, "per_page=21").await).contains(&new));
        sandbox.world().remove_all();
        assert!(page(&sandbox, "per_page=21").await.iter().all(|customer| customer["deleted"] == true));

        sandbox.world().readings_mut().deleted_listed = DeletedListed::Never;
        assert!(page(&sandbox, "").await.is_empty());
    }
}

#[tokio::test]
async fn moved_customers_stay_moved_in_a_list_with_deleted_ones() {
    let sandbox = sandbox(20).await;
    let drift = Drift { reorder: 2, place: Region::Coming, ..Drift::default() };
    sandbox.world().inject(Fault::new(FaultEffect::Drift(drift)).times(2));
    page(&sandbox, "").await;
    let moved = ids(&page(&sandbox, "per_page=19").await);
    sandbox.world().readings_mut().deleted_listed = DeletedListed::Flagged;
    let after = ids(&page(&sandbox, "per_page=20").await);
    assert_eq!(after[0], sandbox.world().ids()[19], "the only one after nineteen");
    assert_eq!(after[1..], moved[..19]);
}

#[tokio::test]
async fn imprecisions_are_combined_on_one_page() {
    let readings = Readings {
        total: Total::Text,
        last_page: LastPage::Floor,
        filtered_every: Some(5.try_into().unwrap()),
        repeated: Repeated::Added,
        past_end: PastEnd::LastPage,
        deleted_listed: DeletedListed::Flagged,
        ..Readings::default()
    };
    let sandbox = sandbox_with(25, readings).await;
    let all = sandbox.world().ids();
    sandbox.world().delete(&all[23]);
    let list = get(&sandbox, "/customers?page=9").await.json();
    assert_eq!((&list["total"], &list["last_page"], &list["page"]), (&json!("25"), &json!(2), &json!(3)));
    // Of customers 0 to 4, number 0 is filtered out, number 1 was deleted, and one of the four is
    // listed twice.
    let mut listed = ids(list["data"].as_array().unwrap());
    assert_eq!(listed.len(), 5);
    listed.dedup();
    assert_eq!(listed, all[20..24]);
    let flags: HashSet<(&str, bool)> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|customer| (customer["id"].as_str().unwrap(), customer.get("deleted").is_some()))
        .collect();
    assert_eq!(flags.iter().filter(|(_, deleted)| *deleted).collect::<Vec<_>>(), [&(all[23].as_str(), true)]);
}

/// Readings change hints, order and time. A listed customer always has a state that it once had.
#[tokio::test]
async fn listed_customer_has_a_state_from_within_the_lag_under_random_readings() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let readings = Readings::random_list(&mut rng, 5);
        let sandbox = sandbox_with(30, readings.clone()).await;
        let mut states = vec![sandbox.world().truth()];
        for step in 0..12 {
            let mut world = sandbox.world();
            world.advance(Duration::from_secs(1));
            world.trickle(&mut rng);
            states.push(world.truth());
            drop(world);
            let number: usize = rng.random_range(1..=5);
            let reply = get(&sandbox, &format!("/customers?per_page=7&page={number}")).await;
            if reply.status == 404 {
                assert_eq!(readings.past_end, PastEnd::NotFound);
                continue;
            }
            let oldest = (step + 1_usize).saturating_sub(readings.list_lag_s as usize);
            for listed in reply.json()["data"].as_array().unwrap() {
                let possible = possible(&states, oldest, listed["id"].as_str().unwrap());
                assert!(possible.contains(listed), "{readings:?} step {step}: {listed}");
            }
        }
        sandbox.world().advance(Duration::from_secs(5));
        let truth = sandbox.world().truth();
        for (id, customer) in truth {
            let shown = get(&sandbox, &format!("/customers/{id}")).await;
            assert_eq!((shown.status, shown.json()), (200, customer), "{readings:?}");
        }
    }
}

/// Returns the states of a customer that a list may show: each one since `oldest`, and the last one
/// with a flag if it was deleted.
fn possible(states: &[BTreeMap<String, Value>], oldest: usize, id: &str) -> Vec<Value> {
    let mut possible: Vec<Value> = Vec::new();
    for now in oldest..states.len() {
        match states[now].get(id) {
            Some(customer) => possible.push(customer.clone()),
            None => {
                let last = states[..now].iter().rev().find_map(|state| state.get(id));
                possible.extend(last.map(|customer| {
                    let mut deleted = customer.clone();
                    deleted["deleted"] = true.into();
                    deleted
                }));
            }
        }
    }
    possible
}
