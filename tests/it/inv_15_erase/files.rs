//! Spool files, receipts and copies beside the database.

use serde_json::{Value, json};

use super::{EraseCase, VALUES, assert_nowhere, files, receipt};

#[test]
fn erasure_removes_own_spool_files_and_names_shared_ones() {
    let case = EraseCase::live(3);
    let (harness, id) = (&case.harness, case.id.as_str());
    let spool = harness.path("spool");
    std::fs::create_dir_all(&spool).unwrap();
    let drop_file = |name: &str, content: &str| std::fs::write(spool.join(name), content).unwrap();
    let update = |customer: &str, body: Value| {
        json!({"op": "update", "customer_id": customer, "body": body}).to_string()
    };
    // Accepted: a file of this customer, one named by its email, one with another customer's
    // intent.
    let other = harness.sandbox.world().ids().into_iter().find(|other| other != id).unwrap();
    // Another customer has "standard" too, so this value does not identify the customer.
    harness.sandbox.world().update(&other, json!({"metadata": {"plan": "standard"}}));
    drop_file("mine.json", &update(id, json!({"metadata": {"tel": VALUES[4]}})));
    drop_file(&format!("{}.json", VALUES[0]), &update(id, json!({"metadata": {"k": "v"}})));
    drop_file(
        "both.jsonl",
        &format!(
            "{}\n{}\n",
            update(id, json!({"email": VALUES[2]})),
            update(&other, json!({"metadata": {"k": "v"}}))
        ),
    );
    // Refused because of a misspelt field.
    let bad = |email: &str| json!({"op": "update", "customer_id": id, "body": {"emial": email}}).to_string();
    drop_file("bad.json", &bad(VALUES[2]));
    drop_file(
        "bad-create.json",
        &json!({"op": "create", "x": 1, "body": {"email": VALUES[0]}}).to_string().replace('@', "\\u0040"),
    );
    drop_file("bad-theirs.jsonl", &format!("{}\n\n{}\n", bad(VALUES[2]), bad(VALUES[1])));
    drop_file(
        "bad-others.jsonl",
        &format!("{}\n{}\n", bad(VALUES[2]), update(&other, json!({"emial": "x"}))),
    );
    drop_file("bad-other.json", &update(&other, json!({"emial": "standard"})));
    drop_file(
        "broken.json",
        &format!("{{\"op\": \"create\", \"body\": {{\"email\": \"{}\"", VALUES[0].to_uppercase()),
    );
    harness.expect(0, &["sync"]);
    harness.run(&["sync"]);
    assert_eq!(files(&spool.join("rejected")).len(), 12);
    assert_eq!(files(&spool.join("receipts")).len(), 3);
    case.delete();
    drop_file(".half", VALUES[3]);

    let ran = harness.expect(3, &["erase", id, "--json"]);
    let report = receipt(&ran.stdout);
    assert_eq!((&report["files_removed"], &report["files_rewritten"]), (&json!(4), &json!(2)), "{report}");
    let mut left: Vec<String> = report["left"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| {
            left["what"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .trim_end_matches(|c: char| c == ' ' || c.is_ascii_digit())
                .to_owned()
        })
        .collect();
    left.sort();
    // The id that contains the name of the second file stays, so it is named too.
    assert_eq!(left, [".half", "bad-others.jsonl", "broken.json", "intent at position"], "{report}");
    let mut kept: Vec<String> = files(&spool)
        .iter()
        .map(|path| path.strip_prefix(&spool).unwrap().to_string_lossy().into_owned())
        .collect();
    kept.sort();
    assert_eq!(
        kept,
        [
            ".half",
            "receipts/both.jsonl.json",
            "receipts/mine.json.json",
            "rejected/bad-other.json",
            "rejected/bad-other.json.error",
            "rejected/bad-others.jsonl",
            "rejected/bad-others.jsonl.error",
            "rejected/broken.json",
            "rejected/broken.json.error",
        ]
    );
    let receipt = std::fs::read_to_string(spool.join("receipts/both.jsonl.json")).unwrap();
    assert!(receipt.contains("erased with its customer") && receipt.contains(&other), "{receipt}");
    harness.expect(0, &["verify"]);
}

#[test]
fn erase_does_not_follow_a_symlink_in_place_of_a_spool_directory() {
    let case = EraseCase::live(3);
    let (harness, id) = (&case.harness, case.id.as_str());
    case.delete();
    let spool = harness.path("spool");
    std::fs::create_dir(harness.path("elsewhere")).unwrap();
    let refused = json!({"op": "update", "customer_id": id, "body": {"emial": "x"}}).to_string();
    let claim = spool.join(".claimed/000000000001.000000000.00000001");
    for name in ["rejected", "receipts", ".claimed"] {
        std::fs::remove_dir_all(spool.join(name)).unwrap();
        std::os::unix::fs::symlink(harness.path("elsewhere"), spool.join(name)).unwrap();
        std::fs::write(harness.path("elsewhere/a.json"), &refused).unwrap();
        let report = receipt(&harness.expect(3, &["erase", id, "--json"]).stdout);
        let left = report["left"].as_array().unwrap();
        let is_named = |left: &Value| {
            left["what"].as_str().unwrap().ends_with(&format!("spool/{name}"))
                && left["why"].as_str().unwrap().contains("is a symbolic link")
        };
        assert!(left.iter().any(is_named), "{report}");
        assert_eq!(std::fs::read_to_string(harness.path("elsewhere/a.json")).unwrap(), refused);
        std::fs::remove_file(spool.join(name)).unwrap();
        std::fs::create_dir(spool.join(name)).unwrap();
    }
    // A claimed file is named too.
    std::fs::create_dir(&claim).unwrap();
    std::fs::write(claim.join("b.json"), &refused).unwrap();
    let report = receipt(&harness.expect(3, &["erase", id, "--json"]).stdout);
    let why = "it names this customer and is being accepted";
    assert!(
        report["left"].as_array().unwrap().iter().any(|left| left["why"].as_str().unwrap().starts_with(why)),
        "{report}"
    );
}

#[test]
fn erasure_removes_or_names_copies_beside_the_database() {
    let case = EraseCase::deleted(3);
    let harness = &case.harness;
    for name in [".komoju-sync-restore-left", ".komoju-sync-backup-left", "backups"] {
        std::fs::create_dir(harness.path(name)).unwrap();
        std::fs::copy(harness.path("komoju.db"), harness.path(name).join("copy.db")).unwrap();
    }
    std::fs::copy(harness.path("komoju.db"), harness.path("komoju.db.before-restore-then")).unwrap();
    let report = case.erase(3);
    let left: Vec<String> =
        report["left"].as_array().unwrap().iter().map(|left| left["what"].to_string()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(
        left[0].contains("komoju.db.before-restore-then") && left[1].contains("backups/copy.db"),
        "{left:?}"
    );
    for name in [".komoju-sync-restore-left", ".komoju-sync-backup-left"] {
        assert!(!harness.path(name).exists(), "{name}");
    }
    assert!(report["note"].as_str().unwrap().contains("SHA-256"));
    std::fs::remove_file(harness.path("komoju.db.before-restore-then")).unwrap();
    std::fs::remove_dir_all(harness.path("backups")).unwrap();
    case.erase(0);
    assert_nowhere(harness);
}

#[test]
fn claim_that_cannot_be_searched_is_named() {
    use std::os::unix::fs::PermissionsExt as _;

    let case = EraseCase::deleted(3);
    let claim = case.harness.path("spool/.claimed/000000000001.000000000.00000001");
    std::fs::create_dir_all(&claim).unwrap();
    let set_mode = |mode| {
        std::fs::set_permissions(&claim, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o000);
    if std::fs::read_dir(&claim).is_ok() {
        // Root may read any directory.
        return;
    }
    let report = case.erase(3);
    set_mode(0o700);
    let left = &report["left"][0];
    assert!(left["what"].as_str().unwrap().ends_with("000000000001.000000000.00000001"), "{report}");
    assert!(left["why"].as_str().unwrap().contains("could not be searched"), "{report}");
}
