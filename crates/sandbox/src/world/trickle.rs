//! Single plausible changes, as in an active shop.

use rand::Rng;
use serde_json::{Value, json};

use crate::account::{SandboxAccount, source_value};
use crate::population::{Card, drawn_email, drawn_note, drawn_plan};
use crate::random::{self, pick};
use crate::world::World;

impl World {
    /// Creates, updates or deletes one customer of the default account. Returns `op`, `id`, and the
    /// customer after the change or before the delete.
    pub fn trickle(&mut self, rng: &mut impl Rng) -> Value {
        let now = self.now();
        let mut rng = random::seeded([rng.random()]);
        let account = self.tick(0);
        let some = account.newest().nth_id(rng.random_range(0..account.len().max(1)));
        match (rng.random_range(0..100), some) {
            (55..85, Some(id)) => {
                let patch = patch(account, &id, &mut rng);
                account.update(now, &id, patch);
                json!({"op": "update", "id": id, "customer": account.get(&id)})
            }
            (85.., Some(id)) => {
                let before = account.get(&id);
                account.delete(now, &id);
                json!({"op": "delete", "id": id, "customer": before})
            }
            _ => {
                let source = rng.random_ratio(80, 100).then(|| source_value(&Card::drawn(&mut rng)));
                let fields = json!({
                    "email": drawn_email(&mut rng),
                    "source": source,
                    "metadata": {"plan": drawn_plan(&mut rng)},
                    "locale": pick(&mut rng, &["ja", "en", "ko"]),
                });
                let id = account.create(now, fields);
                json!({"op": "create", "id": id, "customer": account.get(&id)})
            }
        }
    }
}

/// Draws an update of a customer.
fn patch(account: &SandboxAccount, id: &str, rng: &mut impl Rng) -> Value {
    match rng.random_range(0..3) {
        0 => json!({"email": drawn_email(rng)}),
        1 => json!({"source": source_value(&Card::drawn(rng))}),
        _ => {
            let mut metadata =
                account.get(id).map(|customer| customer["metadata"].clone()).unwrap_or_default();
            if let Some(fields) = metadata.as_object_mut() {
                fields.insert("plan".to_owned(), drawn_plan(rng).into());
                fields.insert("note".to_owned(), drawn_note(rng).into());
            }
            json!({"metadata": metadata})
        }
    }
}
