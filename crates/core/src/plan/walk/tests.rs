use super::*;

fn exact(total: u64, per_page: u64) -> Hints {
    let last_page = Some(total.div_ceil(per_page));
    Hints { page: None, per_page: Some(per_page), total: Some(total), last_page }
}

/// Walks through pages of `(rows, new)`. Returns the last page read, why the walk ended, and the
/// report.
fn walk(hints: Hints, live: u64, pages: &[(u64, u64)]) -> (u64, WalkEnd, ListReport) {
    let mut walk = ListWalk::new(live, hints.per_page.unwrap_or(100));
    let (mut number, mut seen) = (1, 0);
    loop {
        let (rows, new) = pages.get(number as usize - 1).copied().unwrap_or_default();
        seen += new;
        match walk.add_page(AppliedPage { number, hints, rows, new, seen, all_live_seen: seen >= live }) {
            WalkStep::Read(next) => number = next,
            WalkStep::End(end) => return (number, end, walk.report()),
        }
    }
}

fn rows(pages: &[u64]) -> Vec<(u64, u64)> {
    pages.iter().map(|rows| (*rows, *rows)).collect()
}

#[test]
fn exact_list_is_read_to_its_last_page_and_a_full_last_page_costs_one_more() {
    let exact_walk = |total, pages: &[u64]| {
        let (read, end, report) = walk(exact(total, 100), total, &rows(pages));
        assert_eq!(report.phrases(), Vec::<String>::new());
        (read, end)
    };
    assert_eq!(exact_walk(250, &[100, 100, 50]), (3, WalkEnd::LastPage));
    assert_eq!(exact_walk(200, &[100, 100]), (3, WalkEnd::LastPage));
    assert_eq!(exact_walk(0, &[]), (1, WalkEnd::LastPage));
    assert_eq!(exact_walk(1, &[1]), (1, WalkEnd::LastPage));
    let one_empty_page = Hints { last_page: Some(1), ..exact(0, 100) };
    assert_eq!(walk(one_empty_page, 0, &[]).1, WalkEnd::LastPage);
    let two_empty_pages = Hints { last_page: Some(2), ..exact(0, 100) };
    assert_eq!(walk(two_empty_pages, 0, &[]).1, WalkEnd::Barren);
}

#[test]
fn wrong_hint_costs_at_most_three_pages_and_is_reported() {
    let list = rows(&[100, 100, 50]);
    let with = |change: fn(&mut Hints)| {
        let mut hints = exact(250, 100);
        change(&mut hints);
        let (read, end, report) = walk(hints, 250, &list);
        (read, end, report.phrases().join("; "))
    };
    type Change = fn(&mut Hints);
    let cases: [(Change, u64, WalkEnd, &str); 9] = [
        (|hints| hints.total = Some(253), 4, WalkEnd::Barren, "total says 253, 250 are listed"),
        (|hints| hints.total = Some(247), 4, WalkEnd::Barren, "total says 247, 250 are listed"),
        (|hints| hints.total = None, 4, WalkEnd::Barren, "total is missing"),
        (
            |hints| hints.last_page = Some(25),
            6,
            WalkEnd::BarrenPages,
            "last_page says 25, 3 pages show customers",
        ),
        (|hints| hints.last_page = Some(2), 4, WalkEnd::Barren, "last_page says 2, 3 pages show customers"),
        (|hints| hints.last_page = None, 4, WalkEnd::Barren, "last_page is missing"),
        (|hints| hints.last_page = Some(0), 4, WalkEnd::Barren, "last_page says 0, 3 pages show customers"),
        (|hints| hints.per_page = None, 4, WalkEnd::Barren, ""),
        (|hints| *hints = Hints::default(), 4, WalkEnd::Barren, "total is missing; last_page is missing"),
    ];
    for (change, read, end, phrases) in cases {
        assert_eq!(with(change), (read, end, phrases.to_owned()));
    }
}

#[test]
fn page_of_another_number_is_not_the_last_one() {
    let mut hints = exact(50, 100);
    hints.page = Some(7);
    assert_eq!(walk(hints, 50, &rows(&[50])).1, WalkEnd::Barren);
}

#[test]
fn barren_page_does_not_end_a_walk_that_misses_a_live_customer() {
    // Page 2 is filtered out completely; page 3 is not.
    let list = [(100, 100), (0, 0), (0, 0), (30, 30)];
    assert_eq!(walk(Hints::default(), 130, &list).0, 5);
    assert_eq!(walk(Hints::default(), 131, &list), {
        let (_, _, report) = walk(Hints::default(), 131, &list);
        (7, WalkEnd::BarrenPages, report)
    });
    assert_eq!(walk(Hints::default(), 100, &list).0, 2, "no live customer is known, so none is missing");
}

#[test]
fn pages_that_repeat_customers_end_a_walk_and_a_repeated_first_page_is_reported() {
    let mut hints = exact(250, 100);
    hints.last_page = Some(3);
    let pages = [(100, 100), (100, 0), (100, 0), (100, 0), (100, 0)];
    assert_eq!(walk(hints, 101, &pages).0, 4, "a live customer was not seen");
    let (read, end, report) = walk(hints, 0, &pages);
    assert_eq!((read, end, report.ignores_page), (3, WalkEnd::Barren, true));
    let (.., report) = walk(exact(100, 100), 0, &[(100, 100), (100, 0)]);
    assert!(!report.ignores_page, "total promises no more");
    let (.., report) = walk(exact(500, 100), 0, &[(100, 100), (100, 100), (100, 0)]);
    assert!(!report.ignores_page, "page 2 shows other customers");
}

#[test]
fn walk_of_an_endless_list_ends() {
    let endless = vec![(100, 100); 200];
    let (read, end, report) = walk(exact(250, 100), 0, &endless);
    assert_eq!((read, end, report.grows), (26, WalkEnd::Growing, true));
    assert_eq!(
        walk(exact(250, 100), 4000, &endless).0,
        100,
        "the known number of customers is read in any case"
    );
}

#[test]
fn short_pages_before_the_last_one_are_counted() {
    let (.., report) = walk(exact(300, 100), 0, &rows(&[90, 100, 80, 5]));
    assert_eq!((report.short_pages, report.pages), (2, 4));
    assert!(report.phrases().contains(&"2 pages before the last one are short".to_owned()));
}

#[test]
fn wrong_hint_of_one_page_and_an_erratic_total_are_reported() {
    let reported = |totals: &[Option<u64>], last_pages: &[Option<u64>]| {
        let mut walk = ListWalk::new(0, 100);
        for (number, (total, last_page)) in (1..).zip(totals.iter().zip(last_pages)) {
            let hints = Hints { page: None, per_page: Some(100), total: *total, last_page: *last_page };
            walk.add_page(AppliedPage {
                number,
                hints,
                rows: 100,
                new: 100,
                seen: 100 * number,
                all_live_seen: true,
            });
        }
        walk.report().phrases().join("; ")
    };
    let four = [Some(400); 4];
    let pages = [Some(4); 4];
    assert_eq!(reported(&four, &pages), "");
    assert_eq!(reported(&[Some(400), None, Some(400), Some(400)], &pages), "total is missing");
    assert_eq!(reported(&four, &[Some(4), None, Some(4), Some(4)]), "last_page is missing");
    let contradicts = reported(&four, &[Some(4), Some(9), Some(4), Some(4)]);
    assert_eq!(contradicts, "last_page says 9 where total makes 4 pages");
    let erratic = [Some(395), Some(400), Some(390), Some(396), Some(391)];
    assert_eq!(reported(&erratic, &[Some(4); 5]), "total rises and falls from page to page");
}

#[test]
fn moving_total_is_not_reported_as_imprecise() {
    let mut walk = ListWalk::new(0, 100);
    for (number, total) in [(1, 150), (2, 149)] {
        let rows = if number == 1 { 100 } else { 49 };
        walk.add_page(AppliedPage {
            number,
            hints: exact(total, 100),
            rows,
            new: rows,
            seen: 150,
            all_live_seen: true,
        });
    }
    assert_eq!(walk.report().phrases(), Vec::<String>::new());
}

#[test]
fn list_is_read_again_only_if_that_may_help() {
    let over = RoundResult {
        round: 1,
        seen: 282,
        new: 282,
        total: Some(350),
        grows: false,
        fits: true,
        vain_sweeps: 0,
        sweep: 7,
    };
    assert!(read_again(over));
    assert!(read_again(RoundResult { round: 2, seen: 340, new: 58, ..over }));
    assert!(read_again(RoundResult { vain_sweeps: 1, ..over }));
    assert!(read_again(RoundResult { vain_sweeps: 9, sweep: 24, ..over }), "every twelfth sweep");
    for no in [
        RoundResult { seen: 350, ..over },
        RoundResult { seen: 351, ..over },
        RoundResult { total: None, ..over },
        RoundResult { round: 2, new: 0, ..over },
        RoundResult { round: 3, new: 9, ..over },
        RoundResult { grows: true, ..over },
        RoundResult { fits: false, ..over },
        RoundResult { vain_sweeps: 2, ..over },
    ] {
        assert!(!read_again(no), "{no:?}");
    }
}

#[test]
fn walk_step_prints_one_sentence() {
    assert_eq!(WalkStep::Read(3).to_string(), "read page 3");
    assert_eq!(WalkStep::End(WalkEnd::NoSuchPage).to_string(), "end of the list: the API has no such page");
}
