//! A null source is "none" or "not revealed": every reading.

use komoju_sync::sandbox::readings::Source;
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
    let hidden = komoju_sync::sandbox::Effect::Hide { ids: vec![id.clone()], every: None };
    house.on_lists(hidden);
    house.sweep();
    assert_eq!(house.head(), head);
    assert_eq!(house.one(&format!("SELECT source IS NULL FROM customers WHERE id = '{id}'")), "0");
}
