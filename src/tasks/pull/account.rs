//! The account guard: checks before each pass that the key reads the account of this mirror.

use super::requests::CustomerLookup;
use super::{Failure, Pull};
use crate::remote::Remote;
use crate::store::Tx;
use crate::store::log::mirror::LiveFilter;
use crate::store::state::account::{self, BoundAccount};
use komoju_core::plan::absence::LookupAnswer;
use komoju_core::plan::account::{AccountPlan, Binding, KNOWN_REQUESTED, KeyMatch};
use komoju_core::plan::retry::TRIES;
use komoju_core::time;

impl<R: Remote> Pull<R> {
    /// Checks the key, and binds a new key to the database once it is proven to read this account.
    ///
    /// # Errors
    /// The key reads another account, or it is not proven yet that it reads this one.
    pub(super) async fn check_account(&self) -> Result<(), Failure> {
        let (account, live) = self.read_mirror(|view| Ok((view.account()?, view.live_count()?))).await?;
        let salt = account.as_ref().map_or_else(|| rand::random::<[u8; 16]>().to_vec(), |a| a.salt.clone());
        let fingerprint = self.key.salted_fingerprint(&salt);
        let stopped = account.as_ref().and_then(|account| account.stopped.as_ref());
        let binding = Binding {
            bound: account.as_ref().map(|account| &account.fingerprint),
            refused: stopped.map(|(refused, _)| refused),
            live,
        };
        let bound_at = time::written(self.clock.now());
        let known = BoundAccount { salt, fingerprint, bound_at, stopped: None };
        match AccountPlan::new(binding, &fingerprint) {
            AccountPlan::Proceed => Ok(()),
            AccountPlan::Resume => {
                tracing::info!("the key is again the one that this database is bound to");
                Ok(self.note(account::resume).await?)
            }
            AccountPlan::TakeOver => {
                self.plan_account(known.clone());
                let take_over = move |tx: &Tx<'_>| {
                    account::take_over(tx, &known.salt, &known.fingerprint, &known.bound_at)
                };
                Ok(self.note(take_over).await?)
            }
            AccountPlan::RequestKnown => self.request_known(known, account).await,
            AccountPlan::Refuse => Err(Failure::OtherAccount),
        }
    }

    /// Requests customers of the mirror with a new key, until one exists. `known` is the account
    /// row for the new key, and `bound` is the current one.
    async fn request_known(&self, known: BoundAccount, bound: Option<BoundAccount>) -> Result<(), Failure> {
        let (mut answers, mut failure) = (Vec::new(), None);
        for id in self.random_live(KNOWN_REQUESTED, LiveFilter::All).await? {
            // After one failure the others get a single try.
            let tries = if failure.is_none() { TRIES } else { 1 };
            answers.push(match self.look_up(&id, tries).await? {
                CustomerLookup::Alive(_) => LookupAnswer::Exists,
                CustomerLookup::Unreadable(bad) if bad.id.is_some() => LookupAnswer::Unreadable,
                CustomerLookup::Unreadable(_) => LookupAnswer::Unclear,
                CustomerLookup::Gone => LookupAnswer::Gone,
                CustomerLookup::Unclear(why) => {
                    failure = Some(Box::new(why));
                    LookupAnswer::Unclear
                }
            });
            if KeyMatch::new(&answers) == KeyMatch::Same {
                break;
            }
        }
        match KeyMatch::new(&answers) {
            KeyMatch::Same => {
                tracing::info!("new key accepted: it reads the same account");
                self.plan_account(known.clone());
                let bind =
                    move |tx: &Tx<'_>| account::bind(tx, &known.salt, &known.fingerprint, &known.bound_at);
                Ok(self.note(bind).await?)
            }
            KeyMatch::Other => {
                let stopped = Some((known.fingerprint, known.bound_at.clone()));
                bound
                    .into_iter()
                    .for_each(|bound| self.plan_account(BoundAccount { stopped: stopped.clone(), ..bound }));
                self.note(move |tx| account::stop(tx, &known.fingerprint, &known.bound_at)).await?;
                Err(Failure::OtherAccount)
            }
            KeyMatch::Unknown => Err(Failure::AccountUnclear(failure)),
        }
    }
}
