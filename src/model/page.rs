//! One page of the customers list, as the remote answered it.

use jiff::Timestamp;

use super::{Listed, Unreadable};

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
/// `None`, and customers that cannot be read are only counted.
#[derive(Clone, Debug)]
pub struct WindowPage {
    /// How many customers the window holds.
    pub total: Option<u64>,
    /// How many pages it has.
    pub last_page: Option<u64>,
    /// The customers that can be read, in the answer's order.
    pub customers: Vec<Listed>,
    /// How many cannot be read.
    pub unreadable: u64,
}

impl From<Page> for WindowPage {
    fn from(Page { total, last_page, customers, unreadable, .. }: Page) -> Self {
        let unreadable = unreadable.len() as u64;
        Self { total: Some(total), last_page: Some(last_page), customers, unreadable }
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
    /// The customers that can be read, in the answer's order.
    pub customers: Vec<Listed>,
    /// The customers that cannot be read, each with its position.
    pub unreadable: Vec<Unreadable>,
}

impl Page {
    /// How many customers the page shows, the unreadable ones included.
    pub fn len(&self) -> u64 {
        (self.customers.len() + self.unreadable.len()) as u64
    }

    /// Whether the page shows no customer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
