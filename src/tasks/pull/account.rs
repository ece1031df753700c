//! The account guard: before a pass reads anything, checks that the key reads this mirror's account.

use super::ask::Found;
use super::{Failure, Pull};
use crate::remote::Remote;
use crate::store::log::mirror::{self, Among};
use crate::store::state::account;
use komoju_core::change::Hash;
use komoju_core::plan::absence::LookupAnswer;
use komoju_core::plan::account::{AccountPlan, Binding, KNOWN_REQUESTED, KeyMatch};
use komoju_core::plan::retry::TRIES;
use komoju_core::time;

impl<R: Remote> Pull<R> {
    /// Fails if the key may read another account. Binds it to the database where it is proven to read this one.
    pub(super) async fn check_account(&self) -> Result<(), Failure> {
        let (account, live) =
            self.store.read(|conn| Ok((account::load(conn)?, mirror::live_count(conn)?))).await?;
        let salt = account.as_ref().map_or_else(|| rand::random::<[u8; 16]>().to_vec(), |a| a.salt.clone());
        let fingerprint = self.key.salted_fingerprint(&salt);
        let binding = Binding {
            bound: account.as_ref().map(|account| &account.fingerprint),
            refused: account
                .as_ref()
                .and_then(|account| account.stopped.as_ref())
                .map(|(refused, _)| refused),
            live,
        };
        let at = time::written(self.clock.now());
        match AccountPlan::new(binding, &fingerprint) {
            AccountPlan::Proceed => Ok(()),
            AccountPlan::Resume => {
                tracing::info!("the key that this database is bound to is back");
                Ok(self.store.write(account::resume).await?)
            }
            AccountPlan::TakeOver => {
                Ok(self.store.write(move |tx| account::take_over(tx, &salt, &fingerprint, &at)).await?)
            }
            AccountPlan::RequestKnown => self.request_known(salt, fingerprint).await,
            AccountPlan::Refuse => Err(Failure::OtherAccount),
        }
    }

    /// Requests customers of the mirror with a new key, until one exists.
    async fn request_known(&self, salt: Vec<u8>, fingerprint: Hash) -> Result<(), Failure> {
        let (mut answers, mut failure) = (Vec::new(), None);
        for id in self.some_live(KNOWN_REQUESTED, Among::All).await? {
            // Only this customer may fail: the others are tried once.
            let tries = if failure.is_none() { TRIES } else { 1 };
            answers.push(match self.look_up(&id, tries).await? {
                Found::Alive(_) => LookupAnswer::Exists,
                Found::Unreadable(bad) if bad.id.is_some() => LookupAnswer::Unreadable,
                Found::Unreadable(_) => LookupAnswer::Unclear,
                Found::Gone => LookupAnswer::Gone,
                Found::Unclear(why) => {
                    failure = Some(Box::new(why));
                    LookupAnswer::Unclear
                }
            });
            if KeyMatch::new(&answers) == KeyMatch::Same {
                break;
            }
        }
        let at = time::written(self.clock.now());
        match KeyMatch::new(&answers) {
            KeyMatch::Same => {
                tracing::info!("a new key reads the same account; it is accepted");
                Ok(self.store.write(move |tx| account::bind(tx, &salt, &fingerprint, &at)).await?)
            }
            KeyMatch::Other => {
                self.store.write(move |tx| account::stop(tx, &fingerprint, &at)).await?;
                Err(Failure::OtherAccount)
            }
            KeyMatch::Unknown => Err(Failure::AccountUnclear(failure)),
        }
    }
}
