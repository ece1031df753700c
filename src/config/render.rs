//! The effective configuration as text, for `config show`: TOML again, which parses back to the
//! same configuration. The one exception is a proxy's user name and password, which are masked.

use std::fmt::Write as _;

use toml::Value;

use super::types::Config;

/// Writes every key, in the order of `config.example.toml`; what is not set becomes a comment.
pub(super) fn render(config: &Config) -> String {
    let Config { api, rate_limit, database, inbound, outbound, http, alerts, log } = config;
    let mut page = Page::default();

    page.table("api");
    page.key("base_url", text(&api.base_url));
    page.key("api_version", text(&api.api_version));
    page.optional("secret_key_file", api.secret_key_file.as_ref().map(|path| text(path.display())));
    page.key("per_page", api.per_page);
    page.key("max_concurrent_requests", api.max_concurrent_requests);
    page.key("request_timeout_s", api.request_timeout_s);
    page.optional("proxy", api.proxy.as_ref().map(text));

    page.table("rate_limit");
    page.key("requests_per_second", rate_limit.requests_per_second);
    page.key("burst", rate_limit.burst);

    page.table("database");
    page.key("path", text(database.path.display()));

    page.table("inbound");
    page.key("sweep_cron", text(&inbound.sweep_cron));
    page.key("probe_cron", text(&inbound.probe_cron));
    page.key("max_delete_count", inbound.max_delete_count);
    page.key("max_delete_percent", inbound.max_delete_percent);
    page.key("consistency_s", inbound.consistency_s);

    page.table("outbound");
    page.key("enabled", outbound.enabled);
    page.key("spool_dir", text(outbound.spool_dir.display()));
    page.key("hold_deletes_over", outbound.hold_deletes_over);
    page.key("park_after_h", outbound.park_after_h);
    page.optional("reconcile_tag", outbound.reconcile_tag.as_ref().map(text));

    page.table("http");
    page.optional("listen", http.listen.as_ref().map(text));

    page.table("alerts");
    page.optional("command", alerts.command.clone().map(Value::from));

    page.table("log");
    page.key("level", text(log.level));
    page.key("format", text(log.format));
    page.0
}

/// A TOML string, with the quotes and escapes it needs.
fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

/// The text so far. Writing to a string cannot fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn table(&mut self, name: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.0, "{gap}[{name}]");
    }

    fn key(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name} = {value}");
    }

    fn optional(&mut self, name: &str, value: Option<Value>) {
        match value {
            Some(value) => self.key(name, value),
            None => {
                let _ = writeln!(self.0, "# {name} is not set");
            }
        }
    }
}
