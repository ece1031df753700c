//! The tasks that send the deliveries of webhooks, one task for each webhook.

use std::sync::Arc;

use crate::server::SandboxServer;
use crate::webhooks::NextAttempt;
use crate::world::NewWebhook;

/// Starts the task of each new webhook until the stop.
pub(crate) async fn attend(server: Arc<SandboxServer>) {
    let registered = server.world().webhook_signal();
    let attend = async {
        loop {
            let new = server.world().take_new_webhooks();
            for webhook in new {
                let deliver = deliver(Arc::clone(&server), webhook);
                let stop = server.stop.clone();
                server.tasks.spawn(async move { stop.run_until_cancelled(deliver).await });
            }
            registered.notified().await;
        }
    };
    server.stop.run_until_cancelled(attend).await;
}

/// Sends the deliveries of one webhook, one after another, until it is removed.
async fn deliver(server: Arc<SandboxServer>, webhook: NewWebhook) {
    let NewWebhook { account, id, wake } = webhook;
    loop {
        // A guard in the head of the `match` would lock the world during the attempt.
        let next = server.world().next_attempt(account, id);
        match next {
            NextAttempt::Now(attempt) => {
                let result = attempt.send().await;
                server.world().finish_attempt(account, id, attempt.number, result);
            }
            NextAttempt::At(at) => tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = wake.notified() => {}
            },
            NextAttempt::Idle => wake.notified().await,
            NextAttempt::Removed => return,
        }
    }
}
