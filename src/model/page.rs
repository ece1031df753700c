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
