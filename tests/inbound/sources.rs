//! A null source is "none" or "not revealed": every reading.

use komoju_sandbox::readings::{Source, Total};
use komoju_sandbox::{Call, Effect, Fault, Readings};
use serde_json::json;

use crate::house::House;

fn with_card(house: &House) -> String {
    let truth = house.sandbox.world().truth();
    truth.iter().find(|(_, body)| !body["source"].is_null()).map(|(id, _)| id.clone()).unwrap()
}

#[test]
fn lists_that_hide_sources_erase_none() {
    let house = House::with(30);
    house.sweep();
    let head = house.head();
    house.sandbox.world().readings_mut().list_source = Source::Hidden;
    house.sweep();
    assert_eq!(house.head(), head, "nothing changed but what the list reveals");
    let id = with_card(&house);
    house.sandbox.world().update(&id, json!({"email": "new@example.com"}));
    house.sweep();
    assert_eq!(house.kinds_after(head), ["updated"]);
    let brand = house.one(&format!("SELECT source_brand FROM customers WHERE id = '{id}'"));
    assert_ne!(brand, "null", "what is recorded carries the known source on");
    assert_ne!(house.one("SELECT after -> '$.source' FROM changes ORDER BY seq DESC LIMIT 1"), "null");
}

#[test]
fn a_source_that_is_gone_becomes_null_when_the_list_shows_others() {
    let house = House::with(30);
    house.sweep();
    let head = house.head();
    let id = with_card(&house);
    house.sandbox.world().update(&id, json!({"source": null}));
    house.sweep();
    assert_eq!(house.kinds_after(head), ["updated"]);
    assert_eq!(house.one(&format!("SELECT source IS NULL FROM customers WHERE id = '{id}'")), "1");
    house.assert_true();
    house.sweep();
    assert_eq!(house.kinds_after(head), ["updated"], "and stays as it is");
}

#[test]
fn a_lookup_that_hides_sources_erases_none() {
    let house = House::with(30);
    house.sweep();
    let head = house.head();
    let id = with_card(&house);
    house.sandbox.world().readings_mut().show_source = Source::Hidden;
    let hidden = komoju_sandbox::Effect::Hide { ids: vec![id.clone()], every: None };
    house.on_lists(hidden);
    house.sweep();
    assert_eq!(house.head(), head);
    assert_eq!(house.one(&format!("SELECT source IS NULL FROM customers WHERE id = '{id}'")), "0");
}

#[test]
fn source_that_a_sweep_has_just_recorded_is_not_taken_away_by_it() {
    // `total` counts too many, so that the list is read twice; in between a customer gets a card.
    let readings = Readings { total: Total::Off(3), ..Readings::default() };
    let house = House::reading(12, readings);
    let id = with_card(&house);
    let card = house.sandbox.world().truth()[&id]["source"].clone();
    house.sandbox.world().update(&id, json!({"source": null}));
    house.expect(0, &["sync"]);
    let head = house.head();
    let waits = house.inject(Fault::new(Effect::Hold).call(Call::List).page(1).skip(1));
    let mut sync = house.spawn(&["sync"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(waits) > 0));
    house.sandbox.world().update(&id, json!({"source": card}));
    house.sandbox.world().clear_faults();
    assert!(sync.wait().unwrap().success());
    assert_eq!(house.kinds_after(head), ["updated"]);
    house.assert_true();
}
