//! The account guard at work: before anything is read, is this key one that reads this mirror's account?

use super::ask::Found;
use super::{Failure, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::mirror::{self, Among};
use crate::store::state::account::{self, Account};
use komoju_core::change::Hash;
use komoju_core::plan::evidence::Answer;
use komoju_core::plan::guard::{self, KNOWN_ASKED, Standing, Verdict};
use komoju_core::plan::retry::TRIES;
use komoju_core::time;

impl<R: Remote> Pull<R> {
    /// Lets the pass go on, or says why not.
    pub(super) async fn check_account(&self) -> Result<(), Failure> {
        let (known, live) =
            self.store.read(|conn| Ok((account::load(conn)?, mirror::live_count(conn)?))).await?;
        let salt = known
            .as_ref()
            .map_or_else(|| rand::random::<[u8; 16]>().to_vec(), |account| account.salt.clone());
        let fingerprint = self.key.salted_fingerprint(&salt);
        let bound = known.as_ref().map(|account| &account.fingerprint);
        match guard::standing(bound, &fingerprint, live) {
            Standing::Bound if known.as_ref().is_some_and(|account| account.stopped.is_some()) => {
                tracing::info!("the key that this database is bound to is back");
                Ok(self.store.write(account::resume).await?)
            }
            Standing::Bound => Ok(()),
            Standing::Free => {
                let at = time::written(self.clock.now());
                Ok(self.store.write(move |tx| account::take_over(tx, &salt, &fingerprint, &at)).await?)
            }
            Standing::Unknown => self.ask_known_customers(known, salt, fingerprint).await,
        }
    }

    async fn ask_known_customers(
        &self,
        known: Option<Account>,
        salt: Vec<u8>,
        fingerprint: Hash,
    ) -> Result<(), Failure> {
        if known.and_then(|account| account.stopped).is_some_and(|(candidate, _)| candidate == fingerprint) {
            return Err(Failure::OtherAccount);
        }
        let (mut answers, mut failure) = (Vec::new(), None);
        for id in self.some_live(KNOWN_ASKED, Among::All).await? {
            // Whoever gives no clear answer may be alone with that; the others are asked once.
            let tries = if failure.is_none() { TRIES } else { 1 };
            let answer = match self.look_up(&id, tries).await? {
                Found::Alive(_) => Some(Answer::Alive),
                // Its id says that this account knows it.
                Found::Unreadable(bad) if bad.id.is_some() => Some(Answer::Alive),
                Found::Unreadable(_) => None,
                Found::Gone => Some(Answer::Gone),
                Found::Unclear(why) => {
                    failure = Some(Box::new(why));
                    None
                }
            };
            answers.push(answer);
            // The first customer that it knows accepts it.
            if answer == Some(Answer::Alive) {
                break;
            }
        }
        match guard::verdict(&answers) {
            Verdict::Accept => {
                tracing::info!("a new key reads the same account; it is accepted");
                Ok(self.bind(salt, fingerprint).await?)
            }
            Verdict::Stop => {
                let at = time::written(self.clock.now());
                self.store.write(move |tx| account::stop(tx, &fingerprint, &at)).await?;
                Err(Failure::OtherAccount)
            }
            Verdict::AskLater => Err(Failure::AccountUnclear(failure)),
        }
    }

    async fn bind(&self, salt: Vec<u8>, fingerprint: Hash) -> Result<(), StoreError> {
        let at = time::written(self.clock.now());
        self.store.write(move |tx| account::bind(tx, &salt, &fingerprint, &at)).await
    }
}
