use std::collections::{BTreeMap, BTreeSet};

use protocol::Role;
use protocol::grubenv::{BootState, Trial};
use serde_json::json;

use super::*;
use crate::config::Reboot;
use crate::host_status::Disk;
use crate::install::Way;
use crate::record::{Checked, DataResult, Failure, HealthResult, Poll};
use crate::slot_content::{Content, Slots};

fn unknown_status() -> Status {
    Status {
        now: 1_790_000_000,
        running: None,
        image: None,
        disk: Err("needs root".into()),
        problem: None,
        policy: None,
        config: json!(null),
        records: Records::default(),
        next_poll: None,
    }
}

fn trial(slot: Slot, tries: u8) -> Option<Trial> {
    Some(Trial { slot, tries, release: "0123456789abcdef".parse().ok(), since: None })
}

fn full_status() -> Status {
    let poll = Poll {
        time: 1_789_000_000,
        outcome: "pending".into(),
        version: "13.2".into(),
        build: 2,
        cdn: "https://x".into(),
    };
    let health =
        HealthResult { time: 5, slot: Slot::A, state: HealthState::Healthy, problems: Vec::new() };
    let origin = FileOrigin { role: Role::Initrd, way: Way::Delta, bytes: 12, reason: None };
    Status {
        policy: Some(Reboot::Idle),
        problem: Some("x".into()),
        running: Some(Slot::A),
        image: Some("13\\\"1\n".into()),
        disk: Ok(Disk {
            slots: Slots { a: Content::Empty, b: Content::Empty },
            origins: [Vec::new(), vec![origin]],
            boot: BootState { trial: trial(Slot::B, 2), ..BootState::with_good(Slot::A) },
            grubenv_problem: None,
        }),
        records: Records {
            poll: Some(poll),
            error: Some(Failure::new(7, "update", "x")),
            health: Some(health),
            traffic: Traffic { fetched: 3, saved_by_copy: 4, saved_by_delta: 5 },
            checked: Some(Checked { time: 9, a: Some(true), b: Some(false) }),
            data: Some(DataResult {
                time: 11,
                mounted: true,
                device: None,
                file_system: None,
                encrypted: None,
                recovery_key: None,
                problems: Vec::new(),
            }),
            ..Records::default()
        },
        ..unknown_status()
    }
}

/// Parses the text format strictly: HELP and TYPE come before the samples, the samples of a metric are
/// together, no sample is repeated, and the text ends with a line feed.
fn samples(text: &str) -> BTreeMap<String, u64> {
    assert!(text.ends_with('\n') && !text.contains("\n\n"));
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let (mut found, mut declared) = (BTreeMap::new(), BTreeSet::new());
    let mut current = (String::new(), false);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(
                is_name(name) && !help.is_empty() && declared.insert(name.to_owned()),
                "{line}"
            );
            current = (name.to_owned(), false);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let kind = if current.0.ends_with("_total") { "counter" } else { "gauge" };
            assert_eq!(rest, format!("{} {kind}", current.0));
            current.1 = true;
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            assert_eq!((name, true), (current.0.as_str(), current.1), "{line}");
            if let Some(labels) = sample.strip_prefix(name).filter(|rest| !rest.is_empty()) {
                check_labels(labels);
            }
            assert!(found.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line}");
        }
    }
    assert!(found.keys().all(|sample| sample.starts_with("etchaos_")));
    found
}

/// Checks labels in the form `{name="value",…}`, with escaped quotes and backslashes.
fn check_labels(labels: &str) {
    let mut rest = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap();
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase()), "{labels}");
        let mut end = 0;
        while after.as_bytes()[end] != b'"' {
            end += if after.as_bytes()[end] == b'\\' { 2 } else { 1 };
        }
        match after[end + 1..].strip_prefix(',') {
            Some(more) => rest = more,
            None => return assert_eq!(&after[end + 1..], "", "{labels}"),
        }
    }
}

#[test]
fn writes_every_known_value() {
    let found = samples(&text(&full_status()));
    for (sample, value) in [
        ("etchaos_last_poll_timestamp_seconds", 1_789_000_000),
        ("etchaos_last_error_timestamp_seconds", 7),
        ("etchaos_update_available", 1),
        ("etchaos_reboot_outstanding", 1),
        ("etchaos_confirmed", 1),
        ("etchaos_healthy", 1),
        ("etchaos_trial_tries_left", 2),
        ("etchaos_failed_release", 0),
        ("etchaos_slot_whole{slot=\"a\"}", 1),
        ("etchaos_slot_whole{slot=\"b\"}", 0),
        (r#"etchaos_slot_fetched_bytes{slot="b",role="initrd",from="delta"}"#, 12),
        ("etchaos_fetched_bytes_total", 3),
        (r#"etchaos_saved_bytes_total{by="copy"}"#, 4),
        (r#"etchaos_saved_bytes_total{by="delta"}"#, 5),
        ("etchaos_verified_timestamp_seconds", 9),
        ("etchaos_config_broken", 1),
    ] {
        assert_eq!(found.get(sample), Some(&value), "{sample}");
    }
    let info = found.keys().find(|sample| sample.starts_with("etchaos_info{")).unwrap();
    assert!(info.contains(r#"version="13\\\"1\n",build="",slot="a""#), "{info}");
}

#[test]
fn maps_every_step_to_update_available() {
    let available = |outcome: &str| {
        let mut status = full_status();
        status.records.poll.as_mut().unwrap().outcome = outcome.into();
        samples(&text(&status)).get("etchaos_update_available").copied()
    };
    let expected = [
        ("upToDate", 0),
        // The update waits until the running release is confirmed, or for a newer release.
        ("unconfirmed", 0),
        ("failedBefore", 0),
        ("downgrade", 0),
        // The offered release is running already.
        ("withdraw", 0),
        ("install", 1),
        ("activate", 1),
        ("repair", 1),
        ("pending", 1),
        ("return", 1),
        // The release is installed and waits for a reboot.
        ("notTried", 1),
    ];
    for (outcome, value) in expected {
        assert_eq!(available(outcome), Some(value), "{outcome}");
    }
    assert_eq!(available("step of a newer version"), None);
    // The table above is complete.
    let names = include_str!("../commands/report.rs").split("fn step_name").nth(1).unwrap();
    let names: BTreeSet<_> = names.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(names, expected.map(|(outcome, _)| outcome).into());
}

#[test]
fn leaves_out_unknown_values() {
    let found = samples(&text(&unknown_status()));
    // Nothing has been fetched or saved yet.
    let is_known = |name: &&String| !name.ends_with("_total") && !name.contains("saved");
    assert_eq!(found.keys().filter(is_known).count(), 2, "{found:?}");
    assert_eq!(found["etchaos_fetched_bytes_total"], 0);
    assert_eq!(found["etchaos_written_timestamp_seconds"], 1_790_000_000);
}

#[test]
fn distinguishes_failed_release_from_trial() {
    let mut status = full_status();
    let failed = |status: &Status| samples(&text(status))["etchaos_failed_release"];
    let set = |status: &mut Status, slot, tries| {
        status.disk.as_mut().unwrap().boot.trial = trial(slot, tries);
    };
    set(&mut status, Slot::B, 0);
    assert_eq!(failed(&status), 1);
    assert_eq!(samples(&text(&status))["etchaos_reboot_outstanding"], 0);
    // This is the last try, and it is running.
    set(&mut status, Slot::A, 0);
    assert_eq!(failed(&status), 0);
}
