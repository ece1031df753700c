//! The seeded customers: any number, the same for the same seed, and none of them stored.
//!
//! Customer `n` is a pure function of the salt and `n`, and `n` can be computed from its id. So a
//! million customers cost nothing until they are read. They are numbered in the order of their
//! creation. Some are created within the same second.

mod serial;

use jiff::Timestamp;
use rand::Rng;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::random::{self, pick};
use serial::{mix, push_base36, read_base36, unmix};

/// NEWEST_S controls when the newest seeded customer is created at the latest:
/// 2025-12-01T00:00:00Z. It is fixed, so that a seed always gives the same customers.
const NEWEST_S: i64 = 1_764_547_200;

/// SPAN_S controls the age difference of the newest and the oldest customer, in seconds.
const SPAN_S: i64 = 7 * 365 * 24 * 60 * 60;

/// BATCH and BATCH_AT_ONCE control how many customers are created within the same second, as by an
/// import: the first 4 of each 40.
const BATCH: u64 = 40;
const BATCH_AT_ONCE: u64 = 4;

/// The given names in emails.
const GIVEN: &[&str] = &[
    "aiko", "daichi", "emi", "haruto", "hina", "jiro", "kenji", "mei", "minjun", "nao", "ren", "sakura",
    "seoyeon", "sota", "taro", "yui",
];

/// The family names in emails.
const FAMILY: &[&str] = &[
    "abe",
    "inoue",
    "ito",
    "kato",
    "kim",
    "kobayashi",
    "mori",
    "nakamura",
    "park",
    "saito",
    "sato",
    "suzuki",
    "tanaka",
    "watanabe",
    "yamada",
    "yamamoto",
];

/// The hosts of emails.
const HOSTS: &[&str] = &["example.com", "example.jp", "example.net", "mail.example.org"];

/// The full names in metadata.
const NAMES: &[&str] = &["山田 太郎", "佐藤 花子", "鈴木 一郎", "高橋 美咲", "渡辺 健", "김민준"];

/// The addresses in metadata.
const PLACES: &[&str] = &["東京都渋谷区", "大阪府大阪市北区", "北海道札幌市中央区", "福岡県福岡市博多区"];

/// The notes in metadata, with characters that are often handled wrongly.
const NOTES: &[&str] = &[
    "領収書の宛名は会社名で",
    "ギフト包装希望 🎁",
    "配達は午前中にお願いします",
    "tab\there, \"quotes\" & <tags>",
    "line one\nline two",
];

/// The plans in metadata.
const PLANS: &[&str] = &["free", "light", "standard", "premium"];

/// The brands of cards.
const BRANDS: &[&str] = &["visa", "master", "jcb", "american_express", "diners_club"];

/// A customer as the API shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SeededCustomer {
    pub(crate) id: String,
    resource: &'static str,
    email: Option<String>,
    pub(crate) source: Option<Card>,
    metadata: Map<String, Value>,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) locale: Option<&'static str>,
}

/// A saved card as `source` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Card {
    #[serde(rename = "type")]
    kind: &'static str,
    pub(crate) brand: String,
    pub(crate) last_four_digits: String,
    pub(crate) month: u64,
    pub(crate) year: u64,
}

impl Card {
    /// Returns a credit card.
    pub(crate) fn new(brand: &str, last_four_digits: String, month: u64, year: u64) -> Self {
        Self { kind: "credit_card", brand: brand.to_owned(), last_four_digits, month, year }
    }

    /// Changes the type of the card.
    pub(crate) fn of_type(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// Draws a card that expires in 2027 or later.
    pub(crate) fn drawn(rng: &mut impl Rng) -> Self {
        let brand = pick(rng, BRANDS);
        let digits = format!("{:04}", rng.random_range(0..10_000));
        Self::new(brand, digits, rng.random_range(1..=12), rng.random_range(2027..2033))
    }
}

/// The seeded customers of one account.
#[derive(Debug, Clone)]
pub(crate) struct Population {
    salt: u64,
    size: u64,
    oldest_s: i64,
}

impl Population {
    /// Returns the customers of an account. Two accounts with the same seed have different
    /// customers. No customer is created after `now`.
    pub(crate) fn new(seed: u64, account: u64, size: u32, now: Timestamp) -> Self {
        Self {
            salt: random::seeded([seed, account]).random(),
            size: u64::from(size),
            oldest_s: NEWEST_S.min(now.as_second()) - SPAN_S,
        }
    }

    /// Returns a number for everything else that depends on seed and account.
    pub(crate) fn salt(&self) -> u64 {
        self.salt
    }

    /// Returns the id of customer `n`.
    pub(crate) fn id(&self, n: u32) -> String {
        let code = self.code(n);
        let mut id = String::with_capacity(25);
        push_base36(&mut id, mix(code ^ self.salt), 12);
        push_base36(&mut id, code, 13);
        id
    }

    /// Returns the number of the customer with this id.
    pub(crate) fn number(&self, id: &str) -> Option<u32> {
        if id.len() != 25 {
            return None;
        }
        let code = read_base36(id.get(12..)?)?;
        let n = unmix(code).wrapping_sub(self.salt);
        let n = u32::try_from(n).ok().filter(|_| n < self.size)?;
        (self.id(n) == id).then_some(n)
    }

    /// Returns when customer `n` was created, in seconds since 1970. It never falls as `n` rises.
    pub(crate) fn created_s(&self, n: u32) -> i64 {
        let n = u64::from(n);
        let n = if n % BATCH < BATCH_AT_ONCE { n - n % BATCH } else { n };
        let step = (SPAN_S as u64 / self.size.max(1)).max(1);
        let start = (u128::from(n) * SPAN_S as u128 / u128::from(self.size.max(1))) as u64;
        self.oldest_s + (start + mix(self.salt ^ n) % step) as i64
    }

    /// Returns customer `n`.
    pub(crate) fn customer(&self, n: u32) -> SeededCustomer {
        let id = self.id(n);
        let mut rng = random::seeded([self.salt, n.into()]);
        SeededCustomer {
            email: self.email(n, &mut rng),
            source: (!rng.random_ratio(15, 100)).then(|| Card::drawn(&mut rng)),
            metadata: metadata(n, &mut rng),
            created_at: rfc3339(self.created_s(n)),
            locale: match rng.random_range(0..20) {
                0..11 => Some("ja"),
                11..14 => Some("en"),
                14..16 => Some("ko"),
                _ => None,
            },
            resource: "customer",
            id,
        }
    }

    /// Draws an email. One customer in ten shares that of another one, and a few have none. The
    /// first customer always has one, because tests with one customer use it.
    fn email(&self, n: u32, rng: &mut impl Rng) -> Option<String> {
        match rng.random_range(0..100) {
            0..8 if n > 0 => None,
            8..18 => Some(format!("family{}@example.jp", rng.random_range(0..=self.size / 25))),
            _ => Some(format!("{}.{}{n}@{}", pick(rng, GIVEN), pick(rng, FAMILY), pick(rng, HOSTS))),
        }
    }

    /// Returns a number that is unique for `n` and looks random.
    fn code(&self, n: u32) -> u64 {
        mix(self.salt.wrapping_add(u64::from(n)))
    }
}

/// Draws an email for a customer that is created later.
pub(crate) fn drawn_email(rng: &mut impl Rng) -> String {
    let number = rng.random_range(0..1_000_000);
    format!("{}.{}.{number}@{}", pick(rng, GIVEN), pick(rng, FAMILY), pick(rng, HOSTS))
}

/// Draws a note, often not in ASCII.
pub(crate) fn drawn_note(rng: &mut impl Rng) -> &'static str {
    pick(rng, NOTES)
}

/// Draws the name of a plan.
pub(crate) fn drawn_plan(rng: &mut impl Rng) -> &'static str {
    pick(rng, PLANS)
}

/// Draws metadata: none for two customers in five, and very much for a few.
fn metadata(n: u32, rng: &mut impl Rng) -> Map<String, Value> {
    let mut map = Map::new();
    let mut set = |key: &str, value: String| {
        map.insert(key.to_owned(), Value::String(value));
    };
    let richness = rng.random_range(0..100);
    if richness < 40 {
        return map;
    }
    set("order_id", format!("A-{}", 100_000 + u64::from(n)));
    if richness < 60 {
        return map;
    }
    set("plan", drawn_plan(rng).to_owned());
    set("氏名", pick(rng, NAMES).to_owned());
    if richness < 82 {
        return map;
    }
    set("住所", pick(rng, PLACES).to_owned());
    set("note", drawn_note(rng).to_owned());
    set("points", rng.random_range(0..100_000).to_string());
    set("empty", String::new());
    for index in 0..rng.random_range(0..8) {
        set(&format!("attribute_{index}"), format!("{:016x}", rng.random::<u64>()));
    }
    if richness >= 97 {
        // The longest allowed value, in characters of three bytes.
        set("essay", "長".repeat(2000));
    }
    map
}

/// Returns a time in whole seconds in UTC, as KOMOJU writes times.
pub(crate) fn rfc3339(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn population(seed: u64, account: u64, size: u32) -> Population {
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        Population::new(seed, account, size, now)
    }

    fn all(population: &Population) -> Vec<Value> {
        (0..population.size as u32).map(|n| serde_json::to_value(population.customer(n)).unwrap()).collect()
    }

    #[test]
    fn same_seed_gives_the_same_customers() {
        assert_eq!(all(&population(1, 0, 50)), all(&population(1, 0, 50)));
        assert_eq!(
            serde_json::to_string(&population(1, 0, 50).customer(11)).unwrap(),
            concat!(
                r#"{"id":"ahslku1vbtso3r1gyx5rawjfy","resource":"customer","email":"aiko.saito11@example.com","#,
                r#""source":{"type":"credit_card","brand":"american_express","last_four_digits":"8566","month":1,"#,
                r#""year":2030},"metadata":{"order_id":"A-100011","plan":"free","氏名":"鈴木 一郎"},"#,
                r#""created_at":"2020-07-23T09:56:11Z","locale":"ja"}"#,
            )
        );
    }

    #[test]
    fn first_customer_of_every_seed_has_an_email() {
        for seed in 0..200 {
            assert!(population(seed, 0, 1).customer(0).email.is_some(), "seed {seed}");
        }
    }

    #[test]
    fn another_seed_or_account_shares_no_customer() {
        let ids = |population: &Population| -> HashSet<String> {
            (0..population.size as u32).map(|n| population.id(n)).collect()
        };
        let first = ids(&population(1, 0, 500));
        assert_eq!(first.len(), 500);
        assert!(first.is_disjoint(&ids(&population(2, 0, 500))));
        assert!(first.is_disjoint(&ids(&population(1, 1, 500))));
    }

    #[test]
    fn only_the_id_of_a_customer_has_a_number() {
        let population = population(1, 0, 1_000_000);
        for n in [0, 1, 999_999] {
            let id = population.id(n);
            assert_eq!(population.number(&id), Some(n));
            let mut forged = id.clone().into_bytes();
            forged[0] = if forged[0] == b'a' { b'b' } else { b'a' };
            assert_eq!(population.number(std::str::from_utf8(&forged).unwrap()), None);
        }
        assert_eq!(population.number(&population.id(1_000_000)), None);
        for odd in ["", "..", "あああああああああ", "0123456789012345678901234"] {
            assert_eq!(population.number(odd), None, "{odd}");
        }
    }

    #[test]
    fn customers_are_numbered_by_age_and_none_is_from_the_future() {
        for size in [1, 39, 100, 10_000] {
            let population = population(1, 0, size);
            let times: Vec<i64> = (0..size).map(|n| population.created_s(n)).collect();
            assert!(times.is_sorted());
            assert!(times.iter().all(|&time| time <= NEWEST_S));
        }
        let early: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        let population = Population::new(1, 0, 100, early);
        assert!(population.created_s(99) <= early.as_second());
    }

    #[test]
    fn customers_are_varied() {
        let customers = all(&population(1, 0, 1000));
        let count =
            |what: &dyn Fn(&Value) -> bool| customers.iter().filter(|customer| what(customer)).count();
        assert!(count(&|customer| customer["email"].is_null()) > 20);
        assert!(count(&|customer| customer["source"].is_null()) > 50);
        assert!(count(&|customer| customer.get("locale").is_none()) > 50);
        assert!(count(&|customer| customer["metadata"] == serde_json::json!({})) > 100);
        assert!(count(&|customer| customer["metadata"].as_object().unwrap().len() > 5) > 50);
        assert!(count(&|customer| customer["metadata"].get("氏名").is_some()) > 100);

        let emails: Vec<&str> = customers.iter().filter_map(|customer| customer["email"].as_str()).collect();
        let distinct: HashSet<&&str> = emails.iter().collect();
        assert!(distinct.len() + 20 < emails.len(), "some share an email");
        let times: HashSet<&str> =
            customers.iter().filter_map(|customer| customer["created_at"].as_str()).collect();
        assert!(times.len() + 20 < customers.len(), "some share a second");
    }
}
