//! Permanent properties of KOMOJU, one reading a row: the first sweep mirrors every customer, the
//! next one records a deletion, and no living customer is deleted.
//!
//! Promises: invariant 3
//!
//! Longer than 400 lines because it is a table: each reading is one row with its test.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use komoju_sandbox::Readings;
use komoju_sandbox::readings::{
    Deleted, DeletedListed, LastPage, PastEnd, RateLimit, Refused, Repeated, Ties, Total,
};
use komoju_sync::clock::Clock as _;
use komoju_testkit::eventually;
use serde_json::json;

use crate::case::Case;
use crate::matrix::Ends::Complete;
use crate::matrix::Outbox::Done;
use crate::matrix::faults;

/// The number of customers with the same `created_at` and an unstable order: four pages.
const TIED: usize = 40;

/// The lag of reads, less than `consistency_s`.
const LAG: Duration = Duration::from_secs(90);

fn total(total: Total) -> Readings {
    Readings { total, ..Readings::default() }
}

fn last_page(last_page: LastPage) -> Readings {
    Readings { last_page, ..Readings::default() }
}

fn past_end(past_end: PastEnd) -> Readings {
    Readings { past_end, ..Readings::default() }
}

fn deleted(deleted: Deleted) -> Readings {
    Readings { deleted, ..Readings::default() }
}

fn lag(list_lag_s: u64, show_lag_s: u64) -> Readings {
    Readings { list_lag_s, show_lag_s, ..Readings::default() }
}

fn limit(refused: Refused, ban_s: u32) -> Readings {
    let per_second = NonZeroU32::new(2).unwrap();
    let rate_limit = Some(RateLimit { per_second, refused, retry_after: false, ban_s });
    Readings { rate_limit, ..Readings::default() }
}

faults![
    (
        total_too_high,
        "a total that is not exact",
        "`total` is 3 too high",
        Complete("total says 60, 57 are listed"),
        Done,
        |case| case.reads(),
        under total(Total::Off(3)),
    ),
    (
        total_too_low,
        "a total that is not exact",
        "`total` is 3 too low",
        Complete("total says 54, 57 are listed"),
        Done,
        |case| case.reads(),
        under total(Total::Off(-3)),
    ),
    (
        total_at_random,
        "a total that is not exact",
        "`total` is another number at each request, up to 20 % too high or too low",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.reads(),
        under total(Total::Random(20)),
    ),
    (
        no_total,
        "a total that is not exact",
        "there is no `total`",
        Complete("total is missing"),
        Done,
        |case| case.reads(),
        under total(Total::Missing),
    ),
    (
        every_total_as_text,
        "a total that is not exact",
        "`total` is text",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.reads(),
        under total(Total::Text),
    ),
    (
        last_page_by_a_larger_page,
        "a last_page that is not exact",
        "`last_page` counts pages of 25 customers, and pages have 10",
        Complete("last_page says 3, 6 pages show customers"),
        Done,
        |case| case.reads(),
        under last_page(LastPage::Divisor(NonZeroU64::new(25).unwrap())),
    ),
    (
        last_page_by_a_smaller_page,
        "a last_page that is not exact",
        "`last_page` counts pages of 5 customers, and pages have 10",
        Complete("last_page says 12, 6 pages show customers"),
        Done,
        |case| case.reads(),
        under last_page(LastPage::Divisor(NonZeroU64::new(5).unwrap())),
    ),
    (
        last_page_rounded_down,
        "a last_page that is not exact",
        "`last_page` does not count a last page that is not full",
        Complete("last_page says 5, 6 pages show customers"),
        Done,
        |case| case.reads(),
        under last_page(LastPage::Floor),
    ),
    (
        no_last_page,
        "a last_page that is not exact",
        "there is no `last_page`",
        Complete("last_page is missing"),
        Done,
        |case| case.reads(),
        under last_page(LastPage::Missing),
    ),
    (
        every_last_page_null,
        "a last_page that is not exact",
        "`last_page` is null",
        Complete("last_page is missing"),
        Done,
        |case| case.reads(),
        under last_page(LastPage::Null),
    ),
    (
        every_last_page_zero,
        "a last_page that is not exact",
        "`last_page` is 0",
        Complete("last_page says 0, 6 pages show customers"),
        Done,
        |case| case.reads(),
        under last_page(LastPage::Zero),
    ),
    (
        few_filtered_rows,
        "pages from which rows are filtered",
        "every tenth customer is left out of its page, and `total` counts it",
        Complete("pages before the last one are short"),
        Done,
        |case| case.filters(10, 6),
    ),
    (
        many_filtered_rows,
        "pages from which rows are filtered",
        "every fourth customer is left out of its page: more than a pass may delete",
        Complete("pages before the last one are short"),
        Done,
        |case| case.filters(4, 15),
    ),
    (
        unstable_ties,
        "an order that changes",
        "40 customers with the same `created_at` are in another order at each request",
        Complete("live"),
        Done,
        |case| case.mixes(),
        under Readings { ties: Ties::Unstable, ..Readings::default() },
    ),
    (
        repeated_rows,
        "a customer twice on a page",
        "each page shows one customer twice, and is one row longer",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.reads(),
        under Readings { repeated: Repeated::Added, ..Readings::default() },
    ),
    (
        repeated_rows_that_displace,
        "a customer twice on a page",
        "each page shows one customer twice, and another not at all",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            case.harness.sandbox.world().readings_mut().repeated = Repeated::Displacing;
            case.reads();
            // Each full page hides one customer. The deleted one is requested, too, and a canary.
            let asked = case.requested_alone(200);
            assert!((5..=7).contains(&asked), "{asked}");
        },
    ),
    (
        empty_page_past_the_end,
        "a page past the end",
        "the last page is full, and the next one has no customer",
        Complete("60 live, 2 deleted"),
        Done,
        |case| case.reads_past_the_end(),
        under past_end(PastEnd::Empty),
    ),
    (
        no_page_past_the_end,
        "a page past the end",
        "the last page is full, and the next one is answered 404",
        Complete("60 live, 2 deleted"),
        Done,
        |case| case.reads_past_the_end(),
        under past_end(PastEnd::NotFound),
    ),
    (
        last_page_past_the_end,
        "a page past the end",
        "the last page is full, and is also the answer to the next one",
        Complete("60 live, 2 deleted"),
        Done,
        |case| case.reads_past_the_end(),
        under past_end(PastEnd::LastPage),
    ),
    (
        lists_that_lag,
        "reads that lag",
        "lists are 90 seconds behind, and `consistency_s` is 120",
        Complete("live"),
        Done,
        |case| case.lags(1),
        under lag(LAG.as_secs(), 0),
    ),
    (
        shows_that_lag,
        "reads that lag",
        "single customers are 90 seconds behind, and `consistency_s` is 120",
        Complete("live"),
        Done,
        // A customer that answered 200 is not requested again for two sweeps.
        |case| case.lags(3),
        under lag(0, LAG.as_secs()),
    ),
    (
        all_reads_lag,
        "reads that lag",
        "all reads are 90 seconds behind, and `consistency_s` is 120",
        Complete("live"),
        Done,
        |case| case.lags(1),
        under lag(LAG.as_secs(), LAG.as_secs()),
    ),
    (
        deleted_as_404_with_another_code,
        "another answer for a deleted customer",
        "a deleted customer is answered 404 with the code `customer_deleted`",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.reads(),
        under deleted(Deleted::OtherCode),
    ),
    (
        deleted_as_410,
        "another answer for a deleted customer",
        "a deleted customer is answered 410",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.reads(),
        under deleted(Deleted::Gone),
    ),
    (
        deleted_as_200,
        "another answer for a deleted customer",
        "a deleted customer is answered 200 with `\"deleted\": true`",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.reads(),
        under deleted(Deleted::Flagged),
    ),
    (
        deleted_and_listed,
        "deleted customers in the list",
        "a deleted customer stays in the list with `\"deleted\": true`",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.reads(),
        under Readings { deleted_listed: DeletedListed::Flagged, ..Readings::default() },
    ),
    (
        deleted_listed_and_shown,
        "deleted customers in the list",
        "a deleted customer stays in the list, and is answered 200, both with `\"deleted\": true`",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.reads(),
        under Readings {
            deleted_listed: DeletedListed::Flagged,
            deleted: Deleted::Flagged,
            ..Readings::default()
        },
    ),
    (
        limit_of_two_a_second,
        "a limit of requests a second",
        "2 requests a second are accepted, the others are answered 429, and `requests_per_second` is 8",
        Complete("complete: "),
        Done,
        |case| case.is_limited(),
        under limit(Refused::Json429, 0),
    ),
    (
        limit_of_a_firewall,
        "a limit of requests a second",
        "2 requests a second are accepted, the others are answered 403 with a web page of the firewall",
        Complete("complete: "),
        Done,
        |case| case.is_limited(),
        under limit(Refused::Html403, 0),
    ),
    (
        ban_of_five_seconds,
        "a limit of requests a second",
        "after a 429 every request is refused for 5 seconds, and each request meanwhile restarts them",
        Complete("complete: "),
        Done,
        |case| case.is_limited(),
        under limit(Refused::Json429, 5),
    ),
];

impl Case {
    /// Runs passes of the real binary, because the limit counts real time. Some requests of the
    /// first pass were refused, and it mirrored all customers.
    fn is_limited(&mut self) {
        self.reading_is_active();
        self.harness.expect(0, &["sync"]);
        assert_eq!(self.deleted_by_passes(), 1);
        // A refused push is due later.
        eventually("each intent is done", || {
            let ran = self.harness.expect(0, &["sync"]);
            let is_done = self.states() == ["done"; 3];
            if is_done {
                self.conclude(ran.code, &ran.stderr);
            }
            is_done
        });
        self.harness.assert_true();
    }

    /// Adds evidence that the reading is active.
    fn reading_is_active(&mut self) {
        self.fired_when(|harness| u64::from(*harness.sandbox.world().readings_mut() != Readings::default()));
    }

    /// Runs one sweep after the changes. Asserts that the mirror is exact and that the sweep
    /// recorded the deletion.
    fn reads(&mut self) {
        self.reading_is_active();
        self.sweeps();
    }

    fn sweeps(&mut self) {
        self.endure();
        self.harness.assert_true();
        assert_eq!(self.deleted_by_passes(), 1);
    }

    /// Hides one customer in this number from every page, from now on.
    fn filters(&mut self, every: u32, hidden: usize) {
        self.harness.sandbox.world().readings_mut().filtered_every = NonZeroU32::new(every);
        self.reads();
        let asked = self.requested_alone(200);
        // The deleted customer may be one of the hidden ones. A canary is requested, too, which may
        // be any listed customer.
        assert!((hidden..=hidden + 1).contains(&asked), "{asked}");
        self.fired_when(move |harness| harness.one("SELECT count(*) FROM unlisted").parse().unwrap());
    }

    /// Adds customers with the same `created_at`. At most three sweeps mirror them all, and at most
    /// three record the deletion of one.
    fn mixes(&mut self) {
        self.reading_is_active();
        let tied: Vec<String> = (0..TIED).map(|n| format!("tied-{n}")).collect();
        for id in &tied {
            let customer = json!({"id": id, "resource": "customer", "created_at": "2026-01-02T03:04:05Z"});
            self.harness.sandbox.world().put_raw(customer);
        }
        self.endure_until_true(3);
        // The state that was recorded of this customer was right.
        self.list_moves();
        assert!(self.harness.sandbox.world().delete(&tied[7]));
        self.endure_until_true(3);
        assert_eq!(self.deleted_by_passes(), 2);
    }

    /// Sweeps until the mirror is exact, at most this often.
    fn endure_until_true(&mut self, most: usize) {
        for _ in 0..most {
            self.endure();
            if self.harness.mirror() == self.harness.sandbox.world().truth() {
                break;
            }
        }
        self.harness.assert_true();
    }

    /// Fills the list to six full pages.
    fn reads_past_the_end(&mut self) {
        for n in 0..3 {
            self.harness.sandbox.world().create(json!({"email": format!("full-{n}@example.com")}));
        }
        self.sweeps();
        self.fired_when(|harness| {
            harness.sandbox.world().requests().iter().filter(|seen| seen.page == Some(7)).count() as u64
        });
    }

    /// Advances the clocks here and at KOMOJU.
    fn wait(&self, time: Duration) {
        self.clock.advance(time);
        self.harness.sandbox.world().advance(time);
    }

    /// Asserts that sweeps within the lag record no outdated read. The next sweep records a
    /// deletion that is older than the lag. The deletion that was swept within the lag is recorded
    /// after this number of sweeps.
    fn lags(&mut self, sweeps: usize) {
        self.reading_is_active();
        self.configure("consistency_s = 0", "consistency_s = 120");
        // The changes are some milliseconds old. The first sweep pushes the intents, and the second
        // gets reads that are older than the pushes.
        for _ in 0..2 {
            self.endure();
            assert_eq!(self.deleted_by_passes(), 0);
            self.harness.sandbox.world().advance(Duration::from_secs(1));
        }
        let second = self.harness.mirror().into_keys().find(|id| {
            let is_live = self.harness.sandbox.world().get(id).is_some();
            is_live && self.is_old_without_intent(id)
        });
        assert!(self.harness.sandbox.world().delete(&second.clone().unwrap()));
        self.wait(LAG + Duration::from_secs(60));
        let now = self.clock.now();
        assert!(self.harness.sandbox.world().now() > now, "KOMOJU's clock is ahead");
        self.endure();
        assert!(!self.harness.mirror().contains_key(&second.unwrap()), "a deletion older than the lag");
        if sweeps > 1 {
            self.endure_until_true(sweeps - 1);
        }
        self.harness.assert_true();
        assert_eq!(self.deleted_by_passes(), 2);
        self.wait(LAG + Duration::from_secs(60));
    }
}
