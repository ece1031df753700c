//! A page of the list on which a customer is not JSON: invalid UTF-8, a control character in a string, `NaN`.
//!
//! The parser refuses the whole page for it. Here the envelope must still be whole, with nothing after it; only what
//! stands in one customer may be anything.

use serde_json::value::RawValue;

use super::{Data, Envelope, Item};
use komoju_core::json::scan::{self, End};

/// The envelope of a page; `None` where the page as a whole is no JSON object.
pub(super) fn envelope(bytes: &[u8]) -> Option<Envelope> {
    let mut envelope = Envelope::default();
    if !scan::is_object(bytes) {
        return None;
    }
    for part in scan::members(bytes) {
        let is = |name: &str| scan::spells(part.key, name);
        if is("data") {
            envelope.data = Some(data(part.value)?);
        } else {
            let value = raw(part.value).ok()?;
            match () {
                () if is("page") => envelope.page = Some(value),
                () if is("per_page") => envelope.per_page = Some(value),
                () if is("total") => envelope.total = Some(value),
                () if is("last_page") => envelope.last_page = Some(value),
                () => {}
            }
        }
    }
    Some(envelope)
}

fn data(list: &[u8]) -> Option<Data> {
    let mut walk = scan::items(list);
    let item = |bytes: &[u8]| match raw(bytes) {
        Ok(text) => Item::Json(text),
        Err(why) => Item::NotJson { bytes: bytes.to_owned(), why },
    };
    let items = walk.by_ref().map(|part| item(part.value)).collect();
    matches!(walk.end(), Some(End::Closed(_))).then_some(Data::Mixed(items))
}

fn raw(bytes: &[u8]) -> Result<Box<RawValue>, String> {
    serde_json::from_slice(bytes).map_err(|why| why.to_string())
}
