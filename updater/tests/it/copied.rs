//! Files that the running slot holds, which are copied instead of downloaded.

use std::fs;

use protocol::esp::Slot::{A, B};
use protocol::{Artifact, Release, Role};

use crate::server::{End, Reply};
use crate::world::{World, content, release};

/// Returns release 2 with the kernel of release 1.
fn release_with_the_same_kernel() -> Release {
    let mut next = release(2);
    next.artifacts[0] = Artifact { url: "2.vmlinuz".into(), ..release(1).artifacts[0].clone() };
    next
}

/// Asserts that slot b holds the release of [`release_with_the_same_kernel`].
fn assert_same_kernel_in_slot_b(world: &World) {
    let file = |name: &str| fs::read(world.esp(&format!("etchaos/b/{name}"))).unwrap();
    assert!(file("vmlinuz") == content(Role::Kernel, 1), "vmlinuz");
    assert!(file("initrd") == content(Role::Initrd, 2), "initrd");
    assert_eq!(world.boots(), (A, Some((B, 3))));
}

#[test]
fn copies_a_file_that_the_running_slot_holds() {
    let world = World::new();
    world.publish(2);
    // The CDN need not even have it.
    world.cdn.remove("/2.vmlinuz");
    world.publish_manifest(&release_with_the_same_kernel());
    world.run(&["update"]).ended(0);
    assert_same_kernel_in_slot_b(&world);
    assert!(!world.cdn.requests().iter().any(|request| request.contains("vmlinuz")));

    // A copy that was interrupted is resumed.
    let world = World::new();
    world.publish(2);
    world.publish_manifest(&release_with_the_same_kernel());
    world.cdn.put("/2.initrd", Reply::ok(content(Role::Initrd, 2)).cut(9, End::Close));
    world.run(&["update"]).ended(1);
    let kernel = world.esp("etchaos/b/vmlinuz");
    fs::write(&kernel, &fs::read(&kernel).unwrap()[..4097]).unwrap();
    world.cdn.put("/2.initrd", Reply::ok(content(Role::Initrd, 2)));
    world.run(&["update"]).ended(0);
    assert_same_kernel_in_slot_b(&world);
    assert!(!world.cdn.requests().iter().any(|request| request == "GET /2.vmlinuz"));
}

#[test]
fn downloads_a_file_that_is_damaged_in_the_running_slot() {
    let world = World::new();
    world.publish(2);
    world.cdn.put("/2.vmlinuz", Reply::ok(content(Role::Kernel, 1)));
    world.publish_manifest(&release_with_the_same_kernel());
    let kernel = world.esp("etchaos/a/vmlinuz");
    let mut bytes = fs::read(&kernel).unwrap();
    bytes[70_000] ^= 1;
    fs::write(&kernel, bytes).unwrap();
    world.run(&["update"]).ended(0);
    assert_same_kernel_in_slot_b(&world);
    assert!(world.cdn.requests().iter().any(|request| request == "GET /2.vmlinuz"));
}

#[test]
fn downloads_a_file_that_is_damaged_before_it_is_copied() {
    let world = World::new();
    world.publish(2);
    // The kernel is downloaded before the initrd is copied.
    let mut next = release(2);
    next.artifacts[1] = Artifact { url: "1.initrd".into(), ..release(1).artifacts[1].clone() };
    world.publish_manifest(&next);
    let (initrd, kernel) = (world.esp("etchaos/a/initrd"), Reply::ok(content(Role::Kernel, 2)));
    world.cdn.answer("/2.vmlinuz", move |request| {
        if request.method == "GET" {
            let mut bytes = content(Role::Initrd, 1);
            bytes[70_000] ^= 1;
            fs::write(&initrd, bytes).unwrap();
        }
        kernel.clone()
    });
    world.run(&["update"]).ended(0);
    assert!(fs::read(world.esp("etchaos/b/initrd")).unwrap() == content(Role::Initrd, 1));
    assert!(world.cdn.requests().contains(&"GET /1.initrd".to_owned()));
}
