//! One page of the customers list, as the remote answered it.

use jiff::Timestamp;

use super::Listed;

/// Which page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageQuery {
    /// From 1.
    pub page: u64,
    /// How many customers a page should hold; the answer says how many it does.
    pub per_page: u32,
    /// Only customers made at or after this moment.
    pub created_from: Option<Timestamp>,
}

/// A page of the customers created since a moment. It is usable whatever the envelope says: what is missing or has another form is
/// `None`, and customers that cannot be read are left out.
#[derive(Clone, Debug)]
pub struct WindowPage {
    /// How many customers the window holds.
    pub total: Option<u64>,
    /// How many pages it has.
    pub last_page: Option<u64>,
    /// The customers, in the answer's order.
    pub customers: Vec<Listed>,
}

impl From<Page> for WindowPage {
    fn from(Page { total, last_page, customers, .. }: Page) -> Self {
        Self { total: Some(total), last_page: Some(last_page), customers }
    }
}

/// A page whose form is right. Whether it can be believed is for [`crate::reconcile::paging`] to say.
#[derive(Clone, Debug)]
pub struct Page {
    /// Which page the answer says it is.
    pub page: u64,
    /// How many customers a full page holds.
    pub per_page: u64,
    /// How many customers the list holds.
    pub total: u64,
    /// How many pages the list has; 0 for an empty one.
    pub last_page: u64,
    /// The customers, in the answer's order.
    pub customers: Vec<Listed>,
}
