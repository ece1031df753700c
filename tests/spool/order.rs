//! Files are accepted in drop order, by one process.

use super::*;

const UPDATE: &str = r#"{"op": "update", "customer_id": "c", "body": {"email": "a@example.jp"}, "id": "ID"}"#;

fn update(id: &str) -> String {
    UPDATE.replace("ID", id)
}

/// Waits until a file written now has a later time than this one.
fn drop_later(desk: &Desk, name: &str, than: &str, content: &str) {
    loop {
        desk.drop_file(&format!(".{name}"), content);
        fs::rename(desk.at(&format!(".{name}")), desk.at(name)).unwrap();
        if touched(&desk.at(name)) > touched(&desk.at(than)) {
            break;
        }
    }
}

#[tokio::test]
async fn a_file_renamed_into_place_waits_for_an_older_one_written_in_place() {
    let desk = Desk::open().await;
    desk.drop_file("old.json", update("old"));
    drop_later(&desk, "new.json", "old.json", &update("new"));
    desk.clock.set_wall(touched(&desk.at("new.json")));
    let looked = desk.spool.take(&["new.json".to_owned()]).await.unwrap();
    assert_eq!((looked.taken, looked.left), (0, vec![]));
    let wait = looked.again_in.unwrap();
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    desk.clock.advance(wait);
    desk.scan().await;
    desk.clock.advance(Duration::from_secs(1));
    desk.scan().await;
    assert_eq!(desk.ids(), ["old", "new"]);
}

#[tokio::test]
async fn a_file_that_is_still_being_written_delays_younger_ones_for_ten_seconds() {
    let desk = Desk::open().await;
    let second = Duration::from_secs(1);
    desk.drop_file("growing.jsonl", "x");
    desk.clock.set_wall(touched(&desk.at("growing.jsonl")) - HOUR);
    desk.scan().await;
    drop_later(&desk, "new.json", "growing.jsonl", &update("new"));
    for elapsed in 1..=10 {
        desk.drop_file("growing.jsonl", "x".repeat(elapsed + 1));
        desk.clock.advance(second);
        let looked = desk.spool.take(&["new.json".to_owned()]).await.unwrap();
        assert_eq!(looked.taken, u64::from(elapsed == 10), "after {elapsed} s");
        assert!(looked.again_in.is_some());
    }
    assert_eq!((desk.ids(), desk.at("growing.jsonl").exists()), (vec!["new".to_owned()], true));
    // It keeps its place: one that is complete within that time comes first.
    let desk = Desk::open().await;
    desk.drop_file("growing.jsonl", "");
    desk.clock.set_wall(touched(&desk.at("growing.jsonl")) - HOUR);
    desk.scan().await;
    drop_later(&desk, "new.json", "growing.jsonl", &update("new"));
    for _ in 0..3 {
        desk.clock.advance(second);
        desk.drop_file("growing.jsonl", update("grown") + &" ".repeat(desk.ids().len()));
        desk.spool.take(&["new.json".to_owned()]).await.unwrap();
    }
    for _ in 0..2 {
        desk.clock.advance(second);
        desk.scan().await;
    }
    assert_eq!(desk.ids(), ["grown", "new"]);
}

#[tokio::test]
async fn several_files_that_are_still_being_written_delay_younger_ones_no_longer_than_one() {
    let desk = Desk::open().await;
    let second = Duration::from_secs(1);
    let growing = ["growing-1.jsonl", "growing-2.jsonl", "growing-3.jsonl"];
    growing.iter().for_each(|name| desk.drop_file(name, "x"));
    desk.clock.set_wall(touched(&desk.at(growing[2])) - HOUR);
    desk.scan().await;
    drop_later(&desk, "new.json", growing[2], &update("new"));
    for elapsed in 1..=10 {
        growing.iter().for_each(|name| desk.drop_file(name, "x".repeat(elapsed + 1)));
        desk.clock.advance(second);
        let looked = desk.spool.take(&["new.json".to_owned()]).await.unwrap();
        assert_eq!(looked.taken, u64::from(elapsed == 10), "after {elapsed} s");
    }
    assert_eq!(desk.ids(), ["new"]);
}

#[tokio::test]
async fn of_two_daemons_on_one_directory_the_second_takes_nothing() {
    let first = Desk::open().await;
    let second = Desk::with(true);
    let settings = SpoolSettings { dir: first.at(""), enabled: true };
    let other = Spool::new(Arc::clone(&second.store), None, Arc::clone(&second.clock) as Arc<_>, settings);
    for n in 0..20 {
        first.drop_file(&format!("{n}.json"), CREATE);
    }
    let (one, two) = tokio::join!(first.spool.scan(), other.scan());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.taken, two.taken, first.ids().len(), second.ids().len()), (20, 0, 20, 0));
    let why = &two.left[0].why;
    assert!(why.contains("another komoju-sync") && why.contains("its own outbound.spool_dir"), "{why}");
    let recorded = |desk: &Desk| -> Option<String> {
        desk.sql().query_row("SELECT spool_problem FROM meta", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((recorded(&first), recorded(&second)), (None, Some(why.clone())));
    drop(first.spool);
    fs::write(first.home.path().join("intents/late.json"), CREATE).unwrap();
    assert_eq!((other.scan().await.unwrap().taken, recorded(&second)), (1, None));
}

#[tokio::test]
async fn from_a_directory_of_another_user_nothing_is_taken() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", CREATE);
    let mut desk = desk;
    desk.restart();
    if std::os::unix::fs::chown(desk.at(""), Some(12_345), None).is_err() {
        // Only root gives directories away.
        return;
    }
    let looked = desk.scan().await;
    assert_eq!((looked.taken, looked.left.len()), (0, 1));
    assert!(looked.left[0].why.contains("`chown root "), "{looked:?}");
    assert!(desk.at("a.json").exists());
    std::os::unix::fs::chown(desk.at(""), Some(0), None).unwrap();
    assert_eq!(desk.scan().await.taken, 1);
}
